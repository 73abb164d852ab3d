package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// set is an instruction set, of vectors of so many float32.
type set struct {
	name  string
	lanes int
	new   func() VecVirtual
}

var (
	avx2   = set{"avx2", 8, func() VecVirtual { return YMM() }}
	avx512 = set{"avx512", 16, func() VecVirtual { return ZMM() }}
)

// isa is the set that is written for, as avo itself has a function that is written.
var isa = avx2

func (s set) wide() bool { return s.lanes == 16 }

// bytes is the size of a vector.
func (s set) bytes() int { return 4 * s.lanes }

// zeroed returns a vector of zeros.
func (s set) zeroed() VecVirtual {
	v := s.new()
	VXORPS(v, v, v)
	return v
}

// zeros returns n of them.
func (s set) zeros(n int) (v []VecVirtual) {
	for range n {
		v = append(v, s.zeroed())
	}
	return v
}

// set returns a vector that holds m.
func (s set) set(m Mem) VecVirtual {
	v := s.new()
	VMOVUPS(m, v)
	return v
}

// scalar returns a parameter in all elements of a vector.
func (s set) scalar(name string) VecVirtual {
	v := s.new()
	broadcast(name, v)
	return v
}

// broadcast puts a parameter into all elements of a vector.
func broadcast(name string, v VecVirtual) { VBROADCASTSS(place(name), v) }

// place returns where a parameter lies.
func place(name string) Op {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}

// less returns a condition that choose takes: x < y, by element.
func (s set) less(x VecVirtual, y Op) Register {
	if s.wide() {
		k := K()
		VCMPPS(Imm(0x11), y, x, k)
		return k
	}
	v := s.new()
	VCMPPS(Imm(0x11), y, x, v)
	return v
}

// negative is the same for the sign of x.
func (s set) negative(x VecVirtual) Register {
	if s.wide() {
		k := K()
		VPMOVD2M(x, k)
		return k
	}
	return x
}

// choose sets v to yes where a condition holds, else to no.
func (s set) choose(condition Register, yes, no, v VecVirtual) {
	if s.wide() {
		VBLENDMPS(yes, no, condition, v)
	} else {
		VBLENDVPS(condition, yes, no, v)
	}
}

// reduced returns the sum, or what else op gives, of the elements of x, which is spent.
func (s set) reduced(x VecVirtual, op func(ops ...Op), last func(ops ...Op)) Register {
	if s.wide() {
		hi := YMM()
		VEXTRACTF64X4(Imm(1), x, hi)
		op(hi, x.AsY(), x.AsY())
	}
	hi, lo := XMM(), x.AsX()
	VEXTRACTF128(Imm(1), x.AsY(), hi)
	op(hi, lo, lo)
	VMOVHLPS(lo, lo, hi)
	op(hi, lo, lo)
	VMOVSHDUP(lo, hi)
	last(hi, lo, lo)
	return lo
}

func end() {
	VZEROUPPER()
	RET()
}
