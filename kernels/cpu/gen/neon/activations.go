package main

// exp returns e^x for x ≤ 88.37, within 1e-7 relative, and e^-87.3 for all x
// below that; a NaN stays one. It is 2^n·e^r with |r| ≤ ln 2 / 2 and the
// polynomial of Cephes' expf (Moshier). Adding 3·2^22 rounds x·log₂e to n and
// leaves n in the low bits, where the exponent can take it from.
func (x lanes) exp() lanes {
	f := x[0].f
	const magic = 3 << 22
	r := x.atLeast(f.number(-87.33654))
	shifted := f.copies(len(x), magic).addProduct(r, f.number(1.44269504088896341))
	n := shifted.minus(f.number(magic))
	r.takeProduct(n, f.number(0.693359375)).takeProduct(n, f.number(-2.12194440e-4))
	p := r.polynomial(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1, 1, 1)
	for i, v := range p {
		f.do("VSHL $23, %v.S4, %v.S4", shifted[i], shifted[i])
		f.do("VADD %v.S4, %v.S4, %v.S4", shifted[i], v, v) // times 2^n
	}
	return p
}

// withinExp keeps x where exp can be computed.
func (x lanes) withinExp() lanes { return x.atMost(x[0].f.number(88.37626)) }

// sigmoid returns 1/(1 + e^-x).
func (x lanes) sigmoid() lanes {
	one := x[0].f.number(1)
	return one.over(x.each(fneg).withinExp().exp().plus(one))
}

func (a *assembly) activations() {
	f, s, n := a.kernel("neonExp", "func(out, x []float32, scale, shift float32) float32", "is vectors.exp.", "out", "x")
	scale, shift, sum := f.scalar("scale"), f.scalar("shift"), f.zeros(1)
	f.emit(fneg, shift[0], shift[0])
	abreast(f, s, n, 3, func(s *step) {
		y := shift.copied(s.count).addProduct(s.load("x"), scale).exp()
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
		p := z.minus(lse).exp()
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
		far := one.minus(f.number(2).over(abs.plus(abs).withinExp().exp().plus(one)))
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

	f, s, n = a.kernel("neon"+name+"Grad", "func(dgate, dup, gate, up, dout []float32)", "is vectors.gatedGrad.", "dgate", "dup", "gate", "up", "dout")
	abreast(f, s, n, backward, func(s *step) {
		x := s.load("gate")
		v, d := slope(x)
		v = v.times(x)
		dout, up := s.load("dout"), s.load("up")
		s.store("dgate", d.times(dout.times(up)))
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
	tail := p.takeProduct(z, z).exp().times(t).times(f.number(0.5))
	return x.each(cmlt).choose(tail, f.number(1).minus(tail))
}

// geluSlope: Φ + x·φ.
func geluSlope(x lanes) (v, d lanes) {
	f := x[0].f
	v = gelu(x)
	d = x.times(x).times(f.number(-0.5)).exp().times(f.number(0.39894228040143268)).times(x).plus(v)
	return v, d
}
