package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// peaks is a loop that does nothing but multiply and add.
func peaks() {
	TEXT("avx2FMA", NOSPLIT|NOFRAME, "func(rounds int)")
	Doc("avx2FMA does rounds of twelve independent multiply-adds of eight numbers.")
	n := Load(Param("rounds"), GP64())
	var acc [12]VecVirtual
	for i := range acc {
		acc[i] = zeroed()
	}
	x, y := zeroed(), zeroed()
	Label("loop")
	for i := range acc {
		VFMADD231PS(x, y, acc[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	end()
}
