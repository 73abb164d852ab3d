package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	outerRows = 4
	outerLine = 4 * 96 // bytes of a row of the block
)

// outer sums outer products, 4×24 at a time, or in wide vectors 4×96, which takes whole
// lines of the long factor.
func outer() {
	count, lines := 3, 1
	if isa.wide() {
		count, lines = 6, 2
	}
	declare("Outer", "func(k, groups int, a *float32, astep int, b *float32, bstep int, c, ahead *float32)", "vectors.outer")
	k, groups := Load(Param("k"), GP64()), Load(Param("groups"), GP64())
	a, b, c := Load(Param("a"), GP64()), Load(Param("b"), GP64()), Load(Param("c"), GP64())
	astep, bstep := Load(Param("astep"), GP64()), Load(Param("bstep"), GP64())
	SHLQ(Imm(2), astep)
	SHLQ(Imm(2), bstep)
	ahead, asking := Load(Param("ahead"), GP64()), GP64()
	MOVQ(U32(uint32(outerLine/64/lines)), asking)
	depth, x, y, next := GP64(), GP64(), GP64(), GP64()
	var acc [outerRows][]VecVirtual
	var row []VecVirtual
	for range count {
		row = append(row, isa.new())
	}
	for i := range acc {
		for range count {
			acc[i] = append(acc[i], isa.new())
		}
	}
	element := isa.new()

	sum := func(label string, ask bool) {
		Label(label)
		for i := 0; ask && i < lines; i++ {
			PREFETCHT1(Mem{Base: next, Disp: 64 * i})
		}
		for j, v := range row {
			VMOVUPS(Mem{Base: y, Disp: isa.bytes() * j}, v)
		}
		for i := range acc {
			VBROADCASTSS(Mem{Base: x, Disp: 4 * i}, element)
			for j, v := range acc[i] {
				VFMADD231PS(row[j], element, v)
			}
		}
		ADDQ(astep, x)
		ADDQ(bstep, y)
		if ask {
			ADDQ(bstep, next)
		}
		DECQ(depth)
		JNZ(LabelRef(label))
	}

	Label("group")
	for at := 0; at < outerLine; at += isa.bytes() * count {
		label := func(name string) string { return fmt.Sprint(name, at) }
		each := func(f func(v VecVirtual, m Mem)) {
			for i := range acc {
				for j, v := range acc[i] {
					f(v, Mem{Base: c, Disp: outerLine*i + at + isa.bytes()*j})
				}
			}
		}
		each(func(v VecVirtual, m Mem) { VMOVUPS(m, v) })
		MOVQ(k, depth)
		MOVQ(a, x)
		LEAQ(Mem{Base: b, Disp: at}, y)
		TESTQ(asking, asking)
		JZ(LabelRef(label("asked")))
		MOVQ(ahead, next)
		sum(label("ask"), true)
		ADDQ(U32(uint32(64*lines)), ahead)
		DECQ(asking)
		JMP(LabelRef(label("store")))
		sum(label("asked"), false)
		Label(label("store"))
		each(func(v VecVirtual, m Mem) { VMOVUPS(v, m) })
	}
	ADDQ(Imm(4*outerRows), a)
	ADDQ(U32(outerRows*outerLine), c)
	DECQ(groups)
	JNZ(LabelRef("group"))
	end()
}
