package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// optimizer is AdamW; its scalars are the fields of adamFactors, in order.
func optimizer() {
	s, n := kernel("Adam", "func(p, m, v, g []float32, c *float32)", "vectors.adam; c points to an adamFactors", "p", "m", "v", "g")
	c := Load(Param("c"), GP64())
	f := func(i int) VecVirtual {
		v := isa.new()
		VBROADCASTSS(Mem{Base: c, Disp: 4 * i}, v)
		return v
	}
	clip, keep, beta1, rest1, beta2, rest2, rate, root, offset := f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8)
	each(s, n, 1, func(s *vector) {
		g := s.load("g")
		VMULPS(clip, g, g)
		m := s.load("m")
		VMULPS(beta1, m, m)
		VFMADD231PS(rest1, g, m)
		s.store(m, "m")
		v := s.load("v")
		VMULPS(beta2, v, v)
		VMULPS(g, g, g)
		VFMADD231PS(rest2, g, v)
		s.store(v, "v")
		VMULPS(root, v, v)
		VSQRTPS(v, v)
		VADDPS(offset, v, v)
		VMULPS(rate, m, m)
		VDIVPS(v, m, m)
		p := s.load("p")
		VMULPS(keep, p, p)
		VSUBPS(m, p, p)
		s.store(p, "p")
	})
	end()
}
