package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// wideTile is the AVX-512 micro-kernel: two panels of the right factor side by
// side, one vector each, so twelve sums as in the AVX2 one.
func wideTile() {
	TEXT("avx512TileWide", NOSPLIT|NOFRAME, "func(k int, a, b *float32, panel int, c *float32, ldc int, alpha float32, add bool, ahead *float32)")
	Doc("avx512TileWide is vectors.tileWide.")
	k, a, b0 := Load(Param("k"), GP64()), Load(Param("a"), GP64()), Load(Param("b"), GP64())
	b1 := Load(Param("panel"), GP64())
	c, ldc, ahead := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("ahead"), GP64())
	SHLQ(Imm(2), ldc)
	SHLQ(Imm(2), b1)
	ADDQ(b0, b1)
	prefetch(c, ldc)
	var acc [rows][2]VecVirtual
	for i := range acc {
		for j := range acc[i] {
			acc[i][j] = wideZero()
		}
	}
	v0, v1, x := ZMM(), ZMM(), ZMM()
	step := func(u int) {
		VMOVUPS(Mem{Base: b0, Disp: 64 * u}, v0)
		VMOVUPS(Mem{Base: b1, Disp: 64 * u}, v1)
		for i := range acc {
			VBROADCASTSS(Mem{Base: a, Disp: 24*u + 4*i}, x)
			VFMADD231PS(x, v0, acc[i][0])
			VFMADD231PS(x, v1, acc[i][1])
		}
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
		step(u)
	}
	advance(unroll)
	SUBQ(Imm(unroll), k)
	JMP(LabelRef("unrolled"))
	Label("single")
	TESTQ(k, k)
	JZ(LabelRef("store"))
	step(0)
	advance(1)
	DECQ(k)
	JMP(LabelRef("single"))
	Label("store")
	broadcast("alpha", x)
	add := Load(Param("add"), GP8())
	TESTB(add, add)
	JZ(LabelRef("overwrite"))
	each := func(f func(acc VecVirtual, m Mem)) {
		for i := range acc {
			for j, v := range acc[i] {
				f(v, Mem{Base: c, Disp: 64 * j})
				VMOVUPS(v, Mem{Base: c, Disp: 64 * j})
			}
			ADDQ(ldc, c)
		}
		end()
	}
	each(func(v VecVirtual, m Mem) { VFMADD213PS(m, x, v) })
	Label("overwrite")
	each(func(v VecVirtual, _ Mem) { VMULPS(x, v, v) })
}

func wideZero() VecVirtual {
	v := ZMM()
	VPXORQ(v, v, v)
	return v
}
