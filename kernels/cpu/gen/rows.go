package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// rowKernels work on several rows: where these are short, a call for each of them takes as
// long as what it does.
func rowKernels() {
	softmaxRows()
	scoreRows()
	dotRows()
	scaleRows()
}

// rowsLoop goes over the rows of a kernel's parameters.
type rowsLoop struct {
	moves []func() // to the next row
}

// param returns a parameter that each row moves on, by so many bytes.
func (l *rowsLoop) param(name string, step Op) Register {
	r := Load(Param(name), GP64())
	l.moves = append(l.moves, func() { ADDQ(step, r) })
	return r
}

// each runs body for each row.
func (l *rowsLoop) each(body func()) {
	count := Load(Param("count"), GP64())
	Label("row")
	body()
	for _, move := range l.moves {
		move()
	}
	DECQ(count)
	JNZ(LabelRef("row"))
	end()
}

// inBytes turns parameters that count elements.
func inBytes(names ...string) {
	r := GP64()
	for _, name := range names {
		load(name, r)
		SHLQ(Imm(2), r)
		MOVQ(r, place(name))
	}
}

// extent finds the elements of a row that count, n of them from p on.
func extent(extents, row Register) (p, n Register) {
	p, n = GP64(), GP64()
	MOVLQSX(Mem{Base: extents}, p)
	MOVLQSX(Mem{Base: extents, Disp: 4}, n)
	SUBQ(p, n)
	LEAQ(Mem{Base: row, Index: p, Scale: 4}, p)
	return p, n
}

// over is abreast within a row; it leaves n as it is.
func over(name string, slices map[string]Register, n Register, count int, body func(s []*vector)) {
	rest := GP64()
	MOVQ(n, rest)
	abreastIn(func(label string) string { return name + "_" + label }, slices, rest, count, body)
}

// putAll writes whole vectors, with zeros for elements beyond the end.
func putAll(s []*vector, x vectors, name string) {
	for i, v := range x {
		s[i].only(v)
		VMOVUPS(v, s[i].mem(name))
	}
}

// putZeros writes a vector of zeros behind n elements, and what fills their last vector.
func putZeros(n Register, rows ...Register) {
	zero, end := isa.zeroed(), GP64()
	LEAQ(Mem{Base: n, Disp: isa.lanes - 1}, end)
	ANDQ(I8(int8(-isa.lanes)), end)
	for _, p := range rows {
		VMOVUPS(zero, Mem{Base: p, Index: end, Scale: 4})
	}
}

func softmaxRows() {
	declare("SoftmaxRows", "func(count int, s *float32, ld int, extents *[2]int32, top, next, sums *float32)", "vectors.softmaxRows")
	inBytes("ld")
	l := &rowsLoop{}
	row, extents := l.param("s", place("ld")), l.param("extents", Imm(8))
	top, next, sums := l.param("top", Imm(4)), l.param("next", Imm(4)), l.param("sums", Imm(4))
	e := newExponent()
	l.each(func() {
		p, n := extent(extents, row)
		s, m := map[string]Register{"s": p}, newLargest(2)
		over("max", s, n, 2, func(s []*vector) {
			for _, v := range s {
				m.see(v, "s")
			}
		})
		largest, most, sum := m.total(), isa.new(), isa.zeroed()
		VMAXSS(Mem{Base: top}, largest, largest)
		VMOVSS(largest, Mem{Base: next})
		VBROADCASTSS(largest, most)
		over("exp", s, n, 3, func(s []*vector) {
			x := loads(s, "s")
			x.each(func(_ int, v VecVirtual) { VSUBPS(most, v, v) })
			x.mul(number(log2e))
			x = e.of(x)
			putAll(s, x, "s")
			x.each(func(_ int, v VecVirtual) { VADDPS(v, sum, sum) })
		})
		putZeros(n, p)
		VMOVSS(sumInto([]VecVirtual{sum}), Mem{Base: sums})
	})
}

func scoreRows() {
	declare("ScoreRows", "func(count int, s, ds *float32, ld int, extents *[2]int32, lse *float32, lseStep int, d *float32, dStep int, ic2 float32)", "vectors.scoreRows")
	inBytes("ld", "lseStep", "dStep")
	l := &rowsLoop{}
	row, gradRow, extents := l.param("s", place("ld")), l.param("ds", place("ld")), l.param("extents", Imm(8))
	lses, ds := l.param("lse", place("lseStep")), l.param("d", place("dStep"))
	ic2, e := isa.scalar("ic2"), newExponent()
	l.each(func() {
		p, n := extent(extents, row)
		q := GP64()
		MOVQ(p, q)
		SUBQ(row, q)
		ADDQ(gradRow, q)
		lse, d := isa.new(), isa.new()
		VBROADCASTSS(Mem{Base: lses}, lse)
		VBROADCASTSS(Mem{Base: ds}, d)
		over("score", map[string]Register{"s": p, "ds": q}, n, 2, func(s []*vector) {
			z := loads(s, "s")
			slope := z.copied()
			slope.mulBy(z)
			slope.mul(ic2)
			z.each(func(_ int, v VecVirtual) { VSUBPS(lse, v, v) })
			z.mul(number(log2e))
			z = e.of(z)
			putAll(s, z, "s")
			ds := loads(s, "ds")
			ds.each(func(_ int, v VecVirtual) { VSUBPS(d, v, v) })
			ds.mulBy(z)
			ds.each(func(i int, v VecVirtual) { VFNMADD231PS(slope[i], v, v) }) // ds·(1 - slope)
			putAll(s, ds, "ds")
		})
		putZeros(n, p, q)
	})
}

func dotRows() {
	declare("DotRows", "func(count int, x *float32, xStep int, y *float32, yStep, n int, out *float32)", "vectors.dotRows")
	inBytes("xStep", "yStep")
	l := &rowsLoop{}
	s, out := map[string]Register{"x": l.param("x", place("xStep")), "y": l.param("y", place("yStep"))}, l.param("out", Imm(4))
	n := Load(Param("n"), GP64())
	l.each(func() {
		acc := isa.zeros(4)
		over("dot", s, n, 4, func(s []*vector) {
			x, y := loads(s, "x"), loads(s, "y")
			x.each(func(i int, v VecVirtual) { VFMADD231PS(y[i], v, acc[i]) })
		})
		VMOVSS(sumInto(acc), Mem{Base: out})
	})
}

func scaleRows() {
	declare("ScaleRows", "func(count int, out *float32, outStep int, x *float32, xStep, n int, factors *float32)", "vectors.scaleRows")
	inBytes("outStep", "xStep")
	l := &rowsLoop{}
	s, factors := map[string]Register{"out": l.param("out", place("outStep")), "x": l.param("x", place("xStep"))}, l.param("factors", Imm(4))
	n := Load(Param("n"), GP64())
	// Rows of a head lie apart: farAhead of one of them is not the next.
	s["later"] = l.param("out", place("outStep"))
	for range 8 {
		ADDQ(place("outStep"), s["later"])
	}
	l.each(func() {
		factor := isa.new()
		VBROADCASTSS(Mem{Base: factors}, factor)
		over("scale", s, n, 4, func(s []*vector) {
			for _, v := range s {
				v.askAt("later", 0)
			}
			x := loads(s, "x")
			x.mul(factor)
			stores(s, x, "out")
		})
	})
}
