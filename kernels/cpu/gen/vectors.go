package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vectorKernels are maps without transcendental functions.
func vectorKernels() {
	s, n := kernel("Scale", "func(y []float32, a float32)", "vectors.scale", "y")
	a := isa.scalar("a")
	each(s, n, 4, func(s *vector) {
		y := s.load("y")
		VMULPS(a, y, y)
		s.store(y, "y")
	})
	end()

	s, n = kernel("Add", "func(out, a, b []float32)", "vectors.add", "out", "a", "b")
	each(s, n, 4, func(s *vector) {
		s.ask("out")
		a, b := s.load("a"), s.load("b")
		VADDPS(b, a, a)
		s.store(a, "out")
	})
	end()

	s, n = kernel("NormalizeSum", "func(out, x, w, next []float32, inv float32) float32", "vectors.normalizeSum", "out", "x", "w", "next")
	inv := isa.scalar("inv")
	acc := isa.zeros(4) // as avx2SumSquares: the same sum
	each(s, n, 4, func(s *vector) {
		s.ask("out")
		next := s.load("next")
		VFMADD231PS(next, next, acc[s.step])
		x, w := s.load("x"), s.load("w")
		VMULPS(inv, x, x)
		VMULPS(w, x, x)
		s.store(x, "out")
	})
	Store(sumInto(acc), ReturnIndex(0))
	end()

	s, n = kernel("NormGrad", "func(dx, x, dout, w []float32, inv, c float32)", "vectors.normGrad", "dx", "x", "dout", "w")
	inv = isa.scalar("inv")
	c := isa.scalar("c")
	each(s, n, 2, func(s *vector) {
		d, w, x := s.load("dout"), s.load("w"), s.load("x")
		VMULPS(inv, d, d)
		VMULPS(w, d, d)
		VFNMADD231PS(c, x, d)
		s.store(d, "dx")
	})
	end()

	s, n = kernel("WeightGrad", "func(dw, x, dout []float32, inv float32)", "vectors.weightGrad", "dw", "x", "dout")
	inv = isa.scalar("inv")
	each(s, n, 2, func(s *vector) {
		w, x, d := s.load("dw"), s.load("x"), s.load("dout")
		VMULPS(inv, x, x)
		VFMADD231PS(d, x, w)
		s.store(w, "dw")
	})
	end()

	turn("Rotate", "vectors.rotate", false)
	turn("Unrotate", "vectors.unrotate", true)
}

func turn(name, field string, inverse bool) {
	s, n := kernel(name, "func(lo, hi, xlo, xhi, cos, sin []float32)", field, "lo", "hi", "xlo", "xhi", "cos", "sin")
	each(s, n, 1, func(s *vector) {
		a, b, cos, sin := s.stream("xlo"), s.stream("xhi"), s.load("cos"), s.load("sin")
		lo, hi := isa.new(), isa.new()
		VMULPS(cos, a, lo)
		VMULPS(cos, b, hi)
		if inverse {
			VFMADD231PS(b, sin, lo)
			VFNMADD231PS(a, sin, hi)
		} else {
			VFNMADD231PS(b, sin, lo)
			VFMADD231PS(a, sin, hi)
		}
		s.store(lo, "lo")
		s.store(hi, "hi")
	})
	end()
}

func reductions() {
	s, n := kernel("SumSquares", "func(x []float32) float32", "vectors.sumSquares", "x")
	acc := isa.zeros(4)
	each(s, n, 4, func(s *vector) {
		x := s.load("x")
		VFMADD231PS(x, x, acc[s.step])
	})
	Store(sumInto(acc), ReturnIndex(0))
	end()

	s, n = kernel("Dot3", "func(x, y, w []float32) float32", "vectors.dot3", "x", "y", "w")
	acc = isa.zeros(4)
	each(s, n, 4, func(s *vector) {
		x, y, w := s.stream("x"), s.stream("y"), s.load("w")
		VMULPS(x, y, y)
		VFMADD231PS(y, w, acc[s.step])
	})
	Store(sumInto(acc), ReturnIndex(0))
	end()

	maximum()
}

// sumSquares64 widens before it multiplies.
func sumSquares64() {
	s, n := kernel("SumSquares64", "func(x []float32) float64", "vectors.sumSquares64", "x")
	acc := isa.zeros(4)
	each(s, n, 2, func(s *vector) {
		x := s.load("x")
		lo, hi, upper := YMM(), YMM(), XMM()
		VEXTRACTF128(Imm(1), x, upper)
		VCVTPS2PD(x.AsX(), lo)
		VCVTPS2PD(upper, hi)
		VFMADD231PD(lo, lo, acc[2*s.step])
		VFMADD231PD(hi, hi, acc[2*s.step+1])
	})
	VADDPD(acc[2], acc[0], acc[0])
	VADDPD(acc[3], acc[1], acc[1])
	VADDPD(acc[1], acc[0], acc[0])
	hi, lo := XMM(), acc[0].AsX()
	VEXTRACTF128(Imm(1), acc[0], hi)
	VADDPD(hi, lo, lo)
	VPERMILPD(Imm(1), lo, hi)
	VADDSD(hi, lo, lo)
	Store(lo, ReturnIndex(0))
	end()
}

func maximum() {
	s, n := kernel("Max", "func(x []float32) float32", "vectors.maxOf", "x")
	m := newLargest(4)
	each(s, n, 4, func(s *vector) { m.see(s, "x") })
	Store(m.total(), ReturnIndex(0))
	end()
}

// largest is the largest element seen, in several registers.
type largest []VecVirtual

func newLargest(n int) largest {
	m := make(largest, n)
	for i := range m {
		m[i] = isa.set(word(0xff800000))
	}
	return m
}

func (m largest) see(s *vector, name string) {
	switch v := m[s.step]; {
	case s.mask == nil:
		VMAXPS(s.mem(name), v, v)
	case isa.wide():
		VMAXPS(s.mem(name), v, s.mask, v)
	default:
		x := s.load(name)
		VBLENDVPS(s.mask, x, v, x)
		VMAXPS(x, v, v)
	}
}

func (m largest) total() Register {
	for _, v := range m[1:] {
		VMAXPS(v, m[0], m[0])
	}
	return isa.reduced(m[0], VMAXPS, func(o ...Op) { VMAXSS(o...) })
}
