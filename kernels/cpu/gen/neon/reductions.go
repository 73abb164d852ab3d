package main

import "math"

// The sums have as many partial sums as the AVX2 kernels.
func (a *assembly) reductions() {
	f, s, n := a.kernel("neonSumSquares", "func(x []float32) float32", "is vectors.sumSquares.", "x")
	acc := f.zeros(8)
	abreast(f, s, n, len(acc), func(s *step) {
		x := s.only(s.load("x"))
		acc[:s.count].addProduct(x, x)
	})
	f.returnSum(acc)
	f.end()

	f, s, n = a.kernel("neonDot3", "func(x, y, w []float32) float32", "is vectors.dot3.", "x", "y", "w")
	acc = f.zeros(8)
	abreast(f, s, n, len(acc), func(s *step) {
		acc[:s.count].addProduct(s.only(s.load("x").times(s.load("y"))), s.only(s.load("w")))
	})
	f.returnSum(acc)
	f.end()

	a.sumSquares64()
	a.maximum()
}

// sumSquares64 widens before it multiplies.
func (a *assembly) sumSquares64() {
	f, s, n := a.kernel("neonSumSquares64", "func(x []float32) float64", "is vectors.sumSquares64.", "x")
	acc := f.zeros(8)
	abreast(f, s, n, len(acc)/2, func(s *step) {
		x := s.only(s.load("x"))
		for i, v := range append(x.each(fcvtl2d), x.each(fcvtl22d)...) {
			f.do("VFMLA %v.D2, %v.D2, %v.D2", v, v, acc[i])
		}
	})
	acc.fold(fadd2d)
	f.emit(faddp2d, acc[0], acc[0])
	f.do("FMOVD %s, %s", scalar{acc[0]}, f.place("ret"))
	f.end()
}

// maximum passes over NaNs, as the comparison in Go does.
func (a *assembly) maximum() {
	f, s, n := a.kernel("neonMax", "func(x []float32) float32", "is vectors.maxOf.", "x")
	least := f.number(math.Inf(-1))
	var acc lanes
	for range 8 {
		acc = append(acc, least.copyTo(f.pin()))
	}
	abreast(f, s, n, len(acc), func(s *step) { acc[:s.count].update(fmaxnm, s.load("x")) })
	acc.fold(fmaxnm)
	f.emit(fmaxnmv, acc[0], acc[0])
	f.do("FMOVS %s, %s", scalar{acc[0]}, f.place("ret"))
	f.end()
}
