package main

// log2e turns exponents of e into those of 2.
const log2e = 1.44269504088896341

// exp2 returns 2^x for x ≤ 127.49, within 2e-7 relative, and 2^-126 for all x
// below -126; a NaN stays one. It is 2^n·2^r with |r| ≤ ½ and the polynomial
// whose largest relative error is least. Adding 3·2^22 rounds x to n and leaves
// n in the low bits: with the bias of exponents, they are the exponent of 2^n.
func (x lanes) exp2() lanes {
	f := x[0].f
	const magic = 3<<22 + 127
	r := x.atLeast(f.number(-126))
	shifted := r.plus(f.number(magic))
	r = r.minus(shifted.minus(f.number(magic)))
	p := r.polynomial(1.326472731307149e-3, 9.671512991189957e-3, 5.550733581185341e-2, 0.24022242426872253, 0.6931470036506653, 1)
	for i, v := range p {
		f.do("VSHL $23, %v.S4, %v.S4", shifted[i], shifted[i])
		f.emit(fmul, v, v, shifted[i])
	}
	return p
}

// withinExp2 keeps x where 2^x can be computed.
func (x lanes) withinExp2() lanes { return x.atMost(x[0].f.number(127.49)) }

// sigmoid returns 1/(1 + e^-x).
func (x lanes) sigmoid() lanes {
	one := x[0].f.number(1)
	return one.over(x.times(x[0].f.number(-log2e)).withinExp2().exp2().plus(one))
}

func (a *assembly) activations() {
	f, s, n := a.kernel("neonExp", "func(out, x []float32, scale, top float32) float32", "is vectors.exp.", "out", "x")
	scale, top, sum := f.scalar("scale"), f.scalar("top"), f.zeros(1)
	f.emit(fmul, scale[0], scale[0], f.number(log2e)[0])
	abreast(f, s, n, 3, func(s *step) {
		y := s.load("x").minus(top).times(scale).exp2()
		s.store("out", y)
		for i := range y {
			sum.update(fadd, s.only(y[i:i+1]))
		}
	})
	f.returnSum(sum)
	f.end()

	f, s, n = a.kernel("neonScore", "func(s, dp []float32, lse, d, ic2 float32)", "is vectors.score.", "s", "dp")
	lse, d, ic2 := f.scalar("lse"), f.scalar("d"), f.scalar("ic2")
	abreast(f, s, n, 2, func(s *step) {
		z := s.load("s")
		slope := z.times(z).times(ic2)
		p := z.minus(lse).times(f.number(log2e)).exp2()
		s.store("s", p)
		dp := s.load("dp").minus(d).times(p)
		s.store("dp", dp.takeProduct(dp, slope))
	})
	f.end()

	a.capped()
	a.gate("SiLU", 3, 2, lanes.sigmoid, siluSlope)
	a.gate("GELUTanh", 3, 2, geluTanh, geluTanhSlope)
	a.gate("GELU", 2, 2, gelu, geluSlope)
}

// capped is c·tanh(x/c): near 0 the polynomial of Cephes' tanhf, elsewhere
// 1 - 2/(e^2|u| + 1).
func (a *assembly) capped() {
	f, s, n := a.kernel("neonCap", "func(x []float32, c float32)", "is vectors.cap.", "x")
	c := f.scalar("c")
	abreast(f, s, n, 2, func(s *step) {
		u := s.load("x").over(c)
		u2, abs := u.times(u), u.each(fabs)
		p := u2.polynomial(-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
		near := p.times(u2).times(u).plus(u) // u + u·u²·P
		one := f.number(1)
		far := one.minus(f.number(2).over(abs.times(f.number(2 * log2e)).withinExp2().exp2().plus(one)))
		far = f.word(1<<31).copied(len(u)).choose(u, far)
		y := f.number(0.625).with(fcmgt, abs).choose(near, far)
		s.store("x", y.times(c))
	})
	f.end()
}

// gate makes the forward and backward kernel of an activation a: value
// returns a(x)/x, slope also a'(x).
func (a *assembly) gate(name string, forward, backward int, value func(x lanes) lanes, slope func(x lanes) (v, d lanes)) {
	f, s, n := a.kernel("neon"+name, "func(out, gate, up []float32)", "is vectors.gated.", "out", "gate", "up")
	abreast(f, s, n, forward, func(s *step) {
		x := s.load("gate")
		s.store("out", value(x).times(x).times(s.load("up")))
	})
	f.end()

	f, s, n = a.kernel("neon"+name+"Grad", "func(dgate, dup, out, gate, up, dout []float32)", "is vectors.gatedGrad.", "dgate", "dup", "out", "gate", "up", "dout")
	abreast(f, s, n, backward, func(s *step) {
		x := s.load("gate")
		v, d := slope(x)
		v = v.times(x)
		dout, up := s.load("dout"), s.load("up")
		s.store("dgate", d.times(dout.times(up)))
		s.store("out", v.times(up))
		s.store("dup", v.times(dout))
	})
	f.end()
}

// siluSlope: σ·(1 + x·(1-σ)).
func siluSlope(x lanes) (v, d lanes) {
	v = x.sigmoid()
	d = x[0].f.number(1).minus(v).horner(x, 1).times(v)
	return v, d
}

const (
	geluLinear = 2 * 0.7978845608028654
	geluCubic  = geluLinear * 0.044715
)

func geluTanh(x lanes) lanes {
	return x.times(x).polynomial(geluCubic, geluLinear).times(x).sigmoid()
}

// geluTanhSlope: σ + x·σ·(1-σ)·(linear + 3·cubic·x²).
func geluTanhSlope(x lanes) (v, d lanes) {
	v = geluTanh(x)
	d = x[0].f.number(1).minus(v).times(v).times(x)
	d = d.times(x.times(x).polynomial(3*geluCubic, geluLinear)).plus(v)
	return v, d
}

// gelu returns the normal distribution by the fit of erfc of Numerical
// Recipes (Press et al.), good to 1.2e-7: with z = |x|/√2, t = 1/(1 + z/2),
// erfc z = t·exp(-z² + P(t)).
func gelu(x lanes) lanes {
	f := x[0].f
	z := x.each(fabs).times(f.number(0.70710678118654752))
	t := f.number(1).over(z.polynomial(0.5, 1))
	p := t.polynomial(0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368, -1.26551223)
	tail := p.takeProduct(z, z).times(f.number(log2e)).exp2().times(t).times(f.number(0.5))
	return x.each(cmlt).choose(tail, f.number(1).minus(tail))
}

// geluSlope: Φ + x·φ.
func geluSlope(x lanes) (v, d lanes) {
	f := x[0].f
	v = gelu(x)
	d = x.times(x).times(f.number(-0.5 * log2e)).exp2().times(f.number(0.39894228040143268)).times(x).plus(v)
	return v, d
}
