package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// strassen are micro-kernels that add to one place or two, and the loops around them.
func strassen() {
	blockTiles("avx2AddTo", false, false)
	blockTiles("avx2AddToBoth", false, true)
	blockTiles("avx512AddTo", true, false)
	blockTiles("avx512AddToBoth", true, true)

	s, n := kernel("avx2Sums", "func(x, y, u, v, xy, ux, vy []float32)", "avx2Sums is strassenVectors.sums.", "x", "y", "u", "v", "xy", "ux", "vy")
	each(s, n, 2, func(s *vector) {
		x, y, u, v, sum := s.load("x"), s.load("y"), s.load("u"), s.load("v"), YMM()
		VADDPS(y, x, sum)
		s.store(sum, "xy")
		VADDPS(x, u, sum)
		s.store(sum, "ux")
		VADDPS(y, v, sum)
		s.store(sum, "vy")
		VSUBPS(y, u, u)
		s.store(u, "u")
		VSUBPS(x, v, v)
		s.store(v, "v")
	})
	end()

	TEXT("avx2Unload", NOSPLIT|NOFRAME, "func(c *float32, ldc int, block *float32, rows int, factors *float32, add bool)")
	Doc("avx2Unload is strassenVectors.unload.")
	c, ldc, block := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("block"), GP64())
	rows, factors := Load(Param("rows"), GP64()), Load(Param("factors"), GP64())
	add := Load(Param("add"), GP8())
	SHLQ(Imm(2), ldc)
	factor, zero := YMM(), zeroed()
	each := func(label string, f func(v VecVirtual, c Mem)) {
		Label(label)
		VBROADCASTSS(Mem{Base: factors}, factor)
		for at := 0; at < blockLine; at += 32 {
			v := YMM()
			VMOVUPS(Mem{Base: block, Disp: at}, v)
			VMOVUPS(zero, Mem{Base: block, Disp: at})
			f(v, Mem{Base: c, Disp: at})
			VMOVUPS(v, Mem{Base: c, Disp: at})
		}
		ADDQ(Imm(4), factors)
		ADDQ(U32(blockLine), block)
		ADDQ(ldc, c)
		DECQ(rows)
		JNZ(LabelRef(label))
		end()
	}
	TESTB(add, add)
	JZ(LabelRef("overwrite"))
	each("adding", func(v VecVirtual, c Mem) { VFMADD213PS(c, factor, v) })
	each("overwrite", func(v VecVirtual, _ Mem) { VMULPS(factor, v, v) })

	TEXT("avx2Fetch", NOSPLIT|NOFRAME, "func(c *float32, ldc, rows int)")
	Doc("avx2Fetch is strassenVectors.fetch.")
	c, ldc, rows = Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("rows"), GP64())
	SHLQ(Imm(2), ldc)
	Label("loop")
	for at := 0; at < blockLine; at += 64 {
		PREFETCHT1(Mem{Base: c, Disp: at})
	}
	ADDQ(ldc, c)
	DECQ(rows)
	JNZ(LabelRef("loop"))
	RET()
}

// blockTiles goes down the panels of a left factor, each of which makes a tile of
// every other six rows of a block: 6×16, or in wide vectors 6×32.
func blockTiles(name string, wide, both bool) {
	signature, doc := "func(panels, k int, a, b, c, ahead *float32)", name+" is strassenVectors.addTo."
	if both {
		signature, doc = "func(panels, k int, a, b, c, d *float32, sign float32, ahead *float32)", name+" is strassenVectors.addToBoth."
	}
	TEXT(name, NOSPLIT|NOFRAME, signature)
	Doc(doc)
	panels, a, c, ahead := Load(Param("panels"), GP64()), Load(Param("a"), GP64()), Load(Param("c"), GP64()), Load(Param("ahead"), GP64())
	var d Register
	if both {
		d = Load(Param("d"), GP64())
	}
	k, b := GP64(), GP64()
	var step func(n int)
	var acc sums
	var sum, sign VecVirtual
	if wide {
		b1, t := GP64(), newWide()
		acc, sum, sign = t.acc, t.x, t.v0
		step = func(n int) { t.packed(n, 4, a, b, b1, ahead) }
		Label("panel")
		load("k", k)
		load("b", b)
		MOVQ(k, b1)
		SHLQ(Imm(6), b1)
		ADDQ(b, b1)
	} else {
		t := newTile()
		acc, sum, sign = t.acc, t.a0, t.a1
		step = func(n int) { t.packed(n, a, b, ahead) }
		Label("panel")
		load("k", k)
		load("b", b)
	}
	for i := range acc {
		for _, v := range acc[i] {
			if wide {
				VPXORQ(v, v, v)
			} else {
				VXORPS(v, v, v)
			}
		}
	}
	depths(k, packedUnroll, step)
	if both {
		broadcast("sign", sign)
	}
	acc.addTo(sum, sign, c, d)
	ADDQ(U32(2*rows*blockLine), c)
	if both {
		ADDQ(U32(2*rows*blockLine), d)
	}
	DECQ(panels)
	JNZ(LabelRef("panel"))
	end()
}

func load(name string, r Register) {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	MOVQ(a.Addr, r)
}
