package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide is the state of the AVX-512 micro-kernel: two panels of the right
// factor side by side, one vector each, so twelve sums as in the AVX2 one.
type wide struct {
	acc       sums
	v0, v1, x VecVirtual
}

func newWide() *wide {
	return &wide{v0: ZMM(), v1: ZMM(), x: ZMM(), acc: newSums(wideZero)}
}

// step adds one depth; a returns the place of the left factor's row i.
func (t *wide) step(b0, b1 Mem, a func(i int) Mem) {
	VMOVUPS(b0, t.v0)
	VMOVUPS(b1, t.v1)
	for i := range t.acc {
		VBROADCASTSS(a(i), t.x)
		VFMADD231PS(t.x, t.v0, t.acc[i][0])
		VFMADD231PS(t.x, t.v1, t.acc[i][1])
	}
}

// packed adds n depths of packed panels, moves on, and asks for so many lines of
// what comes next.
func (t *wide) packed(n, lines int, a, b0, b1, ahead Register) {
	if n > 1 {
		for i := range lines {
			PREFETCHT1(Mem{Base: ahead, Disp: 64 * i})
		}
		ADDQ(U32(uint32(64*lines)), ahead)
	}
	for u := range n {
		t.step(Mem{Base: b0, Disp: 64 * u}, Mem{Base: b1, Disp: 64 * u}, func(i int) Mem { return Mem{Base: a, Disp: 24*u + 4*i} })
	}
	ADDQ(U32(24*n), a)
	ADDQ(U32(64*n), b0)
	ADDQ(U32(64*n), b1)
}

func wideTiles() {
	TEXT("avx512TilePackedWide", NOSPLIT|NOFRAME, "func(k int, a, b *float32, panel int, c *float32, ldc int, alpha float32, add bool, ahead *float32)")
	Doc("avx512TilePackedWide is vectors.tilePackedWide.")
	k, a, b0 := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	b1 := Load(Param("panel"), GP64())
	c, ldc, ahead := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("ahead"), GP64())
	SHLQ(Imm(2), ldc)
	SHLQ(Imm(2), b1)
	ADDQ(b0, b1)
	prefetch(c, ldc)
	t := newWide()
	depths(k, packedUnroll, func(n int) { t.packed(n, 2, a, b0, b1, ahead) })
	t.acc.store(t.x, c, ldc)

	TEXT("avx512TileWide", NOSPLIT|NOFRAME, "func(k int, a *float32, arow, astep int, b *float32, bstep, panel int, c *float32, ldc int, alpha float32, add bool)")
	Doc("avx512TileWide is vectors.tileWide.")
	p := newInPlace()
	b1 = Load(Param("panel"), GP64())
	SHLQ(Imm(2), b1)
	ADDQ(p.b, b1)
	t = newWide()
	p.loop(func() {
		t.step(Mem{Base: p.b}, Mem{Base: b1}, p.row)
		ADDQ(p.bstep, b1)
	})
	t.acc.store(t.x, p.c, p.ldc)
}

func wideZero() VecVirtual {
	v := ZMM()
	VPXORQ(v, v, v)
	return v
}
