package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	rows = 6
	cols = 16
)

// tile is the state of a micro-kernel: sums, of rows of so many vectors, and
// vectors of the right factor and elements of the left one. In AVX2 there are registers for
// twelve sums; in AVX-512, too, two panels of the right factor in six rows, or one
// in twelve, keep both multipliers busy. Two in twelve read the right factor half as often.
type tile struct {
	acc  [][]VecVirtual
	b, a []VecVirtual
}

func newTile(rows, vectors int) *tile {
	t := &tile{a: []VecVirtual{isa.new(), isa.new()}}
	for range vectors {
		t.b = append(t.b, isa.new())
	}
	for range rows {
		t.acc = append(t.acc, isa.zeros(vectors))
	}
	return t
}

// step adds one depth; a and b return the places of the left factor's row i, and
// of the right factor's vector j.
func (t *tile) step(a, b func(i int) Mem) {
	for j, v := range t.b {
		VMOVUPS(b(j), v)
	}
	for i := 0; i < len(t.acc); i += 2 {
		for e, x := range t.a {
			VBROADCASTSS(a(i+e), x)
		}
		for e, x := range t.a {
			for j, sum := range t.acc[i+e] {
				VFMADD231PS(x, t.b[j], sum)
			}
		}
	}
}

// panels are packed ones: a has those of the left factor, b the vectors of the right
// one, each in a panel of its own where they are wide.
type panels struct {
	a       []Register
	b       []Register
	ahead   Register // what to ask for
	lines   int      // how much of it, for each of packedUnroll depths
	advance Op       // and by how many bytes it moves on
}

func newPanels(a, b, ahead Register, lines int) *panels {
	p := &panels{a: []Register{a}, b: []Register{b}, ahead: ahead, lines: lines, advance: U32(uint32(64 * lines))}
	if isa.wide() {
		p.b = append(p.b, GP64())
	}
	return p
}

// loop adds k depths, packedUnroll at a time and then, unless all are whole, single ones. It
// moves a and b behind them. Where two threads share a core, each has half of its
// instructions, and beside multiply-adds, loads and broadcasts few are left: what is left of k, in
// bytes, is the index of all of a, and ends the loop.
func (p *panels) loop(t *tile, label func(name string) string, k Register, whole bool) {
	unrolled, single, done := label("unrolled"), label("one"), label("done")
	var rest Register
	if !whole {
		rest = GP64()
		MOVQ(k, rest)
		ANDQ(Imm(packedUnroll-1), rest)
		SUBQ(rest, k)
	}
	IMUL3Q(Imm(4*rows), k, k)
	for _, a := range p.a {
		ADDQ(k, a)
	}
	NEGQ(k)
	if !whole {
		JZ(LabelRef(single))
	}
	Label(unrolled)
	for i := range p.lines {
		PREFETCHT1(Mem{Base: p.ahead, Disp: 64 * i})
	}
	ADDQ(p.advance, p.ahead)
	p.add(t, k, packedUnroll)
	ADDQ(U32(4*rows*packedUnroll), k)
	JNZ(LabelRef(unrolled))
	if whole {
		return
	}
	Label(single)
	SUBQ(Imm(1), rest)
	JB(LabelRef(done))
	p.add(t, k, 1)
	for _, a := range p.a {
		ADDQ(U32(4*rows), a)
	}
	JMP(LabelRef(single))
	Label(done)
}

// add adds n depths, of which those of a have an index; b moves on.
func (p *panels) add(t *tile, index Register, n int) {
	for u := range n {
		t.step(
			func(i int) Mem {
				return Mem{Base: p.a[i/rows], Index: index, Scale: 1, Disp: 4 * (rows*u + i%rows)}
			},
			func(j int) Mem { return vectorOf(p.b, j).Offset(4 * cols * u) })
	}
	for _, b := range p.b {
		ADDQ(U32(uint32(4*cols*n)), b)
	}
}

// vectorOf returns the place of a row's vector j in panels of the right factor: wide vectors fill
// one each.
func vectorOf(panels []Register, j int) Mem {
	if isa.wide() {
		return Mem{Base: panels[j]}
	}
	return Mem{Base: panels[0], Disp: isa.bytes() * j}
}

// prefetch asks for the rows of C, which are needed at the end.
func prefetch(rows int, c, ldc Register) {
	p := GP64()
	MOVQ(c, p)
	for range rows {
		PREFETCHT0(Mem{Base: p})
		PREFETCHT0(Mem{Base: p, Disp: 60})
		ADDQ(ldc, p)
	}
}

// store writes alpha times the sums, or adds them.
func (t *tile) store(c, ldc Register) {
	alpha := t.a[0]
	broadcast("alpha", alpha)
	add := Load(Param("add"), GP8())
	TESTB(add, add)
	JZ(LabelRef("overwrite"))
	each := func(f func(sum VecVirtual, m Mem)) {
		for _, row := range t.acc {
			for j, sum := range row {
				m := Mem{Base: c, Disp: isa.bytes() * j}
				f(sum, m)
				VMOVUPS(sum, m)
			}
			ADDQ(ldc, c)
		}
		end()
	}
	each(func(sum VecVirtual, m Mem) { VFMADD213PS(m, alpha, sum) })
	Label("overwrite")
	each(func(sum VecVirtual, _ Mem) { VMULPS(alpha, sum, sum) })
}

// blockLine is the distance between the rows of a block, in bytes.
const blockLine = 4 * 64

// depths calls steps for as many of the k depths at a time as each of the sizes says, ever fewer, and
// for the last ones one at a time; steps also moves on. label makes the labels' names, which
// differ where a function has several such loops.
func depths(label func(name string) string, k Register, steps func(n int), sizes ...int) {
	for _, n := range sizes {
		again, rest := label(fmt.Sprint("by", n)), label(fmt.Sprint("less_than", n))
		SUBQ(Imm(uint64(n)), k)
		JL(LabelRef(rest))
		Label(again)
		steps(n)
		SUBQ(Imm(uint64(n)), k)
		JGE(LabelRef(again))
		Label(rest)
		ADDQ(Imm(uint64(n)), k)
		JZ(LabelRef(label("done")))
	}
	Label(label("one"))
	steps(1)
	DECQ(k)
	JNZ(LabelRef(label("one")))
	Label(label("done"))
}

// plain is for a function that has one such loop.
func plain(name string) string { return name }

// packedUnroll is how many depths of packed factors go together.
const packedUnroll = 8

// tiles are the micro-kernels: packed, and in place.
func tiles() {
	second, name := "", ""
	if isa.wide() {
		second, name = "panel int, ", "Wide"
		packedTile("TilePackedLarge", second, 2*rows)
	}
	packedTile("TilePacked"+name, second, rows)

	declare("Tile"+name, "func(k int, a *float32, arow, astep int, b *float32, bstep int, "+second+"c *float32, ldc int, alpha float32, add bool)", "vectors.tile"+name)
	in := newInPlace(rows)
	if isa.wide() {
		in.right = append(in.right, GP64())
		secondPanel(in.right)
	}
	in.run(newTile(rows, 2))
	if !isa.wide() {
		return
	}

	declare("TileTall", "func(k int, a *float32, arow, astep, apanel int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)", "vectors.tileTall")
	in = newInPlace(2 * rows)
	in.run(newTile(2*rows, 1))
}

// packedTile is a micro-kernel for packed factors, of the rows of one panel or two.
func packedTile(name, second string, count int) {
	declare(name, "func(k int, a, b *float32, "+second+"c *float32, ldc int, alpha float32, add bool, ahead *float32)", "vectors.t"+name[1:])
	k, a, b := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	c, ldc, ahead := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("ahead"), GP64())
	SHLQ(Imm(2), ldc)
	p := newPanels(a, b, ahead, isa.lanes/8*count/rows)
	if isa.wide() {
		secondPanel(p.b)
	}
	if count > rows { // the next panel follows
		next := GP64()
		IMUL3Q(Imm(4*rows), k, next)
		ADDQ(a, next)
		p.a = append(p.a, next)
	}
	prefetch(count, c, ldc)
	t := newTile(count, 2)
	p.loop(t, plain, k, false)
	t.store(c, ldc)
}

// secondPanel sets b[1] to what lies the parameter panel behind b[0].
func secondPanel(b []Register) {
	Load(Param("panel"), b[1])
	SHLQ(Imm(2), b[1])
	ADDQ(b[0], b[1])
}

// inPlace walks over factors that lie as they may.
type inPlace struct {
	k, astep, arow, bstep, c, ldc Register
	left, right                   []Register // panels of the factors
}

// newInPlace loads the parameters of vectors.tile, or of vectors.tileTall.
func newInPlace(count int) *inPlace {
	p, a := &inPlace{}, Load(Param("a"), GP64())
	p.left = []Register{a}
	p.k, p.right = Load(Param("k"), GP64()), []Register{Load(Param("b"), GP64())}
	p.c, p.ldc = Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	p.arow, p.astep, p.bstep = Load(Param("arow"), GP64()), Load(Param("astep"), GP64()), Load(Param("bstep"), GP64())
	for _, r := range []Register{p.ldc, p.arow, p.astep, p.bstep} {
		SHLQ(Imm(2), r)
	}
	prefetch(count, p.c, p.ldc)
	if count > rows {
		second := GP64()
		Load(Param("apanel"), second)
		LEAQ(Mem{Base: a, Index: second, Scale: 4}, second)
		p.left = append(p.left, second)
	}
	return p
}

// inPlaceUnroll is how many depths go together: as many as steps can be told apart by an index.
const inPlaceUnroll = 4

// steps are places that many steps apart: of u of them, and a way to go on by n.
func steps(step Register) (at func(m Mem, u int) Mem, move func(r Register, n int)) {
	step3 := GP64()
	LEAQ(Mem{Base: step, Index: step, Scale: 2}, step3)
	at = func(m Mem, u int) Mem {
		switch u {
		case 0:
			return m
		case 3:
			m.Index, m.Scale = step3, 1
		default:
			m.Index, m.Scale = step, uint8(u)
		}
		return m
	}
	move = func(r Register, n int) {
		if n == inPlaceUnroll {
			LEAQ(Mem{Base: r, Index: step, Scale: inPlaceUnroll}, r)
		} else {
			ADDQ(step, r)
		}
	}
	return at, move
}

// lineDepths is how many elements of a row lie in a line.
const lineDepths = lineBytes / 4

// nextRows asks for so many rows, an even number, a line of each at a time.
type nextRows struct {
	at, stride, on Register
	count          int
}

// newNextRows is for the rows that follow as many from first on.
func newNextRows(first, stride Register, count int) *nextRows {
	r := &nextRows{at: GP64(), stride: stride, on: GP64(), count: count}
	IMUL3Q(U32(uint32(count)), stride, r.on)
	LEAQ(Mem{Base: first, Index: r.on, Scale: 1}, r.at)
	NEGQ(r.on)
	ADDQ(Imm(lineBytes), r.on)
	return r
}

func (r *nextRows) ask() {
	for i := 0; i < r.count; i += 2 {
		PREFETCHT1(Mem{Base: r.at})
		PREFETCHT1(Mem{Base: r.at, Index: r.stride, Scale: 1})
		LEAQ(Mem{Base: r.at, Index: r.stride, Scale: 2}, r.at)
	}
	ADDQ(r.on, r.at)
}

// run computes a tile. The left factor's elements follow each other in its rows, or else in its
// columns.
func (p *inPlace) run(t *tile) {
	rightAt, rightOn := steps(p.bstep)
	right := func(u int) func(j int) Mem {
		return func(j int) Mem { return rightAt(vectorOf(p.right, j), u) }
	}
	on := func(n int) {
		for _, b := range p.right {
			rightOn(b, n)
		}
	}
	CMPQ(p.astep, Imm(4))
	JNE(LabelRef("columns"))

	var row []func(i int) Mem
	var bases []Register
	for _, panel := range p.left {
		r, b := rowsFrom(panel, p.arow, rows)
		row, bases = append(row, r), append(bases, b...)
	}
	add := func(n int) {
		for u := range n {
			t.step(func(i int) Mem { return row[i/rows](i % rows).Offset(4 * u) }, right(u))
		}
		for _, b := range bases {
			ADDQ(Imm(uint64(4*n)), b)
		}
		on(n)
	}
	// A line of each row, it asks for that of the next tile's: a row may end before the
	// processor sees where it leads.
	next := newNextRows(p.left[0], p.arow, len(t.acc))
	depths(func(name string) string { return name + "_in_rows" }, p.k, func(n int) {
		if n == lineDepths {
			next.ask()
		}
		for at := 0; at < n; at += inPlaceUnroll {
			add(min(n, inPlaceUnroll))
		}
	}, lineDepths, inPlaceUnroll)
	JMP(LabelRef("computed"))

	Label("columns")
	leftAt, leftOn := steps(p.astep)
	// Sixteen depths on: where they lie far apart, nothing else asks for them in time.
	ahead := GP64()
	MOVQ(p.astep, ahead)
	SHLQ(Imm(4), ahead)
	ADDQ(p.left[0], ahead)
	depths(func(name string) string { return name + "_in_columns" }, p.k, func(n int) {
		for u := range n {
			PREFETCHT0(leftAt(Mem{Base: ahead}, u))
			t.step(func(i int) Mem { return leftAt(Mem{Base: p.left[i/rows], Disp: 4 * (i % rows)}, u) }, right(u))
		}
		for _, a := range append([]Register{ahead}, p.left...) {
			leftOn(a, n)
		}
		on(n)
	}, inPlaceUnroll)
	Label("computed")
	t.store(p.c, p.ldc)
}
