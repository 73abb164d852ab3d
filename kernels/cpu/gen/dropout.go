package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// dropout is the counter-based generator of package random, Philox 4x32-10,
// for eight positions at a time, and the mask that comes of it. Words lie in
// the low halves of 64-bit lanes, four positions to a vector: that is how the
// multiplication wants them, and the high halves do not matter.
func dropout() {
	s, n := kernel("Dropout", "func(out, x []float32, at uint64, key0, key1, stream, purpose, least uint32, factor float32)",
		"vectors.dropout from position at on, for a multiple of 32 elements", "out", "x")
	factor := isa.scalar("factor")
	least := isa.scalar("least")
	i := GP64()
	XORQ(i, i)
	position := YMM()
	VPBROADCASTQ(place("at"), position)
	lanes := GLOBL("lanes", 24)
	for l := range 4 {
		DATA(8*l, U64(uint64(l)))
	}
	VPADDQ(lanes, position, position)

	Label("loop")
	chains := [2]*philox{newPhilox(position, 0), newPhilox(position, 4)}
	k0, k1 := isa.scalar("key0"), isa.scalar("key1")
	for round := range 10 {
		if round > 0 {
			VPADDD(word(0x9E3779B9), k0, k0)
			VPADDD(word(0xBB67AE85), k1, k1)
		}
		for _, c := range chains {
			c.round(k0, k1)
		}
	}
	for j, c := range chains {
		for k, words := range c.words() {
			m := func(name string) Mem {
				return Mem{Base: s[name], Index: i, Scale: 1, Disp: 64*j + 32*k}
			}
			keep, v := YMM(), YMM()
			VPMAXUD(least, words, keep)
			VPCMPEQD(words, keep, keep)
			VMULPS(m("x"), factor, v)
			VANDPS(keep, v, v)
			VMOVUPS(v, m("out"))
		}
	}
	eight := GLOBL("eight", 24)
	for l := range 4 {
		DATA(8*l, U64(8))
	}
	VPADDQ(eight, position, position)
	ADDQ(U32(128), i)
	SUBQ(Imm(32), n)
	JNZ(LabelRef("loop"))
	end()
}

type philox struct{ c [4]VecVirtual }

// newPhilox counts from position on: the low and high word of it, the stream
// and the purpose.
func newPhilox(position Register, offset uint64) *philox {
	p := &philox{[4]VecVirtual{YMM(), YMM(), isa.scalar("stream"), isa.scalar("purpose")}}
	if offset == 0 {
		VMOVDQA(position, p.c[0])
	} else {
		four := GLOBL("four", 24)
		for l := range 4 {
			DATA(8*l, U64(offset))
		}
		VPADDQ(four, position, p.c[0])
	}
	VPSRLQ(Imm(32), p.c[0], p.c[1])
	return p
}

// round is one round: products of the even words; their high halves meet the
// odd words and the key.
func (p *philox) round(k0, k1 VecVirtual) {
	a, b := p.c[0], p.c[2]
	VPMULUDQ(word(0xD2511F53), a, a)
	VPMULUDQ(word(0xCD9E8D57), b, b)
	c0, c2 := p.c[1], p.c[3]
	VPXOR(k0, c0, c0)
	VPXOR(k1, c2, c2)
	hi := YMM()
	VPSRLQ(Imm(32), b, hi)
	VPXOR(hi, c0, c0)
	hi = YMM()
	VPSRLQ(Imm(32), a, hi)
	VPXOR(hi, c2, c2)
	p.c = [4]VecVirtual{c0, b, c2, a}
}

// words returns the sixteen words in the order of positions.
func (p *philox) words() [2]VecVirtual {
	for _, i := range []int{1, 3} {
		VPSLLQ(Imm(32), p.c[i], p.c[i])
		VPBLENDD(Imm(0xAA), p.c[i], p.c[i-1], p.c[i-1])
	}
	x, y := p.c[0], p.c[2]
	even, odd := YMM(), YMM()
	VPUNPCKLQDQ(y, x, even)
	VPUNPCKHQDQ(y, x, odd)
	first, second := YMM(), YMM()
	VPERM2I128(Imm(0x20), odd, even, first)
	VPERM2I128(Imm(0x31), odd, even, second)
	return [2]VecVirtual{first, second}
}
