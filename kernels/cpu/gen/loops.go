package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vector is what a kernel's body sees of one step: a vector of elements of each
// slice, or in the last step the rest of them.
type vector struct {
	slices map[string]Register
	index  Register // bytes
	mask   Register // elements that exist; nil for a whole vector
	offset int      // bytes, of an unrolled step
	step   int      // of the unrolled ones
}

func (s *vector) mem(name string) Mem {
	return Mem{Base: s.slices[name], Index: s.index, Scale: 1, Disp: s.offset}
}

// load returns elements of a slice, 0 for those beyond its end.
func (s *vector) load(name string) VecVirtual {
	v := isa.new()
	switch {
	case s.mask == nil:
		VMOVUPS(s.mem(name), v)
	case isa.wide():
		VMOVUPS_Z(s.mem(name), s.mask, v)
	default:
		VMASKMOVPS(s.mem(name), s.mask, v)
	}
	return v
}

// farAhead is how many bytes further on rows are asked for: what another core has written takes
// longer to come than what the processor asks for by itself is ahead.
const farAhead = 2304

// ask asks for what lies farAhead, a line at a time. Rows that are only written have to come,
// too, and nothing else asks for them.
func (s *vector) ask(name string) { s.askAt(name, farAhead) }

// askAt asks for what lies so many bytes further on.
func (s *vector) askAt(name string, ahead int) {
	if s.mask == nil && s.offset%lineBytes == 0 {
		PREFETCHT0(s.mem(name).Offset(ahead))
	}
}

// stream is load for rows that come from memory, one behind the other.
func (s *vector) stream(name string) VecVirtual {
	s.ask(name)
	return s.load(name)
}

func (s *vector) store(v VecVirtual, name string) {
	switch {
	case s.mask == nil:
		VMOVUPS(v, s.mem(name))
	case isa.wide():
		VMOVUPS(v, s.mask, s.mem(name))
	default:
		VMASKMOVPS(v, s.mask, s.mem(name))
	}
}

// only clears the elements beyond the end.
func (s *vector) only(v VecVirtual) {
	switch {
	case s.mask == nil:
	case isa.wide():
		VMOVAPS_Z(v, s.mask, v)
	default:
		VANDPS(s.mask, v, v)
	}
}

// kernel declares the function that a field is for an instruction set, and leaves its
// slices in registers; the first one's length counts.
func kernel(name, signature, field string, slices ...string) (map[string]Register, Register) {
	declare(name, signature, field)
	r := map[string]Register{}
	for _, s := range slices {
		r[s] = Load(Param(s).Base(), GP64())
	}
	return r, Load(Param(slices[0]).Len(), GP64())
}

func declare(name, signature, field string) {
	TEXT(isa.name+name, NOSPLIT|NOFRAME, signature)
	Doc(isa.name + name + " is " + field + ".")
}

// each goes over n elements of slices: unroll vectors at a time, then single
// ones, then a masked rest.
func each(slices map[string]Register, n Register, unroll int, body func(s *vector)) {
	abreast(slices, n, unroll, func(s []*vector) {
		for _, v := range s {
			body(v)
		}
	})
}

// abreast is each for bodies that interleave the work on several vectors: long
// chains of dependent operations fill the processor's queue otherwise.
func abreast(slices map[string]Register, n Register, count int, body func(s []*vector)) {
	abreastIn(plain, slices, n, count, body)
}

// abreastIn is abreast for functions with several such loops: label makes the labels' names.
func abreastIn(label func(name string) string, slices map[string]Register, n Register, count int, body func(s []*vector)) {
	unrolled, single, rest, done := label("unrolled"), label("single"), label("rest"), label("done")
	i := GP64()
	XORQ(i, i)
	var group []*vector
	for u := range count {
		group = append(group, &vector{slices: slices, index: i, offset: isa.bytes() * u, step: u})
	}
	if count > 1 {
		Label(unrolled)
		CMPQ(n, U32(uint32(isa.lanes*count)))
		JL(LabelRef(single))
		body(group)
		ADDQ(U32(uint32(isa.bytes()*count)), i)
		SUBQ(U32(uint32(isa.lanes*count)), n)
		JMP(LabelRef(unrolled))
	}
	Label(single)
	CMPQ(n, Imm(uint64(isa.lanes)))
	JL(LabelRef(rest))
	body(group[:1])
	ADDQ(Imm(uint64(isa.bytes())), i)
	SUBQ(Imm(uint64(isa.lanes)), n)
	JMP(LabelRef(single))
	Label(rest)
	TESTQ(n, n)
	JZ(LabelRef(done))
	body([]*vector{{slices: slices, index: i, mask: tailMask(n)}})
	Label(done)
}

// vectors are worked on abreast.
type vectors []VecVirtual

func (x vectors) each(f func(i int, v VecVirtual)) {
	for i, v := range x {
		f(i, v)
	}
}

// news returns registers, as many as x has.
func (x vectors) news() vectors {
	out := make(vectors, len(x))
	for i := range out {
		out[i] = isa.new()
	}
	return out
}

// set returns registers that hold m.
func (x vectors) set(m Op) vectors {
	out := x.news()
	out.each(func(_ int, v VecVirtual) { VMOVUPS(m, v) })
	return out
}

func (x vectors) copied() vectors {
	out := x.news()
	out.each(func(i int, v VecVirtual) { VMOVAPS(x[i], v) })
	return out
}

// mul multiplies by a vector or constant.
func (x vectors) mul(by Op) { x.each(func(_ int, v VecVirtual) { VMULPS(by, v, v) }) }

// mulBy multiplies by other vectors.
func (x vectors) mulBy(y vectors) { x.each(func(i int, v VecVirtual) { VMULPS(y[i], v, v) }) }

func (x vectors) add(a Op) { x.each(func(_ int, v VecVirtual) { VADDPS(a, v, v) }) }

// horner goes on with the polynomial p in x.
func (p vectors) horner(x vectors, constants ...Op) {
	for _, c := range constants {
		p.each(func(i int, v VecVirtual) { VFMADD213PS(c, x[i], v) })
	}
}

func numbers(c ...float64) (out []Op) {
	for _, x := range c {
		out = append(out, number(x))
	}
	return out
}

func streams(s []*vector, name string) (out vectors) {
	for _, v := range s {
		out = append(out, v.stream(name))
	}
	return out
}

func loads(s []*vector, name string) (out vectors) {
	for _, v := range s {
		out = append(out, v.load(name))
	}
	return out
}

func stores(s []*vector, x vectors, name string) {
	for i, v := range s {
		v.store(x[i], name)
	}
}

// tailMask returns a mask of the first n elements, less than a vector; it spends n.
func tailMask(n Register) Register {
	if isa.wide() {
		all, mask := GP32(), K()
		MOVL(I32(-1), all)
		BZHIL(n.(GPVirtual).As32(), all, all)
		KMOVW(all, mask)
		return mask
	}
	table, mask := GP64(), YMM()
	LEAQ(masks(), table)
	NEGQ(n)
	VMOVUPS(Mem{Base: table, Index: n, Scale: 4, Disp: 32}, mask)
	return mask
}

// sumInto adds up vectors, and their elements, and returns the sum.
func sumInto(acc []VecVirtual) Register {
	for n := len(acc); n > 1; n /= 2 {
		for i := range n / 2 {
			VADDPS(acc[i+n/2], acc[i], acc[i])
		}
	}
	return isa.reduced(acc[0], VADDPS, func(o ...Op) { VADDSS(o...) })
}
