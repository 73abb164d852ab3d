package main

// quantised decodes blocks of 32 of ggml's types. The arithmetic is that of
// kernels.DecodeRange: scale·q + offset, rounded once for the product (which is
// exact) and once for the sum.
func (a *assembly) quantised() {
	a.blocks("Q8_0", func(f *function, src reg) lanes {
		scale := f.half(src)
		return append(f.next16(src).numbers(signed), f.next16(src).numbers(signed)...).times(scale)
	})
	a.blocks("Q4_0", func(f *function, src reg) lanes {
		scale := f.half(src)
		return f.nibbles(src, scale, scale.times(f.number(-8)))
	})
	a.blocks("Q4_1", func(f *function, src reg) lanes {
		scale, offset := f.half(src), f.half(src)
		return f.nibbles(src, scale, offset)
	})
}

// blocks is a loop over blocks; decode returns the eight vectors of the one that
// src points to, and moves it on.
func (a *assembly) blocks(name string, decode func(f *function, src reg) lanes) {
	f := a.function("neonBlocks"+name, "func(dst []float32, src *byte)", "is vectors.blocks.")
	dst, n, src := f.load("dst_base"), f.load("dst_len"), f.load("src")
	f.label("loop")
	f.do("CMP $32, %s", n)
	f.do("BLT done")
	for _, v := range decode(f, src) {
		f.do("FMOVQ.P %s, 16(%s)", scalar{v}, dst)
	}
	f.do("SUB $32, %s", n)
	f.do("B loop")
	f.label("done")
	f.end()
}

// half returns the next half-precision number in all elements.
func (f *function) half(src reg) lanes {
	v := f.local()
	f.do("VLD1R.P 2(%s), [%v.H4]", src, v)
	return lanes{v}.each(fcvtl)
}

// next16 returns the next sixteen bytes.
func (f *function) next16(src reg) lanes {
	v := f.local()
	f.do("FMOVQ.P 16(%s), %s", src, scalar{v})
	return lanes{v}
}

// nibbles decodes the low halves of sixteen bytes, then the high ones.
func (f *function) nibbles(src reg, scale, offset lanes) (out lanes) {
	q := f.next16(src)
	low, high := f.word(0x0f0f0f0f).copied(1), f.local()
	f.do("VUSHR $4, %v.B16, %v.B16", q[0], high)
	f.do("VAND %v.B16, %v.B16, %v.B16", q[0], low[0], low[0])
	for _, v := range append(low.numbers(unsigned), lanes{high}.numbers(unsigned)...) {
		out = append(out, offset.copied(1).addProduct(lanes{v}, scale)...)
	}
	return out
}

// widening is how bytes become words: the lower and upper half of bytes, then
// of halves.
type widening [2][2]instruction

var (
	signed   = widening{{sxtl8, sxtl28}, {sxtl16, sxtl216}}
	unsigned = widening{{uxtl8, uxtl28}, {uxtl16, uxtl216}}
)

// numbers returns sixteen bytes in one vector as float32, in four.
func (x lanes) numbers(w widening) lanes {
	for _, halves := range w {
		var wider lanes
		for _, v := range x {
			wider = append(wider, lanes{v}.each(halves[0])[0], lanes{v}.each(halves[1])[0])
		}
		x = wider
	}
	return x.each(scvtf)
}
