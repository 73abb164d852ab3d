package main

// maps are the kernels that treat each element by itself, without
// transcendental functions.
func (a *assembly) maps() {
	f, s, n := a.kernel("neonScale", "func(y []float32, a float32)", "is vectors.scale.", "y")
	by := f.scalar("a")
	abreast(f, s, n, 4, func(s *step) { s.store("y", s.load("y").times(by)) })
	f.end()

	f, s, n = a.kernel("neonAdd", "func(out, a, b []float32)", "is vectors.add.", "out", "a", "b")
	abreast(f, s, n, 4, func(s *step) { s.store("out", s.load("a").plus(s.load("b"))) })
	f.end()

	f, s, n = a.kernel("neonNormalize", "func(out, x, w []float32, inv float32)", "is vectors.normalize.", "out", "x", "w")
	inv := f.scalar("inv")
	abreast(f, s, n, 4, func(s *step) { s.store("out", s.load("x").times(inv).times(s.load("w"))) })
	f.end()

	f, s, n = a.kernel("neonNormGrad", "func(dx, x, dout, w []float32, inv, c float32)", "is vectors.normGrad.", "dx", "x", "dout", "w")
	inv, c := f.scalar("inv"), f.scalar("c")
	abreast(f, s, n, 4, func(s *step) {
		s.store("dx", s.load("dout").times(inv).times(s.load("w")).takeProduct(s.load("x"), c))
	})
	f.end()

	f, s, n = a.kernel("neonWeightGrad", "func(dw, x, dout []float32, inv float32)", "is vectors.weightGrad.", "dw", "x", "dout")
	inv = f.scalar("inv")
	abreast(f, s, n, 4, func(s *step) {
		s.store("dw", s.load("dw").addProduct(s.load("x").times(inv), s.load("dout")))
	})
	f.end()

	a.turn("neonRotate", "rotate", lanes.takeProduct, lanes.addProduct)
	a.turn("neonUnrotate", "unrotate", lanes.addProduct, lanes.takeProduct)
}

// turn is (lo, hi) = (xlo·cos ∓ xhi·sin, xhi·cos ± xlo·sin).
func (a *assembly) turn(name, field string, low, high func(x, a, b lanes) lanes) {
	f, s, n := a.kernel(name, "func(lo, hi, xlo, xhi, cos, sin []float32)", "is vectors."+field+".", "lo", "hi", "xlo", "xhi", "cos", "sin")
	abreast(f, s, n, 2, func(s *step) {
		x, y, cos, sin := s.load("xlo"), s.load("xhi"), s.load("cos"), s.load("sin")
		lo, hi := low(x.times(cos), y, sin), high(y.times(cos), x, sin)
		s.store("lo", lo)
		s.store("hi", hi)
	})
	f.end()
}

// optimizer is AdamW; its scalars are the fields of adamFactors, in order.
func (a *assembly) optimizer() {
	f, s, n := a.kernel("neonAdam", "func(p, m, v, g []float32, c *float32)", "is vectors.adam; c points to an adamFactors.", "p", "m", "v", "g")
	c := f.load("c")
	next := func() lanes {
		v := f.pin()
		f.do("VLD1R.P 4(%s), [%v.S4]", c, v)
		return lanes{v}
	}
	clip, keep, beta1, rest1, beta2, rest2, rate, root, offset := next(), next(), next(), next(), next(), next(), next(), next(), next()
	abreast(f, s, n, 2, func(s *step) {
		g := s.load("g").times(clip)
		m := s.load("m").times(beta1).addProduct(g, rest1)
		s.store("m", m)
		v := s.load("v").times(beta2).addProduct(g.times(g), rest2)
		s.store("v", v)
		down := m.times(rate).over(v.times(root).each(fsqrt).plus(offset))
		s.store("p", s.load("p").times(keep).minus(down))
	})
	f.end()
}

// peak is a loop that does nothing but multiply and add.
func (a *assembly) peak() {
	f := a.function("neonFMA", "func(rounds int)", "does rounds of 24 independent multiply-adds of four numbers.")
	n, acc, x, y := f.load("rounds"), f.zeros(24), f.zeros(1), f.zeros(1)
	f.label("loop")
	acc.addProduct(x, y)
	f.do("SUBS $1, %s", n)
	f.do("BNE loop")
	f.end()
}

// pause is for threads that wait: to fetch again what comes next takes a moment.
func (a *assembly) pause() {
	f := a.function("pause", "func()", "lets a moment pass.")
	f.do("ISB $15")
	f.end()
}
