package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// quantised decodes blocks of 32, eight elements at a time. The
// arithmetic is that of kernels.DecodeRange: scale·q + offset, rounded once for
// the product (which is exact) and once for the sum.
func quantised() {
	fields()
	blocks("Q8_0", 34, func(src Register) func(dst eights) {
		scale := half(Mem{Base: src})
		return func(dst eights) {
			for i := range 4 {
				v := YMM()
				VPMOVSXBD(Mem{Base: src, Disp: 2 + 8*i}, v)
				VCVTDQ2PS(v, v)
				VMULPS(scale, v, v)
				VMOVUPS(v, dst(i))
			}
		}
	})
	blocks("Q4_0", 18, func(src Register) func(dst eights) {
		scale, offset := half(Mem{Base: src}), YMM()
		VMULPS(number(-8), scale, offset)
		return func(dst eights) { nibbles(Mem{Base: src, Disp: 2}, scale, offset, dst) }
	})
	blocks("Q4_1", 20, func(src Register) func(dst eights) {
		scale, offset := half(Mem{Base: src}), half(Mem{Base: src, Disp: 2})
		return func(dst eights) { nibbles(Mem{Base: src, Disp: 4}, scale, offset, dst) }
	})
	// MLX's: here the product is not exact, and is rounded before the sum.
	nibble := GLOBL("nibble_shifts", 24)
	for i := range 8 {
		DATA(4*i, U32(4*i))
	}
	affine := func(src Register, dst eights, load func(i int, v VecVirtual)) {
		scale, offset := YMM(), YMM()
		VBROADCASTSS(Mem{Base: src}, scale)
		VBROADCASTSS(Mem{Base: src, Disp: 4}, offset)
		for i := range 4 {
			v := YMM()
			load(i, v)
			VCVTDQ2PS(v, v)
			VMULPS(scale, v, v)
			VADDPS(offset, v, v)
			VMOVUPS(v, dst(i))
		}
	}
	blocks("Affine4", 24, func(src Register) func(dst eights) {
		return func(dst eights) {
			shifts, mask := YMM(), YMM()
			VMOVDQU(nibble, shifts)
			VMOVDQU(word(15), mask)
			affine(src, dst, func(i int, v VecVirtual) {
				VPBROADCASTD(Mem{Base: src, Disp: 8 + 4*i}, v)
				VPSRLVD(shifts, v, v)
				VPAND(mask, v, v)
			})
		}
	})
	blocks("Affine8", 40, func(src Register) func(dst eights) {
		return func(dst eights) {
			affine(src, dst, func(i int, v VecVirtual) { VPMOVZXBD(Mem{Base: src, Disp: 8 + 8*i}, v) })
		}
	})
}

// fields decodes a group of a K type; the arithmetic is that of kernels.Fields.
func fields() {
	declare("Fields", "func(dst *float32, low, high *byte, lowShift, highShift, highMask, bias int32, scale0, scale1, least float32)", "vectors.fields")
	dst, low, high := Load(Param("dst"), GP64()), Load(Param("low"), GP64()), Load(Param("high"), GP64())
	count := func(name string) VecVirtual {
		v := XMM()
		VMOVD(Load(Param(name), GP32()), v)
		return v
	}
	lowShift, highShift := count("lowShift"), count("highShift")
	all := func(name string) VecVirtual {
		v := YMM()
		VPBROADCASTD(count(name), v)
		return v
	}
	highMask, bias, lowMask := all("highMask"), all("bias"), YMM()
	VMOVDQU(word(15), lowMask)
	scales, least := []VecVirtual{isa.scalar("scale0"), isa.scalar("scale1")}, isa.scalar("least")
	for i := range 4 {
		q, h := YMM(), YMM()
		VPMOVZXBD(Mem{Base: low, Disp: 8 * i}, q)
		VPMOVZXBD(Mem{Base: high, Disp: 8 * i}, h)
		VPSRLD(lowShift, q, q)
		VPSRLD(highShift, h, h)
		VPAND(lowMask, q, q)
		VPAND(highMask, h, h)
		VPSLLD(Imm(4), h, h)
		VPOR(h, q, q)
		VPSUBD(bias, q, q)
		VCVTDQ2PS(q, q)
		VMULPS(scales[i/2], q, q)
		VSUBPS(least, q, q)
		VMOVUPS(q, Mem{Base: dst, Disp: 32 * i})
	}
	end()
}

// half returns a half-precision number in all elements.
func half(m Mem) VecVirtual {
	v := YMM()
	VPBROADCASTW(m, v.AsX())
	VCVTPH2PS(v.AsX(), v)
	return v
}

// nibbles decodes the low halves of sixteen bytes, then the high ones.
func nibbles(q Mem, scale, offset VecVirtual, dst eights) {
	mask := YMM()
	VMOVDQU(word(15), mask)
	for i := range 2 {
		low, high := YMM(), YMM()
		VPMOVZXBD(q.Offset(8*i), low)
		VPSRLD(Imm(4), low, high)
		VPAND(mask, low, low)
		for j, v := range []VecVirtual{low, high} {
			VCVTDQ2PS(v, v)
			VFMADD213PS(offset, scale, v)
			VMOVUPS(v, dst(2*j+i))
		}
	}
}

// eights are the places of a block's elements, eight at each.
type eights func(i int) Mem

// blocks decodes blocks of 32 elements, those that lie one after the other and those
// below each other; scales loads the scales of a block and returns what decodes it.
func blocks(name string, size int, scales func(src Register) func(dst eights)) {
	declare("Blocks"+name, "func(dst []float32, src *byte)", "vectors.blocks")
	dst, n, src := Load(Param("dst").Base(), GP64()), Load(Param("dst").Len(), GP64()), Load(Param("src"), GP64())
	SHRQ(Imm(5), n)
	JZ(LabelRef("done"))
	Label("loop")
	scales(src)(func(i int) Mem { return Mem{Base: dst, Disp: 32 * i} })
	ADDQ(Imm(128), dst)
	ADDQ(Imm(uint64(size)), src)
	DECQ(n)
	JNZ(LabelRef("loop"))
	Label("done")
	end()

	declare("BlocksAlong"+name, "func(dst *float32, panel int, src *byte, stride, k int)", "vectors.blocksAlong")
	left, right := Load(Param("dst"), GP64()), Load(Param("panel"), GP64())
	src = Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	LEAQ(Mem{Base: left, Index: right, Scale: 4}, right)
	Label("loop")
	PREFETCHT0(Mem{Base: src, Index: stride, Scale: 8})
	scales(src)(func(i int) Mem { return Mem{Base: []Register{left, right}[i/2], Disp: 32 * (i % 2)} })
	ADDQ(Imm(4*cols), left)
	ADDQ(Imm(4*cols), right)
	ADDQ(stride, src)
	DECQ(k)
	JNZ(LabelRef("loop"))
	end()
}
