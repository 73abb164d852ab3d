package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stored is a type that weights are stored in.
type stored struct {
	name string
	size int
	load func(m Mem, v VecVirtual) // widens eight elements
}

var types = []stored{
	{"F32", 4, func(m Mem, v VecVirtual) { VMOVUPS(m, v) }},
	{"F16", 2, func(m Mem, v VecVirtual) { VCVTPH2PS(m, v) }},
	{"BF16", 2, func(m Mem, v VecVirtual) {
		VPMOVZXWD(m, v)
		VPSLLD(Imm(16), v, v)
	}},
}

func packing() {
	for _, t := range types {
		across(t)
		along(t)
		widen(t)
		dot(t)
		axpy(t)
	}
	across6(false)
	across6(true)
}

// across transposes: eight depths of 16 rows at a time.
func across(t stored) {
	TEXT("avx2Across"+t.name, NOSPLIT|NOFRAME, "func(dst *float32, src *byte, stride, k int, scale float32)")
	Doc("avx2Across" + t.name + " is vectors.across.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	scale := scalar("scale")
	stride3 := GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	bases := []Register{src, GP64(), GP64(), GP64()}
	for i := 1; i < 4; i++ {
		LEAQ(Mem{Base: bases[i-1], Index: stride, Scale: 4}, bases[i])
	}
	row := func(i int) Mem {
		switch b := bases[i/4]; i % 4 {
		case 0:
			return Mem{Base: b}
		case 3:
			return Mem{Base: b, Index: stride3, Scale: 1}
		default:
			return Mem{Base: b, Index: stride, Scale: uint8(i % 4)}
		}
	}
	ahead := GP64() // the next panel's rows, which lie behind these
	MOVQ(stride, ahead)
	SHLQ(Imm(4), ahead)
	ADDQ(src, ahead)
	Label("loop")
	for i := range 2 * t.size {
		PREFETCHT1(Mem{Base: ahead, Disp: 64 * i})
	}
	ADDQ(U32(128*t.size), ahead)
	for half := range 2 {
		var r [8]VecVirtual
		for i := range r {
			r[i] = YMM()
			t.load(row(8*half+i), r[i])
		}
		for p, v := range transpose(r) {
			VMULPS(scale, v, v)
			VMOVUPS(v, Mem{Base: dst, Disp: 64*p + 32*half})
		}
	}
	for _, b := range bases {
		ADDQ(Imm(uint64(8*t.size)), b)
	}
	ADDQ(U32(512), dst)
	SUBQ(Imm(8), k)
	JNZ(LabelRef("loop"))
	end()
}

// transpose turns eight rows of eight into columns.
func transpose(r [8]VecVirtual) [8]VecVirtual {
	var t, u [8]VecVirtual
	for i := 0; i < 8; i += 2 {
		t[i], t[i+1] = YMM(), YMM()
		VUNPCKLPS(r[i+1], r[i], t[i])
		VUNPCKHPS(r[i+1], r[i], t[i+1])
	}
	for i := 0; i < 8; i += 4 {
		for j := range 4 {
			u[i+j] = YMM()
		}
		VUNPCKLPD(t[i+2], t[i], u[i])
		VUNPCKHPD(t[i+2], t[i], u[i+1])
		VUNPCKLPD(t[i+3], t[i+1], u[i+2])
		VUNPCKHPD(t[i+3], t[i+1], u[i+3])
	}
	var out [8]VecVirtual
	for i := range 4 {
		out[i], out[i+4] = YMM(), YMM()
		VPERM2F128(Imm(0x20), u[i+4], u[i], out[i])
		VPERM2F128(Imm(0x31), u[i+4], u[i], out[i+4])
	}
	return out
}

// across6 transposes six rows: four by unpacking pairs of pairs, two by pairs.
func across6(scaled bool) {
	var scales Register
	if scaled {
		TEXT("avx2Across6Scaled", NOSPLIT|NOFRAME, "func(dst *float32, src *byte, stride, k int, scales *float32)")
		Doc("avx2Across6Scaled is strassenVectors.across6.")
		scales = Load(Param("scales"), GP64())
	} else {
		TEXT("avx2Across6", NOSPLIT|NOFRAME, "func(dst *float32, src *byte, stride, k int)")
		Doc("avx2Across6 is vectors.across6.")
	}
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	lower := GP64()
	LEAQ(Mem{Base: src, Index: stride, Scale: 2}, lower)
	ADDQ(stride, lower)
	Label("loop")
	var r [6]VecVirtual
	for i := range r {
		r[i] = YMM()
		m := Mem{Base: src}
		if i >= 3 {
			m.Base = lower
		}
		if i%3 > 0 {
			m.Index, m.Scale = stride, uint8(i%3)
		}
		if scaled {
			VBROADCASTSS(Mem{Base: scales, Disp: 4 * i}, r[i])
			VMULPS(m, r[i], r[i])
		} else {
			VMOVUPS(m, r[i])
		}
	}
	var t [6]VecVirtual
	for i := 0; i < 6; i += 2 {
		t[i], t[i+1] = YMM(), YMM()
		VUNPCKLPS(r[i+1], r[i], t[i])
		VUNPCKHPS(r[i+1], r[i], t[i+1])
	}
	for half := range 2 {
		lo, hi := YMM(), YMM() // depths 2·half, 2·half+1 and those plus 4
		VUNPCKLPD(t[2+half], t[half], lo)
		VUNPCKHPD(t[2+half], t[half], hi)
		for j, v := range []VecVirtual{lo, hi} {
			p := 2*half + j
			VMOVUPS(v.AsX(), Mem{Base: dst, Disp: 24 * p})
			VEXTRACTF128(Imm(1), v, Mem{Base: dst, Disp: 24 * (p + 4)})
		}
		upper, pairs := XMM(), t[4+half]
		VEXTRACTF128(Imm(1), pairs, upper)
		for j, x := range []Register{pairs.AsX(), upper} {
			p := 2*half + 4*j
			VMOVLPS(x, Mem{Base: dst, Disp: 24*p + 16})
			VMOVHPS(x, Mem{Base: dst, Disp: 24*(p+1) + 16})
		}
	}
	ADDQ(Imm(32), src)
	ADDQ(Imm(32), lower)
	ADDQ(U32(192), dst)
	SUBQ(Imm(8), k)
	JNZ(LabelRef("loop"))
	end()
}

func along(t stored) {
	TEXT("avx2Along"+t.name, NOSPLIT|NOFRAME, "func(dst *float32, src *byte, stride, k int, scale float32)")
	Doc("avx2Along" + t.name + " is vectors.along.")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	scale, lo, hi := scalar("scale"), YMM(), YMM()
	Label("loop")
	PREFETCHT1(Mem{Base: src, Disp: cols * t.size}) // for the next panel
	t.load(Mem{Base: src}, lo)
	t.load(Mem{Base: src, Disp: 8 * t.size}, hi)
	VMULPS(scale, lo, lo)
	VMULPS(scale, hi, hi)
	VMOVUPS(lo, Mem{Base: dst})
	VMOVUPS(hi, Mem{Base: dst, Disp: 32})
	ADDQ(stride, src)
	ADDQ(Imm(64), dst)
	DECQ(k)
	JNZ(LabelRef("loop"))
	end()
}

// The following take whole vectors only; the rest is done in Go, since there
// is no masked load of 16-bit words.

func widen(t stored) {
	if t.size == 4 {
		return
	}
	s, n := kernel("avx2Widen"+t.name, "func(dst []float32, src *byte)", "avx2Widen"+t.name+" is vectors.widen for a multiple of 8.", "dst")
	src := Load(Param("src"), GP64())
	v := YMM()
	wholeVectors(n, s["dst"], src, t.size, 1, func(d, m Mem, _ int) {
		t.load(m, v)
		VMOVUPS(v, d)
	})
	end()
}

func dot(t stored) {
	s, n := kernel("avx2Dot"+t.name, "func(x []float32, w *byte) float32", "avx2Dot"+t.name+" is vectors.dot for a multiple of 8.", "x")
	w := Load(Param("w"), GP64())
	acc := []VecVirtual{zeroed(), zeroed(), zeroed(), zeroed()}
	v := []VecVirtual{YMM(), YMM(), YMM(), YMM()}
	wholeVectors(n, s["x"], w, t.size, 4, func(x, m Mem, u int) {
		t.load(m, v[u])
		VFMADD231PS(x, v[u], acc[u])
	})
	Store(sumInto(acc), ReturnIndex(0))
	end()
}

func axpy(t stored) {
	s, n := kernel("avx2Axpy"+t.name, "func(y []float32, w *byte, a float32)", "avx2Axpy"+t.name+" is vectors.axpy for a multiple of 8.", "y")
	w := Load(Param("w"), GP64())
	a := scalar("a")
	v := YMM()
	wholeVectors(n, s["y"], w, t.size, 1, func(y, m Mem, _ int) {
		t.load(m, v)
		VFMADD213PS(y, a, v)
		VMOVUPS(v, y)
	})
	end()
}

// wholeVectors goes over n, a multiple of 8, elements of float32 at x and of
// size bytes at w.
func wholeVectors(n, x, w Register, size, unroll int, body func(x, w Mem, u int)) {
	if unroll > 1 {
		Label("unrolled")
		CMPQ(n, U32(uint32(8*unroll)))
		JL(LabelRef("single"))
		for u := range unroll {
			body(Mem{Base: x, Disp: 32 * u}, Mem{Base: w, Disp: 8 * size * u}, u)
		}
		ADDQ(U32(uint32(32*unroll)), x)
		ADDQ(U32(uint32(8*size*unroll)), w)
		SUBQ(U32(uint32(8*unroll)), n)
		JMP(LabelRef("unrolled"))
	}
	Label("single")
	CMPQ(n, Imm(8))
	JL(LabelRef("done"))
	body(Mem{Base: x}, Mem{Base: w}, 0)
	ADDQ(Imm(32), x)
	ADDQ(U32(uint32(8*size)), w)
	SUBQ(Imm(8), n)
	JMP(LabelRef("single"))
	Label("done")
}
