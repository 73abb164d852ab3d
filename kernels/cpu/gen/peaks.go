package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// peaks are loops that do nothing but multiply and add.
func peaks() {
	multiplyAdds("avx2FMA", "eight", zeroed)
	multiplyAdds("avx512FMA", "sixteen", wideZero)
}

func multiplyAdds(name, lanes string, zero func() VecVirtual) {
	TEXT(name, NOSPLIT|NOFRAME, "func(rounds int)")
	Doc(name + " does rounds of twelve independent multiply-adds of " + lanes + " numbers.")
	n := Load(Param("rounds"), GP64())
	var acc [12]VecVirtual
	for i := range acc {
		acc[i] = zero()
	}
	x, y := zero(), zero()
	Label("loop")
	for i := range acc {
		VFMADD231PS(x, y, acc[i])
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	end()
}
