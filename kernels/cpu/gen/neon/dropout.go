package main

// dropout is the counter-based generator of package random, Philox 4x32-10,
// and the mask that comes of it. A vector has one word of four positions; eight
// positions, in two chains, make a step.
func (a *assembly) dropout() {
	f, s, n := a.kernel("neonDropout", "func(out, x []float32, at uint64, key0, key1, stream, purpose, least uint32, factor float32)",
		"is vectors.dropout from position at on, for a multiple of 32 elements.", "out", "x")
	key0, key1, stream, purpose := f.scalar("key0"), f.scalar("key1"), f.scalar("stream"), f.scalar("purpose")
	least, factor := f.scalar("least"), f.scalar("factor")
	next := f.positions()
	f.label("loop")
	low0, high0 := next()
	low1, high1 := next()
	p := &philox{low: lanes{low0, low1}, high: lanes{high0, high1}, stream: stream.copied(2), purpose: purpose.copied(2)}
	k0, k1 := key0.copied(1), key1.copied(1)
	for round := range 10 {
		if round > 0 {
			k0.bump(f.word(0x9E3779B9))
			k1.bump(f.word(0xBB67AE85))
		}
		p.round(k0, k1)
	}
	for i := range 2 {
		words := lanes{p.low[i], p.high[i], p.stream[i], p.purpose[i]}.transposed()
		kept := f32.loadAt(f, s["x"].at, 4).times(factor)
		for j, v := range words.with(cmhs, least) {
			f.do("VAND %v.B16, %v.B16, %v.B16", v, kept[j], v)
			f.do("FMOVQ.P %s, 16(%s)", scalar{v}, s["out"].at)
		}
		f.do("ADD $64, %s", s["x"].at)
	}
	f.do("SUBS $32, %s", n)
	f.do("BNE loop")
	f.end()
}

// positions returns what gives the lower and upper words of the next four
// positions, from parameter at on.
func (f *function) positions() func() (low, high *vec) {
	pairs, four := lanes{f.pin(), f.pin()}, f.pin()
	at := f.load("at")
	for i := range 4 {
		f.do("VMOV %s, %v.D[%d]", at, pairs[i/2], i%2)
		f.do("ADD $1, %s", at)
	}
	f.do("MOVD $4, %s", at)
	f.do("VDUP %s, %v.D2", at, four)
	return func() (low, high *vec) {
		low, high = sides("VUZP", pairs[0], pairs[1])
		for _, v := range pairs {
			f.do("VADD %v.D2, %v.D2, %v.D2", four, v, v)
		}
		return low, high
	}
}

// bump adds whole numbers.
func (x lanes) bump(y lanes) {
	for i, v := range x {
		v.f.do("VADD %v.S4, %v.S4, %v.S4", y.at(i), v, v)
	}
}

// philox is the counter, and in the end the four words of each position.
type philox struct{ low, high, stream, purpose lanes }

// round is one round: the upper halves of products meet the other words and the key.
func (p *philox) round(k0, k1 lanes) {
	f := k0[0].f
	for i := range p.low {
		lo0, hi0 := p.low[i].product(f.word(0xD2511F53)[0])
		lo1, hi1 := p.stream[i].product(f.word(0xCD9E8D57)[0])
		for _, x := range []struct{ to, a, b *vec }{{p.high[i], hi1, k0[0]}, {p.purpose[i], hi0, k1[0]}} {
			f.do("VEOR %v.B16, %v.B16, %v.B16", x.a, x.to, x.to)
			f.do("VEOR %v.B16, %v.B16, %v.B16", x.b, x.to, x.to)
		}
		p.low[i], p.high[i], p.stream[i], p.purpose[i] = p.high[i], lo1, p.purpose[i], lo0
	}
}

// product returns the lower and upper words of the products of x and y.
func (x *vec) product(y *vec) (lo, hi *vec) {
	a, b := lanes{x}.with(umull, lanes{y}), lanes{x}.with(umull2, lanes{y})
	return sides("VUZP", a[0], b[0])
}
