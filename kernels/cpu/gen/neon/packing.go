package main

// packing has what rearranges factors, and what works on stored weights.
func (a *assembly) packing() {
	for _, t := range []stored{f32, f16, bf16} {
		a.across(t)
		a.along(t)
		a.dot(t)
		a.axpy(t)
		if t.size < 4 { // float32 is copied
			a.widen(t)
		}
	}
	a.across6()
}

// next returns two vectors, eight elements, and moves the pointer behind them.
func (t stored) next(f *function, at reg) (lo, hi *vec) {
	if t.size == 4 {
		lo, hi = f.local(), f.local()
		f.do("FLDPQ.P 32(%s), (%s, %s)", at, scalar{lo}, scalar{hi})
		return lo, hi
	}
	v := f.local()
	f.do("FMOVQ.P 16(%s), %s", at, scalar{v})
	return lanes{v}.each(t.low)[0], lanes{v}.each(t.top)[0]
}

// sides returns what the two instructions of a name make of two vectors: VZIP
// interleaves their lower halves and their upper ones, VUZP takes their even and
// their odd elements.
func sides(name string, x, y *vec) (first, second *vec) {
	f := x.f
	first, second = f.local(), f.local()
	f.do(name+"1 %v.S4, %v.S4, %v.S4", y, x, first)
	f.do(name+"2 %v.S4, %v.S4, %v.S4", y, x, second)
	return first, second
}

// transposed turns a block of 4×4.
func (x lanes) transposed() lanes {
	a, b := sides("VZIP", x[0], x[2])
	c, d := sides("VZIP", x[1], x[3])
	p0, p1 := sides("VZIP", a, c)
	p2, p3 := sides("VZIP", b, d)
	return lanes{p0, p1, p2, p3}
}

// across turns blocks of 4 rows by 8 depths, four of them a step.
func (a *assembly) across(t stored) {
	f := a.function("neonAcross"+t.name, "func(dst *float32, src *byte, stride, k int, scale float32)", "is vectors.across.")
	dst, k, scale := f.load("dst"), f.load("k"), f.scalar("scale")
	from := f.rowsFrom(f.load("src"), f.load("stride"), cols)
	f.label("loop")
	for i := 0; i < cols; i += 4 {
		var lo, hi lanes
		for _, p := range from[i : i+4] {
			l, h := t.next(f, p)
			lo, hi = append(lo, l), append(hi, h)
		}
		for p, v := range append(lo.transposed(), hi.transposed()...) {
			f.do("FMOVQ %s, %d(%s)", scalar{lanes{v}.times(scale)[0]}, 64*p+4*i, dst)
		}
	}
	f.do("ADD $512, %s", dst)
	f.do("SUBS $8, %s", k)
	f.do("BNE loop")
	f.end()
}

// across6 turns 6 rows by 4 depths: with zs the pairs of rows 0 and 1, 2 and
// 3, 4 and 5, two depths are z0 z2 | z4 z0' | z2' z4'.
func (a *assembly) across6() {
	f := a.function("neonAcross6", "func(dst *float32, src *byte, stride, k int)", "is vectors.across6.")
	dst, k := f.load("dst"), f.load("k")
	from := f.rowsFrom(f.load("src"), f.load("stride"), rows)
	f.label("loop")
	var r lanes
	for _, p := range from {
		v := f.local()
		f.do("FMOVQ.P 16(%s), %s", p, scalar{v})
		r = append(r, v)
	}
	a0, a1 := sides("VZIP", r[0], r[1])
	b0, b1 := sides("VZIP", r[2], r[3])
	c0, c1 := sides("VZIP", r[4], r[5])
	for _, z := range []lanes{{a0, b0, c0}, {a1, b1, c1}} {
		first, last := f.local(), f.local()
		f.do("VZIP1 %v.D2, %v.D2, %v.D2", z[1], z[0], first)
		f.do("VZIP2 %v.D2, %v.D2, %v.D2", z[2], z[1], last)
		f.do("VMOV %v.D[0], %v.D[0]", z[2], z[0])
		f.do("FSTPQ.P (%s, %s), 32(%s)", scalar{first}, scalar{z[0]}, dst)
		f.do("FMOVQ.P %s, 16(%s)", scalar{last}, dst)
	}
	f.do("SUBS $4, %s", k)
	f.do("BNE loop")
	f.end()
}

func (a *assembly) along(t stored) {
	f := a.function("neonAlong"+t.name, "func(dst *float32, src *byte, stride, k int, scale float32)", "is vectors.along.")
	dst, src, stride, k, scale := f.load("dst"), f.load("src"), f.load("stride"), f.load("k"), f.scalar("scale")
	f.do("SUB $%d, %s", cols*t.size, stride)
	f.label("loop")
	for range 2 {
		lo, hi := t.next(f, src)
		x := lanes{lo, hi}.times(scale)
		f.do("FSTPQ.P (%s, %s), 32(%s)", scalar{x[0]}, scalar{x[1]}, dst)
	}
	f.do("ADD %s, %s", stride, src)
	f.do("SUBS $1, %s", k)
	f.do("BNE loop")
	f.end()
}

func (a *assembly) widen(t stored) {
	f, s, n := a.kernel("neonWiden"+t.name, "func(dst []float32, src *byte)", "is vectors.widen.", "dst")
	s["src"] = slice{f.load("src"), t}
	abreast(f, s, n, 4, func(s *step) { s.store("dst", s.load("src")) })
	f.end()
}

func (a *assembly) dot(t stored) {
	f, s, n := a.kernel("neonDot"+t.name, "func(x []float32, w *byte) float32", "is vectors.dot.", "x")
	s["w"] = slice{f.load("w"), t}
	acc := f.zeros(8)
	abreast(f, s, n, len(acc), func(s *step) {
		acc[:s.count].addProduct(s.only(s.load("x")), s.only(s.load("w")))
	})
	f.returnSum(acc)
	f.end()
}

func (a *assembly) axpy(t stored) {
	f, s, n := a.kernel("neonAxpy"+t.name, "func(y []float32, w *byte, a float32)", "is vectors.axpy.", "y")
	s["w"] = slice{f.load("w"), t}
	factor := f.scalar("a")
	abreast(f, s, n, 4, func(s *step) {
		s.store("y", s.load("y").addProduct(s.load("w"), factor))
	})
	f.end()
}
