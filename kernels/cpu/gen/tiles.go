package main

import (
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

// add adds n depths, and moves on.
func (p *panels) add(t *tile, n int) {
	if n > 1 {
		for i := range p.lines {
			PREFETCHT1(Mem{Base: p.ahead, Disp: 64 * i})
		}
		ADDQ(p.advance, p.ahead)
	}
	for u := range n {
		t.step(
			func(i int) Mem { return Mem{Base: p.a[i/rows], Disp: 4 * (rows*u + i%rows)} },
			func(j int) Mem {
				if isa.wide() {
					return Mem{Base: p.b[j], Disp: 4 * cols * u}
				}
				return Mem{Base: p.b[0], Disp: 4*cols*u + isa.bytes()*j}
			})
	}
	for _, a := range p.a {
		ADDQ(U32(uint32(4*rows*n)), a)
	}
	for _, b := range p.b {
		ADDQ(U32(uint32(4*cols*n)), b)
	}
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

// depths calls steps for as many of the k depths at a time as unroll says, then
// for one at a time; steps also moves on. label makes the labels' names, which differ where a
// function has several such loops.
func depths(label func(name string) string, k Register, unroll int, steps func(n int)) {
	unrolled, single, done := label("unrolled"), label("one"), label("done")
	Label(unrolled)
	CMPQ(k, Imm(uint64(unroll)))
	JL(LabelRef(single))
	steps(unroll)
	SUBQ(Imm(uint64(unroll)), k)
	JMP(LabelRef(unrolled))
	Label(single)
	TESTQ(k, k)
	JZ(LabelRef(done))
	steps(1)
	DECQ(k)
	JMP(LabelRef(single))
	Label(done)
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
	vectors := []Register{in.b}
	if isa.wide() {
		vectors = append(vectors, GP64())
		secondPanel(vectors)
	}
	t := newTile(rows, 2)
	in.loop(func() {
		t.step(in.row, func(j int) Mem {
			if isa.wide() {
				return Mem{Base: vectors[j]}
			}
			return Mem{Base: in.b, Disp: isa.bytes() * j}
		})
		if isa.wide() {
			ADDQ(in.bstep, vectors[1])
		}
	})
	t.store(in.c, in.ldc)
	if !isa.wide() {
		return
	}

	declare("TileTall", "func(k int, a *float32, arow, astep, apanel int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)", "vectors.tileTall")
	in = newInPlace(2 * rows)
	t = newTile(2*rows, 1)
	in.loop(func() { t.step(in.row, func(int) Mem { return Mem{Base: in.b} }) })
	t.store(in.c, in.ldc)
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
	depths(plain, k, packedUnroll, func(n int) { p.add(t, n) })
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
	k, astep, arow, ahead, b, bstep, c, ldc Register
	a                                       []Register      // by way of which the left factor's rows are found
	row                                     func(i int) Mem // the place of one
}

// newInPlace loads the parameters of vectors.tile, or of vectors.tileTall.
func newInPlace(count int) *inPlace {
	p, a := &inPlace{}, Load(Param("a"), GP64())
	p.k, p.b = Load(Param("k"), GP64()), Load(Param("b"), GP64())
	p.c, p.ldc = Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	p.arow, p.astep, p.bstep = Load(Param("arow"), GP64()), Load(Param("astep"), GP64()), Load(Param("bstep"), GP64())
	for _, r := range []Register{p.ldc, p.arow, p.astep, p.bstep} {
		SHLQ(Imm(2), r)
	}
	prefetch(count, p.c, p.ldc)
	p.row, p.a = rowsFrom(a, p.arow, rows)
	if count > rows {
		panel, upper := GP64(), p.row
		Load(Param("apanel"), panel)
		LEAQ(Mem{Base: a, Index: panel, Scale: 4}, panel)
		lower, bases := rowsFrom(panel, p.arow, count-rows)
		p.a = append(p.a, bases...)
		p.row = func(i int) Mem {
			if i < rows {
				return upper(i)
			}
			return lower(i - rows)
		}
	}
	// Sixteen depths on: where they lie far apart, nothing else asks for them in time.
	p.ahead = GP64()
	MOVQ(p.astep, p.ahead)
	SHLQ(Imm(4), p.ahead)
	ADDQ(a, p.ahead)
	return p
}

// loop does step for each of the k depths.
func (p *inPlace) loop(step func()) {
	depths(plain, p.k, 4, func(n int) {
		for range n {
			PREFETCHT0(Mem{Base: p.ahead})
			ADDQ(p.astep, p.ahead)
			step()
			for _, a := range p.a {
				ADDQ(p.astep, a)
			}
			ADDQ(p.bstep, p.b)
		}
	})
}
