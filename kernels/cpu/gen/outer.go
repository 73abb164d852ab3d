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

// outer sums outer products, 4×24 at a time, or in wide vectors 8×48: a range of columns
// for all rows, which find it in the first cache.
func outer() {
	o := newOuterSums()
	rows, lines := outerRows, 1 // at a time
	if isa.wide() {
		rows, lines = 2*outerRows, 2
	}
	MOVQ(U32(uint32(outerLine/64/lines)), o.asking)
	for at := 0; at < outerLine; at += 3 * isa.bytes() {
		MOVQ(o.groups, o.left)
		MOVQ(o.a, o.x0)
		LEAQ(Mem{Base: o.c, Disp: at}, o.c0)
		for n := rows; n > 0; n -= outerRows {
			again, fewer, groups := fmt.Sprint("rows", n, "_", at), fmt.Sprint("fewer", n, "_", at), Imm(uint64(n/outerRows))
			Label(again)
			CMPQ(o.left, groups)
			JL(LabelRef(fewer))
			o.pass(n, at, lines)
			ADDQ(Imm(uint64(4*n)), o.x0)
			ADDQ(U32(uint32(n*outerLine)), o.c0)
			SUBQ(groups, o.left)
			JMP(LabelRef(again))
			Label(fewer)
		}
	}
	end()
}

// outerSums has the parameters of outer, and where it has come to.
type outerSums struct {
	groups, a, astep, bstep, c, ahead Register
	asking                            Register // passes that ask for what is ahead
	left, x0, c0                      Register // groups, the first row, and its place in C
	depth, x, y, next                 Register // of a pass
}

func newOuterSums() *outerSums {
	declare("Outer", "func(k, groups int, a *float32, astep int, b *float32, bstep int, c, ahead *float32)", "vectors.outer")
	get := func(name string) Register { return Load(Param(name), GP64()) }
	o := &outerSums{groups: get("groups"), a: get("a"), astep: get("astep"), bstep: get("bstep"), c: get("c"), ahead: get("ahead")}
	SHLQ(Imm(2), o.astep)
	SHLQ(Imm(2), o.bstep)
	for _, r := range []*Register{&o.asking, &o.left, &o.x0, &o.c0, &o.depth, &o.x, &o.y, &o.next} {
		*r = GP64()
	}
	return o
}

// pass adds to so many rows, and three vectors of columns that lie so many bytes on. The
// first passes ask for some lines of each row that is ahead.
func (o *outerSums) pass(rows, at, lines int) {
	label := func(name string) string { return fmt.Sprint(name, rows, "_", at) }
	var row, element = []VecVirtual{isa.new(), isa.new(), isa.new()}, isa.new()
	acc := make([][]VecVirtual, rows)
	each := func(f func(v VecVirtual, m Mem)) {
		for i := range acc {
			for j, v := range acc[i] {
				f(v, Mem{Base: o.c0, Disp: outerLine*i + isa.bytes()*j})
			}
		}
	}
	for i := range acc {
		acc[i] = []VecVirtual{isa.new(), isa.new(), isa.new()}
	}
	sum := func(label string, ask bool) {
		Label(label)
		for i := 0; ask && i < lines; i++ {
			PREFETCHT1(Mem{Base: o.next, Disp: 64 * i})
		}
		for j, v := range row {
			VMOVUPS(Mem{Base: o.y, Disp: isa.bytes() * j}, v)
		}
		for i := range acc {
			VBROADCASTSS(Mem{Base: o.x, Disp: 4 * i}, element)
			for j, v := range acc[i] {
				VFMADD231PS(row[j], element, v)
			}
		}
		ADDQ(o.astep, o.x)
		ADDQ(o.bstep, o.y)
		if ask {
			ADDQ(o.bstep, o.next)
		}
		DECQ(o.depth)
		JNZ(LabelRef(label))
	}

	each(func(v VecVirtual, m Mem) { VMOVUPS(m, v) })
	load("k", o.depth)
	MOVQ(o.x0, o.x)
	load("b", o.y)
	ADDQ(U32(uint32(at)), o.y)
	TESTQ(o.asking, o.asking)
	JZ(LabelRef(label("asked")))
	MOVQ(o.ahead, o.next)
	sum(label("ask"), true)
	ADDQ(U32(uint32(64*lines)), o.ahead)
	DECQ(o.asking)
	JMP(LabelRef(label("store")))
	sum(label("asked"), false)
	Label(label("store"))
	each(func(v VecVirtual, m Mem) { VMOVUPS(v, m) })
}
