package main

import (
	"maps"
	"math"
	"slices"
)

// lanes are some vectors of four numbers that are worked on abreast; a single
// one serves beside any number of others. Operations make new vectors, but for
// those that add to the receiver.
type lanes []*vec

func (x lanes) at(i int) *vec {
	if len(x) == 1 {
		return x[0]
	}
	return x[i]
}

func (f *function) locals(n int) lanes {
	x := make(lanes, n)
	for i := range x {
		x[i] = f.local()
	}
	return x
}

func (x lanes) with(op instruction, y lanes) lanes {
	out := x[0].f.locals(max(len(x), len(y)))
	for i, d := range out {
		d.f.emit(op, d, x.at(i), y.at(i))
	}
	return out
}

func (x lanes) each(op instruction) lanes {
	out := x[0].f.locals(len(x))
	for i, d := range out {
		d.f.emit(op, d, x[i])
	}
	return out
}

func (x lanes) plus(y lanes) lanes    { return x.with(fadd, y) }
func (x lanes) minus(y lanes) lanes   { return x.with(fsub, y) }
func (x lanes) times(y lanes) lanes   { return x.with(fmul, y) }
func (x lanes) over(y lanes) lanes    { return x.with(fdiv, y) }
func (x lanes) atLeast(y lanes) lanes { return x.with(fmax, y) }
func (x lanes) atMost(y lanes) lanes  { return x.with(fmin, y) }

// addProduct adds a·b to x.
func (x lanes) addProduct(a, b lanes) lanes { return x.accumulate("VFMLA", a, b) }

// takeProduct takes a·b from x.
func (x lanes) takeProduct(a, b lanes) lanes { return x.accumulate("VFMLS", a, b) }

func (x lanes) accumulate(name string, a, b lanes) lanes {
	for i, d := range x {
		d.f.do(name+" %v.S4, %v.S4, %v.S4", b.at(i), a.at(i), d)
	}
	return x
}

// update sets x to x op y.
func (x lanes) update(op instruction, y lanes) {
	for i, d := range x {
		d.f.emit(op, d, d, y.at(i))
	}
}

// copyTo copies a single vector.
func (x lanes) copyTo(v *vec) *vec {
	v.f.do("VMOV %v.B16, %v.B16", x[0], v)
	return v
}

// copied returns n copies of a single vector.
func (x lanes) copied(n int) lanes {
	out := x[0].f.locals(n)
	for _, v := range out {
		x.copyTo(v)
	}
	return out
}

// copies returns n registers that hold a constant.
func (f *function) copies(n int, x float64) lanes {
	out := f.locals(n)
	f.usesTable = true
	for _, v := range out {
		f.do("FMOVQ %d(%s), %s", f.a.word(math.Float32bits(float32(x))), table, scalar{v})
	}
	return out
}

// polynomial returns Σ c[i]·x^(n-1-i), starting from a vector or a constant.
func (x lanes) polynomial(first float64, rest ...float64) lanes {
	return x[0].f.copies(len(x), first).horner(x, rest...)
}

// horner goes on with the polynomial p in x.
func (p lanes) horner(x lanes, constants ...float64) lanes {
	for _, c := range constants {
		p = x[0].f.copies(len(x), c).addProduct(p, x)
	}
	return p
}

// choose returns x where mask is set, else y. It spends the mask.
func (mask lanes) choose(x, y lanes) lanes {
	for i, m := range mask {
		m.f.do("VBSL %v.B16, %v.B16, %v.B16", y.at(i), x.at(i), m)
	}
	return mask
}

// scalar returns a parameter in all elements of a vector.
func (f *function) scalar(name string) lanes {
	v := f.pin()
	f.do("FMOVS %s, %s", f.place(name), scalar{v})
	f.do("VDUP %v.S[0], %v.S4", v, v)
	return lanes{v}
}

// zeros returns n pinned registers of zeros.
func (f *function) zeros(n int) lanes {
	var out lanes
	for range n {
		v := f.pin()
		f.do("VEOR %v.B16, %v.B16, %v.B16", v, v, v)
		out = append(out, v)
	}
	return out
}

// fold makes one vector of all, a power of two: the first.
func (x lanes) fold(op instruction) {
	for n := len(x) / 2; n > 0; n /= 2 {
		x[:n].update(op, x[n:2*n])
	}
}

// returnSum adds up vectors, and their elements in the order of the AVX2 kernels,
// and returns it as the function's result. It spends acc.
func (f *function) returnSum(acc lanes) {
	acc.fold(fadd)
	upper := f.local()
	f.do("VEXT $8, %v.B16, %v.B16, %v.B16", acc[0], acc[0], upper)
	lanes{upper}.update(fadd, acc)
	f.emit(faddp, upper, upper)
	f.do("FMOVS %s, %s", scalar{upper}, f.place("ret"))
}

// step is what a loop's body sees: some vectors of each slice, or one element.
type step struct {
	f       *function
	slices  map[string]slice
	count   int
	element bool
}

// slice is one that a loop goes over.
type slice struct {
	at reg
	stored
}

// kernel is a function that goes over slices of float32.
func (a *assembly) kernel(name, signature, doc string, slices ...string) (*function, map[string]slice, reg) {
	f := a.function(name, signature, doc)
	m := map[string]slice{}
	for _, s := range slices {
		m[s] = slice{f.load(s + "_base"), f32}
	}
	return f, m, f.load(slices[0] + "_len")
}

// load returns the vectors of a slice in this step. A single element stands in
// all places of its vector.
func (s *step) load(name string) lanes {
	x, f := s.slices[name], s.f
	if s.element {
		v := f.local()
		f.do("VLD1R (%s), [%v.%s]", x.at, v, x.lane)
		return lanes{x.first(v)}
	}
	return x.loadAt(f, x.at, s.count)
}

func (s *step) store(name string, x lanes) {
	at := s.slices[name].at
	if s.element {
		s.f.do("FMOVS %s, (%s)", scalar{x[0]}, at)
		return
	}
	for i, v := range x {
		s.f.do("FMOVQ %s, %d(%s)", scalar{v}, 16*i, at)
	}
}

// only returns x for a sum: of a single element's copies, one.
func (s *step) only(x lanes) lanes {
	if !s.element {
		return x
	}
	v := s.f.local()
	s.f.do("FMOVS %s, %s", scalar{x[0]}, scalar{v})
	return lanes{v}
}

// abreast goes over n elements of slices: count vectors at a time, which the
// body may interleave, then one at a time, then single elements.
func abreast(f *function, over map[string]slice, n reg, count int, body func(s *step)) {
	loop := func(name, next string, elements int, s step) {
		f.label(name)
		f.do("CMP $%d, %s", elements, n)
		f.do("BLT %s", next)
		s.f, s.slices = f, over
		body(&s)
		for _, name := range slices.Sorted(maps.Keys(over)) {
			f.do("ADD $%d, %s", elements*over[name].size, over[name].at)
		}
		f.do("SUB $%d, %s", elements, n)
		f.do("B %s", name)
	}
	if count > 1 {
		loop("unrolled", "single", 4*count, step{count: count})
	}
	loop("single", "rest", 4, step{count: 1})
	loop("rest", "done", 1, step{count: 1, element: true})
	f.label("done")
}

// stored is a type of weights in memory.
type stored struct {
	name     string
	size     int
	lane     string      // arrangement of a broadcast load
	low, top instruction // widen the lower and the upper half of a vector
}

var (
	f32  = stored{name: "F32", size: 4, lane: "S4"}
	f16  = stored{"F16", 2, "H4", fcvtl, fcvtl2}
	bf16 = stored{"BF16", 2, "H4", shll, shll2}
)

// first returns what was loaded into v as float32, its lower half if narrow.
func (t stored) first(v *vec) *vec {
	if t.size == 4 {
		return v
	}
	return lanes{v}.each(t.low)[0]
}

// loadAt returns count vectors of four elements from an address on.
func (t stored) loadAt(f *function, at reg, count int) (out lanes) {
	if t.size == 4 {
		for i := range count {
			v := f.local()
			f.do("FMOVQ %d(%s), %s", 16*i, at, scalar{v})
			out = append(out, v)
		}
		return out
	}
	if count == 1 {
		v := f.local()
		f.do("FMOVD (%s), %s", at, scalar{v})
		return lanes{t.first(v)}
	}
	for i := range count / 2 {
		v := f.local()
		f.do("FMOVQ %d(%s), %s", 16*i, at, scalar{v})
		out = append(out, lanes{v}.each(t.low)[0], lanes{v}.each(t.top)[0])
	}
	return out
}
