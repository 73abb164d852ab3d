package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wide is the state of the AVX-512 micro-kernel: two panels of the right
// factor side by side, one vector each, so twelve sums as in the AVX2 one.
type wide struct {
	acc       [rows][2]VecVirtual
	v0, v1, x VecVirtual
}

func newWide() *wide {
	t := &wide{v0: ZMM(), v1: ZMM(), x: ZMM()}
	for i := range t.acc {
		for j := range t.acc[i] {
			t.acc[i][j] = wideZero()
		}
	}
	return t
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

// store writes alpha times the sums, or adds them.
func (t *wide) store(c, ldc Register) {
	broadcast("alpha", t.x)
	add := Load(Param("add"), GP8())
	TESTB(add, add)
	JZ(LabelRef("overwrite"))
	each := func(f func(acc VecVirtual, m Mem)) {
		for i := range t.acc {
			for j, v := range t.acc[i] {
				f(v, Mem{Base: c, Disp: 64 * j})
				VMOVUPS(v, Mem{Base: c, Disp: 64 * j})
			}
			ADDQ(ldc, c)
		}
		end()
	}
	each(func(v VecVirtual, m Mem) { VFMADD213PS(m, t.x, v) })
	Label("overwrite")
	each(func(v VecVirtual, _ Mem) { VMULPS(t.x, v, v) })
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
	at := func(u int) {
		t.step(Mem{Base: b0, Disp: 64 * u}, Mem{Base: b1, Disp: 64 * u}, func(i int) Mem { return Mem{Base: a, Disp: 24*u + 4*i} })
	}
	advance := func(n int) {
		ADDQ(U32(uint32(24*n)), a)
		ADDQ(U32(uint32(64*n)), b0)
		ADDQ(U32(uint32(64*n)), b1)
	}
	const unroll = 8
	Label("unrolled")
	CMPQ(k, Imm(unroll))
	JL(LabelRef("single"))
	PREFETCHT1(Mem{Base: ahead})
	PREFETCHT1(Mem{Base: ahead, Disp: 64})
	ADDQ(U32(128), ahead)
	for u := range unroll {
		at(u)
	}
	advance(unroll)
	SUBQ(Imm(unroll), k)
	JMP(LabelRef("unrolled"))
	Label("single")
	TESTQ(k, k)
	JZ(LabelRef("store"))
	at(0)
	advance(1)
	DECQ(k)
	JMP(LabelRef("single"))
	Label("store")
	t.store(c, ldc)

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
	t.store(p.c, p.ldc)
}

func wideZero() VecVirtual {
	v := ZMM()
	VPXORQ(v, v, v)
	return v
}
