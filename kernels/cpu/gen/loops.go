package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// vector is what a kernel's body sees of one step: eight elements of each
// slice, or in the last step the rest of them.
type vector struct {
	slices map[string]Register
	index  Register   // bytes
	mask   VecVirtual // words that exist; nil for a whole vector
	offset int        // bytes, of an unrolled step
	step   int        // of the unrolled ones
}

func (s *vector) mem(name string) Mem {
	return Mem{Base: s.slices[name], Index: s.index, Scale: 1, Disp: s.offset}
}

// load returns eight elements of a slice, 0 for those beyond its end.
func (s *vector) load(name string) VecVirtual {
	v := YMM()
	if s.mask == nil {
		VMOVUPS(s.mem(name), v)
	} else {
		VMASKMOVPS(s.mem(name), s.mask, v)
	}
	return v
}

func (s *vector) store(v VecVirtual, name string) {
	if s.mask == nil {
		VMOVUPS(v, s.mem(name))
	} else {
		VMASKMOVPS(v, s.mask, s.mem(name))
	}
}

// only clears the elements beyond the end.
func (s *vector) only(v VecVirtual) {
	if s.mask != nil {
		VANDPS(s.mask, v, v)
	}
}

// kernel declares a function and leaves its slices in registers; the first
// one's length counts.
func kernel(name, signature, doc string, slices ...string) (map[string]Register, Register) {
	TEXT(name, NOSPLIT|NOFRAME, signature)
	Doc(doc)
	r := map[string]Register{}
	for _, s := range slices {
		r[s] = Load(Param(s).Base(), GP64())
	}
	return r, Load(Param(slices[0]).Len(), GP64())
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
	i := GP64()
	XORQ(i, i)
	var group []*vector
	for u := range count {
		group = append(group, &vector{slices: slices, index: i, offset: 32 * u, step: u})
	}
	if count > 1 {
		Label("unrolled")
		CMPQ(n, U32(uint32(8*count)))
		JL(LabelRef("single"))
		body(group)
		ADDQ(U32(uint32(32*count)), i)
		SUBQ(U32(uint32(8*count)), n)
		JMP(LabelRef("unrolled"))
	}
	Label("single")
	CMPQ(n, Imm(8))
	JL(LabelRef("rest"))
	body(group[:1])
	ADDQ(Imm(32), i)
	SUBQ(Imm(8), n)
	JMP(LabelRef("single"))
	Label("rest")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	body([]*vector{{slices: slices, index: i, mask: tailMask(n)}})
	Label("done")
}

// vectors are some eights of numbers that are worked on abreast.
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
		out[i] = YMM()
	}
	return out
}

// set returns registers that hold m.
func (x vectors) set(m Mem) vectors {
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

// tailMask returns a mask of the first n < 8 words; it spends n.
func tailMask(n Register) VecVirtual {
	table, mask := GP64(), YMM()
	LEAQ(masks(), table)
	NEGQ(n)
	VMOVUPS(Mem{Base: table, Index: n, Scale: 4, Disp: 32}, mask)
	return mask
}

// scalar returns a parameter in all elements of a vector.
func scalar(name string) VecVirtual {
	v := YMM()
	broadcast(name, v)
	return v
}

// broadcast puts a parameter into all elements of a vector.
func broadcast(name string, v VecVirtual) {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(a.Addr, v)
}

func zeroed() VecVirtual {
	v := YMM()
	VXORPS(v, v, v)
	return v
}

// sumInto adds up vectors, and their elements, and returns the sum.
func sumInto(acc []VecVirtual) Register {
	for n := len(acc); n > 1; n /= 2 {
		for i := range n / 2 {
			VADDPS(acc[i+n/2], acc[i], acc[i])
		}
	}
	hi := XMM()
	VEXTRACTF128(Imm(1), acc[0], hi)
	lo := acc[0].AsX()
	VADDPS(hi, lo, lo)
	VMOVHLPS(lo, lo, hi)
	VADDPS(hi, lo, lo)
	VMOVSHDUP(lo, hi)
	VADDSS(hi, lo, lo)
	return lo
}

func end() {
	VZEROUPPER()
	RET()
}
