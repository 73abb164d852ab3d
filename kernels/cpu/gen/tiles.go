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

// sums are those of a micro-tile: two vectors for each row.
type sums [rows][2]VecVirtual

func newSums(vector func() VecVirtual) (s sums) {
	for i := range s {
		for j := range s[i] {
			s[i][j] = vector()
		}
	}
	return s
}

// tile is the state of a 6×16 micro-kernel: twelve sums, two vectors of the
// right factor and two elements of the left one make up the sixteen registers.
type tile struct {
	acc            sums
	b0, b1, a0, a1 VecVirtual
}

func newTile() *tile {
	return &tile{b0: YMM(), b1: YMM(), a0: YMM(), a1: YMM(), acc: newSums(zeroed)}
}

// step adds one depth; a returns the place of the left factor's row i.
func (t *tile) step(b Mem, a func(i int) Mem) {
	VMOVUPS(b, t.b0)
	VMOVUPS(b.Offset(32), t.b1)
	for i := 0; i < rows; i += 2 {
		VBROADCASTSS(a(i), t.a0)
		VBROADCASTSS(a(i+1), t.a1)
		VFMADD231PS(t.a0, t.b0, t.acc[i][0])
		VFMADD231PS(t.a0, t.b1, t.acc[i][1])
		VFMADD231PS(t.a1, t.b0, t.acc[i+1][0])
		VFMADD231PS(t.a1, t.b1, t.acc[i+1][1])
	}
}

// packed adds n depths of packed panels, moves on, and asks for some of what comes
// next.
func (t *tile) packed(n int, a, b, ahead Register) {
	if n > 1 {
		PREFETCHT1(Mem{Base: ahead})
		ADDQ(Imm(64), ahead)
	}
	for u := range n {
		t.step(Mem{Base: b, Disp: 64 * u}, func(i int) Mem { return Mem{Base: a, Disp: 24*u + 4*i} })
	}
	ADDQ(U32(24*n), a)
	ADDQ(U32(64*n), b)
}

// prefetch asks for the rows of C, which are needed at the end.
func prefetch(c, ldc Register) {
	p := GP64()
	MOVQ(c, p)
	for range rows {
		PREFETCHT0(Mem{Base: p})
		PREFETCHT0(Mem{Base: p, Disp: 60})
		ADDQ(ldc, p)
	}
}

// store writes alpha times the sums, or adds them; alpha is a vector to use.
func (s sums) store(alpha VecVirtual, c, ldc Register) {
	broadcast("alpha", alpha)
	add := Load(Param("add"), GP8())
	TESTB(add, add)
	JZ(LabelRef("overwrite"))
	each := func(f func(sum VecVirtual, m Mem)) {
		for i := range s {
			for j, sum := range s[i] {
				m := Mem{Base: c, Disp: int(sum.Size()) * j}
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

// addTo adds the sums at c and, if there is one, times sign at d: tiles of a block.
// sum is a vector to use.
func (s sums) addTo(sum, sign VecVirtual, c, d Register) {
	for i := range s {
		for j, acc := range s[i] {
			at := blockLine*i + int(acc.Size())*j
			VADDPS(Mem{Base: c, Disp: at}, acc, sum)
			VMOVUPS(sum, Mem{Base: c, Disp: at})
			if d != nil {
				VFMADD213PS(Mem{Base: d, Disp: at}, sign, acc)
				VMOVUPS(acc, Mem{Base: d, Disp: at})
			}
		}
	}
}

// blockLine is the distance between the rows of a block, in bytes.
const blockLine = 4 * 64

// depths calls steps for as many of the k depths at a time as unroll says, then
// for one at a time, and ends with the label "store"; steps also moves on.
func depths(k Register, unroll int, steps func(n int)) {
	Label("unrolled")
	CMPQ(k, Imm(uint64(unroll)))
	JL(LabelRef("single"))
	steps(unroll)
	SUBQ(Imm(uint64(unroll)), k)
	JMP(LabelRef("unrolled"))
	Label("single")
	TESTQ(k, k)
	JZ(LabelRef("store"))
	steps(1)
	DECQ(k)
	JMP(LabelRef("single"))
	Label("store")
}

// packedUnroll is how many depths of packed factors go together.
const packedUnroll = 8

func tiles() {
	TEXT("avx2TilePacked", NOSPLIT|NOFRAME, "func(k int, a, b, c *float32, ldc int, alpha float32, add bool, ahead *float32)")
	Doc("avx2TilePacked is vectors.tilePacked.")
	k, a, b := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	c, ldc, ahead := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("ahead"), GP64())
	SHLQ(Imm(2), ldc)
	prefetch(c, ldc)
	t := newTile()
	depths(k, packedUnroll, func(n int) { t.packed(n, a, b, ahead) })
	t.acc.store(t.a0, c, ldc)

	TEXT("avx2Tile", NOSPLIT|NOFRAME, "func(k int, a *float32, arow, astep int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)")
	Doc("avx2Tile is vectors.tile.")
	p := newInPlace()
	t = newTile()
	p.loop(func() { t.step(Mem{Base: p.b}, p.row) })
	t.acc.store(t.a0, p.c, p.ldc)
}

// inPlace walks over factors that lie as they may.
type inPlace struct {
	k, a, lower, astep, arow, ahead, b, bstep, c, ldc Register
}

// newInPlace loads the parameters of vectors.tile.
func newInPlace() *inPlace {
	p := &inPlace{}
	p.k, p.a, p.b = Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	p.c, p.ldc = Load(Param("c"), GP64()), Load(Param("ldc"), GP64())
	p.arow, p.astep, p.bstep = Load(Param("arow"), GP64()), Load(Param("astep"), GP64()), Load(Param("bstep"), GP64())
	for _, r := range []Register{p.ldc, p.arow, p.astep, p.bstep} {
		SHLQ(Imm(2), r)
	}
	prefetch(p.c, p.ldc)
	lower := GP64() // rows 3 to 5
	LEAQ(Mem{Base: p.a, Index: p.arow, Scale: 2}, lower)
	ADDQ(p.arow, lower)
	// Sixteen depths on: where they lie far apart, nothing else asks for them in time.
	ahead := GP64()
	MOVQ(p.astep, ahead)
	SHLQ(Imm(4), ahead)
	ADDQ(p.a, ahead)
	p.lower, p.ahead = lower, ahead
	return p
}

// row returns the place of the left factor's row i.
func (p *inPlace) row(i int) Mem {
	base := p.a
	if i >= 3 {
		base = p.lower
	}
	if i%3 == 0 {
		return Mem{Base: base}
	}
	return Mem{Base: base, Index: p.arow, Scale: uint8(i % 3)}
}

// loop does step for each of the k depths, and ends with the label "store".
func (p *inPlace) loop(step func()) {
	depths(p.k, 4, func(n int) {
		for range n {
			PREFETCHT0(Mem{Base: p.ahead})
			ADDQ(p.astep, p.ahead)
			step()
			ADDQ(p.astep, p.a)
			ADDQ(p.astep, p.lower)
			ADDQ(p.bstep, p.b)
		}
	})
}
