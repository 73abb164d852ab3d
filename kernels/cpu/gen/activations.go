package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// power has the constants of 2^r: AVX-512 has registers for all of them, AVX2 reads some
// from memory, as many as the load ports take beside the arithmetic.
type power struct {
	one         VecVirtual
	polynomials []Op // coefficients, the highest first
}

// newPower puts so many coefficients into registers; wide vectors have them for all.
func newPower(kept int) *power {
	p := &power{isa.set(number(1)), numbers(1.326472731307149e-3, 9.671512991189957e-3, 5.550733581185341e-2, 0.24022242426872253, 0.6931470036506653)}
	for i, m := range p.polynomials {
		if isa.wide() || i < kept {
			p.polynomials[i] = isa.set(m.(Mem))
		}
	}
	return p
}

// of returns 2^n·2^r for |r| ≤ ½: shifted is magic + n, whose low bits are the exponent of
// 2^n, and is spent. To add n to the exponent of 2^r instead would make a number of a NaN.
// The polynomial is that whose largest relative error is least.
func (p *power) of(r, shifted vectors) vectors {
	y := r.set(p.polynomials[0])
	y.horner(r, p.polynomials[1:]...)
	y.horner(r, p.one)
	y.each(func(i int, v VecVirtual) {
		VPSLLD(Imm(23), shifted[i], shifted[i])
		VMULPS(shifted[i], v, v)
	})
	return y
}

// exponent has the constants of exp.
type exponent struct {
	*power
	least VecVirtual
	magic Op
}

func newExponent() *exponent {
	e := &exponent{least: isa.set(number(-126)), power: newPower(0), magic: number(magic)}
	if isa.wide() {
		e.magic = isa.set(e.magic.(Mem))
	}
	return e
}

const (
	log2e = 1.44269504088896341 // turns exponents of e into those of 2
	magic = 3<<22 + 127         // a number this large is a whole one; the bias of exponents is in its low bits
)

// of returns 2^x for x ≤ 127.49, within 2e-7 relative, and 2^-126 for all x
// below -126; a NaN stays one. x is spent.
func (e *exponent) of(x vectors) vectors {
	x.each(func(_ int, v VecVirtual) { VMAXPS(v, e.least, v) }) // the second operand, should one be NaN
	shifted := x.news()
	shifted.each(func(i int, v VecVirtual) { VADDPS(e.magic, x[i], v) })
	n := x.news()
	n.each(func(i int, v VecVirtual) { VSUBPS(e.magic, shifted[i], v) })
	x.each(func(i int, v VecVirtual) { VSUBPS(n[i], v, v) })
	return e.power.of(x, shifted)
}

// atMost keeps x where 2^x can be computed.
func (x vectors) atMost() {
	most := isa.set(number(127.49))
	x.each(func(_ int, v VecVirtual) { VMINPS(v, most, v) })
}

// sigmoid returns 1/(1 + e^-x) for x, which is spent.
func (e *exponent) sigmoid(x vectors) vectors {
	x.mul(number(-log2e))
	x.atMost()
	d := e.of(x)
	d.add(e.one)
	d.each(func(_ int, v VecVirtual) { VDIVPS(v, e.one, v) })
	return d
}

func activations() {
	exp()
	expAndMax()
	capped()
	gate("SiLU", 3, 2, silu, siluSlope)
	gate("GELUTanh", 3, 2, geluTanh, geluTanhSlope)
	gate("GELU", 2, 2, gelu, geluSlope)
}

func exp() {
	s, n := kernel("Exp", "func(out, x []float32, scale, top float32) float32", "vectors.exp", "out", "x")
	scale, top := isa.scalar("scale"), isa.scalar("top")
	VMULPS(number(log2e), scale, scale)
	e, sum := newExponent(), isa.zeroed()
	abreast(s, n, 3, func(s []*vector) {
		x := loads(s, "x")
		x.each(func(_ int, v VecVirtual) { VSUBPS(top, v, v) })
		x.mul(scale)
		storeAndSum(s, e.of(x), "out", sum)
	})
	Store(sumInto([]VecVirtual{sum}), ReturnIndex(0))
	end()
}

// storeAndSum adds the elements that exist to a sum, too; x is spent.
func storeAndSum(s []*vector, x vectors, name string, sum VecVirtual) {
	stores(s, x, name)
	x.each(func(i int, v VecVirtual) {
		s[i].only(v)
		VADDPS(v, sum, sum)
	})
}

// expAndMax takes the power of two next to e^(scale·top) out of all elements. Its exponent
// is a whole number, which the rounding of scale·x to n takes off in passing; for top itself
// there would be a difference to take, and the adders have no time left.
func expAndMax() {
	s, n := kernel("ExpMax", "func(out, x, next, last []float32, scale, top, factor float32) (sum, max float32)", "vectors.expMax", "out", "x", "next", "last")
	scale, k := isa.scalar("scale"), isa.scalar("top")
	VMULPS(number(log2e), scale, scale)
	VMULPS(scale, k, k)
	shift := isa.set(number(magic)) // k lower, k rounded to a whole number
	VADDPS(shift, k, k)
	VSUBPS(shift, k, k)
	VSUBPS(k, shift, shift)
	least := isa.set(number(-125))
	VADDPS(k, least, least)
	VDIVPS(scale, least, least)
	factor, p, sum, m := isa.scalar("factor"), newPower(1), isa.zeroed(), newLargest(1)
	abreast(s, n, 2, func(s []*vector) {
		for _, v := range s {
			one := *v
			one.step = 0
			m.see(&one, "next")
			v.askAt("out", 4096)
			v.askAt("next", 6144)
		}
		for _, v := range s {
			last := v.load("last")
			VMULPS(factor, last, last)
			v.store(last, "last")
		}
		x := loads(s, "x")
		x.each(func(_ int, v VecVirtual) { VMAXPS(v, least, v) })
		shifted, n := x.set(shift), x.news()
		shifted.each(func(i int, v VecVirtual) { VFMADD231PS(x[i], scale, v) })
		n.each(func(i int, v VecVirtual) { VSUBPS(shift, shifted[i], v) })
		x.each(func(i int, v VecVirtual) { VFMSUB213PS(n[i], scale, v) })
		storeAndSum(s, p.of(x, shifted), "out", sum)
	})
	Store(sumInto([]VecVirtual{sum}), ReturnIndex(0))
	Store(m.total(), ReturnIndex(1))
	end()
}

// capped is c·tanh(x/c): near 0 the polynomial of Cephes' tanhf, elsewhere
// 1 - 2/(e^2|u| + 1).
func capped() {
	s, n := kernel("Cap", "func(x []float32, c float32)", "vectors.cap", "x")
	c := isa.scalar("c")
	e := newExponent()
	each(s, n, 1, func(s *vector) {
		u := s.load("x")
		VDIVPS(c, u, u)
		abs, sign := isa.new(), isa.new()
		VANDPS(word(0x7fffffff), u, abs)
		VANDPS(word(0x80000000), u, sign)
		u2, p := isa.new(), isa.set(number(-5.70498872745e-3))
		VMULPS(u, u, u2)
		vectors{p}.horner(vectors{u2}, numbers(2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)...)
		VMULPS(u2, p, p)
		VFMADD213PS(u, u, p) // u + u·u²·P
		near := isa.less(abs, number(0.625))
		VMULPS(number(2*log2e), abs, abs)
		vectors{abs}.atMost()
		far, two := e.of(vectors{abs})[0], isa.set(number(2))
		VADDPS(e.one, far, far)
		VDIVPS(far, two, far)
		VSUBPS(far, e.one, far)
		VORPS(sign, far, far)
		isa.choose(near, p, far, far)
		VMULPS(c, far, far)
		s.store(far, "x")
	})
	end()
}

// gate makes the forward and backward kernel of an activation a: value
// returns a(x)/x, slope also a'(x); both leave x as it is.
func gate(name string, forward, backward int, value func(e *exponent, x vectors) vectors, slope func(e *exponent, x vectors) (v, d vectors)) {
	s, n := kernel(name, "func(out, gate, up []float32)", "vectors.gated", "out", "gate", "up")
	e := newExponent()
	abreast(s, n, forward, func(s []*vector) {
		for _, v := range s {
			v.ask("out")
		}
		x := streams(s, "gate")
		v := value(e, x)
		v.mulBy(x)
		v.mulBy(streams(s, "up"))
		stores(s, v, "out")
	})
	end()

	s, n = kernel(name+"Grad", "func(dgate, dup, out, gate, up, dout []float32)", "vectors.gatedGrad", "dgate", "dup", "out", "gate", "up", "dout")
	e = newExponent()
	abreast(s, n, backward, func(s []*vector) {
		x := streams(s, "gate")
		v, d := slope(e, x)
		v.mulBy(x)
		dout, up := streams(s, "dout"), streams(s, "up")
		both := dout.copied()
		both.mulBy(up)
		d.mulBy(both)
		stores(s, d, "dgate")
		up.mulBy(v)
		stores(s, up, "out")
		v.mulBy(dout)
		stores(s, v, "dup")
	})
	end()
}

func silu(e *exponent, x vectors) vectors { return e.sigmoid(x.copied()) }

// siluSlope: σ·(1 + x·(1-σ)).
func siluSlope(e *exponent, x vectors) (v, d vectors) {
	v = silu(e, x)
	d = x.news()
	d.each(func(i int, r VecVirtual) { VSUBPS(v[i], e.one, r) })
	d.horner(x, e.one)
	d.mulBy(v)
	return v, d
}

const (
	geluLinear = 2 * 0.7978845608028654
	geluCubic  = geluLinear * 0.044715
)

func geluTanh(e *exponent, x vectors) vectors {
	u := x.copied()
	u.mulBy(x)
	u.mul(number(geluCubic))
	u.add(number(geluLinear))
	u.mulBy(x)
	return e.sigmoid(u)
}

// geluTanhSlope: σ + x·σ·(1-σ)·(linear + 3·cubic·x²).
func geluTanhSlope(e *exponent, x vectors) (v, d vectors) {
	v = geluTanh(e, x)
	d = x.news()
	d.each(func(i int, r VecVirtual) { VSUBPS(v[i], e.one, r) })
	d.mulBy(v)
	d.mulBy(x)
	t := x.copied()
	t.mulBy(x)
	t.mul(number(3 * geluCubic))
	t.add(number(geluLinear))
	d.each(func(i int, r VecVirtual) { VFMADD213PS(v[i], t[i], r) })
	return v, d
}

// gelu returns the normal distribution by the fit of erfc of Numerical
// Recipes (Press et al.), good to 1.2e-7: with z = |x|/√2, t = 1/(1 + z/2),
// erfc z = t·exp(-z² + P(t)).
func gelu(e *exponent, x vectors) vectors {
	z := x.news()
	z.each(func(i int, v VecVirtual) { VANDPS(word(0x7fffffff), x[i], v) })
	z.mul(number(0.70710678118654752))
	t := x.set(number(0.5))
	t.horner(z, e.one)
	t.each(func(_ int, v VecVirtual) { VDIVPS(v, e.one, v) })
	p := x.set(number(0.17087277))
	p.horner(t, numbers(-0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223)...)
	p.each(func(i int, v VecVirtual) { VFNMADD231PS(z[i], z[i], v) })
	p.mul(number(log2e))
	tail := e.of(p)
	tail.mulBy(t)
	tail.mul(number(0.5))
	tail.each(func(i int, v VecVirtual) {
		VSUBPS(v, e.one, t[i])
		isa.choose(isa.negative(x[i]), v, t[i], v)
	})
	return tail
}

// geluSlope: Φ + x·φ.
func geluSlope(e *exponent, x vectors) (v, d vectors) {
	v = gelu(e, x)
	t := x.copied()
	t.mulBy(x)
	t.mul(number(-0.5 * log2e))
	d = e.of(t)
	d.mul(number(0.39894228040143268))
	d.mulBy(x)
	d.each(func(i int, r VecVirtual) { VADDPS(v[i], r, r) })
	return v, d
}
