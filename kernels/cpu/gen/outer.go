package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	outerRows = 4
	outerLine = 4 * 96 // bytes between the rows of its C
)

// outer sums outer products: 4×24, or in wide vectors 4×96, which takes whole lines
// of the long factor.
func outer() {
	count := 3
	if isa.wide() {
		count = 6
	}
	declare("Outer", "func(k int, a *float32, astep int, b *float32, bstep int, c, ahead *float32)", "vectors.outer")
	k, a, b, c := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("c"), GP64())
	astep, bstep := Load(Param("astep"), GP64()), Load(Param("bstep"), GP64())
	SHLQ(Imm(2), astep)
	SHLQ(Imm(2), bstep)
	ahead := Load(Param("ahead"), GP64())
	var acc [outerRows][]VecVirtual
	var row []VecVirtual
	for range count {
		row = append(row, isa.new())
	}
	each := func(f func(v VecVirtual, m Mem)) {
		for i := range acc {
			for j, v := range acc[i] {
				f(v, Mem{Base: c, Disp: outerLine*i + isa.bytes()*j})
			}
		}
	}
	for i := range acc {
		for range count {
			acc[i] = append(acc[i], isa.new())
		}
	}
	each(func(v VecVirtual, m Mem) { VMOVUPS(m, v) })
	x := isa.new()
	Label("depth")
	PREFETCHT1(Mem{Base: ahead})
	PREFETCHT1(Mem{Base: ahead, Disp: 64})
	for j, v := range row {
		VMOVUPS(Mem{Base: b, Disp: isa.bytes() * j}, v)
	}
	for i := range acc {
		VBROADCASTSS(Mem{Base: a, Disp: 4 * i}, x)
		for j, v := range acc[i] {
			VFMADD231PS(row[j], x, v)
		}
	}
	for _, r := range [][2]Register{{astep, a}, {bstep, b}, {bstep, ahead}} {
		ADDQ(r[0], r[1])
	}
	DECQ(k)
	JNZ(LabelRef("depth"))
	each(func(v VecVirtual, m Mem) { VMOVUPS(v, m) })
	end()
}
