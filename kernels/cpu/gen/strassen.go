package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// strassen are micro-kernels that add to one place or two, and the loops around them.
func strassen() {
	blockTiles("AddTo", "func(panels, k int, a, b, c, ahead, far *float32, ldfar, rows int)", false)
	blockTiles("AddToBoth", "func(panels, k int, a, b, c, d *float32, sign float32, ahead, far *float32, ldfar, rows int)", true)

	s, n := kernel("Sums", "func(x, y, u, v, xy, ux, vy []float32)", "strassenVectors.sums", "x", "y", "u", "v", "xy", "ux", "vy")
	each(s, n, 2, func(s *vector) {
		x, y, u, v, sum := s.load("x"), s.load("y"), s.load("u"), s.load("v"), isa.new()
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

	stream()

	declare("Unload", "func(c *float32, ldc int, block *float32, rows int, factors *float32, add bool)", "strassenVectors.unload")
	c, ldc, block := Load(Param("c"), GP64()), Load(Param("ldc"), GP64()), Load(Param("block"), GP64())
	rows, factors := Load(Param("rows"), GP64()), Load(Param("factors"), GP64())
	add := Load(Param("add"), GP8())
	SHLQ(Imm(2), ldc)
	factor, zero := isa.new(), isa.zeroed()
	each := func(label string, f func(v VecVirtual, c Mem)) {
		Label(label)
		VBROADCASTSS(Mem{Base: factors}, factor)
		for at := 0; at < blockLine; at += isa.bytes() {
			v := isa.new()
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
}

// stream writes sums with stores that bypass the caches.
func stream() {
	declare("Stream", "func(k int, x, y, u, v, sums *float32, apart int, ahead *byte, step, advance, turn int)", "strassenVectors.stream")
	k := Load(Param("k"), GP64())
	var from [4]Mem
	for i, name := range []string{"x", "y", "u", "v"} {
		from[i] = Mem{Base: Load(Param(name), GP64())}
	}
	sums, apart := Load(Param("sums"), GP64()), Load(Param("apart"), GP64())
	SHLQ(Imm(2), apart)
	apart3, later := GP64(), GP64()
	LEAQ(Mem{Base: apart, Index: apart, Scale: 2}, apart3)
	LEAQ(Mem{Base: sums, Index: apart, Scale: 4}, later)
	places := []Mem{{Base: sums}, {Base: sums, Index: apart, Scale: 1}, {Base: sums, Index: apart, Scale: 2}, {Base: sums, Index: apart3, Scale: 1},
		{Base: later}, {Base: later, Index: apart, Scale: 1}, {Base: later, Index: apart, Scale: 2}}
	ahead, step, step3, untilTurn := Load(Param("ahead"), GP64()), Load(Param("step"), GP64()), GP64(), GP64()
	LEAQ(Mem{Base: step, Index: step, Scale: 2}, step3)
	MOVQ(I32(cols), untilTurn)
	x, y, u, v := isa.new(), isa.new(), isa.new(), isa.new()
	sum := func(f func(ops ...Op), a, b VecVirtual) VecVirtual {
		to := isa.new()
		f(b, a, to)
		return to
	}
	Label("loop")
	for _, m := range []Mem{{Base: ahead}, {Base: ahead, Index: step, Scale: 1}, {Base: ahead, Index: step, Scale: 2}, {Base: ahead, Index: step3, Scale: 1}} {
		PREFETCHT0(m)
	}
	ADDQ(place("advance"), ahead)
	for at := 0; at < 4*cols; at += isa.bytes() {
		for i, r := range []VecVirtual{x, y, u, v} {
			VMOVUPS(from[i].Offset(at), r)
		}
		for i, r := range []VecVirtual{sum(VADDPS, x, y), x, sum(VSUBPS, u, y), sum(VSUBPS, v, x), y, sum(VADDPS, u, x), sum(VADDPS, v, y)} {
			VMOVNTPS(r, places[i].Offset(at))
		}
	}
	for _, r := range []Register{sums, later, from[0].Base, from[1].Base, from[2].Base, from[3].Base} {
		ADDQ(Imm(4*cols), r)
	}
	DECQ(untilTurn)
	JNZ(LabelRef("straight"))
	MOVQ(I32(cols), untilTurn)
	ADDQ(place("turn"), ahead)
	Label("straight")
	DECQ(k)
	JNZ(LabelRef("loop"))
	SFENCE() // such stores are not in order with those that tell other threads of them
	end()
}

// blockTiles goes down the panels of a left factor, each of which makes a tile of
// every other six rows of a block: 6×16, or in wide vectors 6×32.
func blockTiles(name, signature string, both bool) {
	declare(name, signature, "strassenVectors.a"+name[1:])
	count, a, c, ahead := Load(Param("panels"), GP64()), Load(Param("a"), GP64()), Load(Param("c"), GP64()), Load(Param("ahead"), GP64())
	var d Register
	if both {
		d = Load(Param("d"), GP64())
	}
	k, lines := GP64(), 1
	if isa.wide() {
		lines = 4
	}
	p := newPanels(a, GP64(), ahead, lines)
	far, ldfar, row := Load(Param("far"), GP64()), Load(Param("ldfar"), GP64()), GP64()
	SHLQ(Imm(2), ldfar)
	Label("panel")
	load("rows", row)
	TESTQ(row, row)
	JZ(LabelRef("fetched"))
	Label("fetch")
	for at := 0; at < blockLine; at += 64 {
		PREFETCHT1(Mem{Base: far, Disp: at})
	}
	ADDQ(ldfar, far)
	DECQ(row)
	JNZ(LabelRef("fetch"))
	Label("fetched")
	load("k", k)
	load("b", p.b[0])
	if isa.wide() {
		MOVQ(k, p.b[1])
		SHLQ(Imm(6), p.b[1])
		ADDQ(p.b[0], p.b[1])
	}
	t := newTile(rows, 2)
	depths(k, packedUnroll, func(n int) { p.add(t, n) })
	sign := t.a[0]
	if both {
		broadcast("sign", sign)
	}
	t.addTo(sign, c, d)
	ADDQ(U32(2*rows*blockLine), c)
	if both {
		ADDQ(U32(2*rows*blockLine), d)
	}
	DECQ(count)
	JNZ(LabelRef("panel"))
	end()
}

func load(name string, r Register) { MOVQ(place(name), r) }
