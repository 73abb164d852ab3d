package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// peak does nothing but multiply and add.
func peak() {
	declare("FMA", "func(rounds int)", "vectors.peak: rounds of twelve independent multiply-adds of vectors")
	n := Load(Param("rounds"), GP64())
	acc := isa.zeros(12)
	x, y := isa.zeroed(), isa.zeroed()
	Label("loop")
	for i := range acc {
		VFMADD231PS(x, y, acc[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	end()
}
