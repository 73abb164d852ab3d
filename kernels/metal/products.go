package metal

import (
	"fmt"

	"graft/kernels"
)

// What one launch of the products kernel takes, as products.metal declares it.
const (
	maxOutputs = 8
	maxTerms   = 8
	maxInputs  = 18
)

// sum is one output of a launch: a Product, or a WeightGrad, which is a product
// of two activations stored across.
type sum struct {
	out, add, bias *kernels.Tensor
	terms          []factor
}

type factor struct {
	x, w             *kernels.Tensor
	xAcross, wAcross bool
	depth            int
	scale            float64
}

// sumOf returns what an operation computes; ok is false for other kinds.
func sumOf(op kernels.Op) (s sum, ok bool) {
	switch o := op.(type) {
	case *kernels.Product:
		s = sum{out: o.Out, add: o.Add, bias: o.Bias}
		for _, t := range o.Terms {
			s.terms = append(s.terms, factor{t.X, t.W, false, t.Transposed, t.X.Cols, t.Scale})
		}
		return s, true
	case *kernels.WeightGrad:
		return sum{out: o.DW, add: o.DW, terms: []factor{{o.DY, o.X, true, true, o.DY.Rows, o.Scale}}}, true
	}
	return sum{}, false
}

// side returns the side of the tiles that an output is cut into. Thin outputs
// and small ones get small tiles: more threadgroups, less padding.
func (s *sum) side() int {
	if s.out.Rows <= 32 || s.out.Cols <= 32 || s.out.Len() < 256*256 {
		return 32
	}
	return 64
}

// inputs bounds the inputs that the launch must bind.
func (s *sum) inputs() int {
	n := 2 * len(s.terms)
	if s.bias != nil {
		n++
	}
	if s.add != nil && !sameMemory(s.add, s.out) {
		n++
	}
	return n
}

func sameMemory(a, b *kernels.Tensor) bool {
	return a.Buf == b.Buf && a.Off == b.Off && a.Stride == b.Stride && a.DType == b.DType
}

// canJoin reports whether op can be an output of the launch of list.
func canJoinProducts(list []kernels.Op, op kernels.Op) bool {
	s, ok := sumOf(op)
	if !ok || len(list) >= maxOutputs {
		return false
	}
	terms, inputs := len(s.terms), s.inputs()
	all := []sum{s}
	for _, other := range list {
		o, ok := sumOf(other)
		if !ok {
			return false
		}
		all = append(all, o)
		terms += len(o.terms)
		inputs += o.inputs()
	}
	return terms <= maxTerms && inputs <= maxInputs && commonSide(all) > 0
}

// littleWork is how many multiply-adds of 64 × 64 elements take about as long as a
// launch.
const littleWork = 4096

// commonSide returns the side of tiles that outputs share: their own, or the
// large one where that wastes little beside the work of the others, or the
// small one where there is little work at all. It is 0 where they had better not
// share a launch.
func commonSide(list []sum) int {
	large, waste := 0, 0 // multiply-adds of 64 × 64; those of small outputs beyond what small tiles take
	for i := range list {
		s := &list[i]
		depth := 0
		for _, f := range s.terms {
			depth += f.depth
		}
		work := 4 * blocks(s.out.Rows, 64) * blocks(s.out.Cols, 64) * depth
		if s.side() == 64 {
			large += work / 4
		} else {
			waste += (work - blocks(s.out.Rows, 32)*blocks(s.out.Cols, 32)*depth) / 4
		}
	}
	switch {
	case large == 0:
		return 32
	case waste <= large/2:
		return 64
	case large <= littleWork:
		return 32
	}
	return 0
}

// products encodes independent products in one launch, or in as many as it takes
// where they were not chosen to fit. Terms that one launch cannot take are added
// by the next.
func (e *encoder) products(ops []kernels.Op) {
	var all []sum
	for _, op := range ops {
		s, ok := sumOf(op)
		if !ok {
			panic(fmt.Sprintf("metal: %s is no product", op.Kind()))
		}
		if s.out.Len() > 0 {
			all = append(all, s)
		}
	}
	if side := commonSide(all); side > 0 {
		e.sums(all, side)
		return
	}
	for _, side := range []int{32, 64} {
		var same []sum
		for _, s := range all {
			if s.side() == side {
				same = append(same, s)
			}
		}
		e.sums(same, side)
	}
}

// sums encodes outputs with tiles of one size.
func (e *encoder) sums(list []sum, side int) {
	var l productLaunch
	for _, s := range list {
		for len(s.terms) > maxTerms {
			first := s
			first.terms, s.terms = s.terms[:maxTerms], s.terms[maxTerms:]
			s.add, s.bias = s.out, nil
			l.add(e, side, first)
			l.flush(e, side) // the rest adds to what this writes
		}
		l.add(e, side, s)
	}
	l.flush(e, side)
}

// productLaunch collects the outputs of one launch.
type productLaunch struct {
	params  productsParams
	inputs  []*kernels.Tensor
	outputs []*kernels.Tensor
	terms   int
	tiles   int
}

func (l *productLaunch) add(e *encoder, side int, s sum) {
	if len(l.outputs) == maxOutputs || l.terms+len(s.terms) > maxTerms || len(l.inputs)+s.inputs() > maxInputs {
		l.flush(e, side)
	}
	o := &l.params.output[len(l.outputs)]
	across := blocks(s.out.Cols, side)
	*o = productOutput{
		rows: u(s.out.Rows), cols: u(s.out.Cols), firstTile: u(l.tiles), tilesAcross: u(across),
		firstTerm: u(l.terms), terms: u(len(s.terms)), outType: weightType(s.out.DType), outStride: u(s.out.Stride),
	}
	if s.add != nil {
		o.add, o.addType, o.addStride = 1, weightType(s.add.DType), u(s.add.Stride)
		if !sameMemory(s.add, s.out) {
			o.add = 2 + l.input(s.add)
		}
	}
	if s.bias != nil {
		o.bias, o.biasType = 1+l.input(s.bias), weightType(s.bias.DType)
	}
	for i, f := range s.terms {
		l.params.term[l.terms+i] = productTerm{
			x: l.input(f.x), w: l.input(f.w), xType: weightType(f.x.DType), wType: weightType(f.w.DType),
			xStride: u(f.x.Stride), wStride: u(f.w.Stride), depth: u(f.depth), xAcross: flag(f.xAcross), wAcross: flag(f.wAcross),
			xAligned: flag(aligned16(f.x)), wAligned: flag(aligned16(f.w)), scale: float32(f.scale),
		}
	}
	l.outputs = append(l.outputs, s.out)
	l.terms += len(s.terms)
	l.tiles += across * blocks(s.out.Rows, side)
}

// input returns the number of an input, the same for the same tensor.
func (l *productLaunch) input(t *kernels.Tensor) uint32 {
	for i, have := range l.inputs {
		if sameMemory(have, t) && have.Rows == t.Rows && have.Cols == t.Cols {
			return uint32(i)
		}
	}
	l.inputs = append(l.inputs, t)
	return uint32(len(l.inputs) - 1)
}

func (l *productLaunch) flush(e *encoder, side int) {
	if len(l.outputs) > 0 {
		buffers := make([]Binding, maxInputs+maxOutputs)
		for i, t := range l.inputs {
			buffers[i] = bind(t)
		}
		for i, t := range l.outputs {
			buffers[maxInputs+i] = bind(t)
		}
		l.params.outputs = u(len(l.outputs))
		launch(e, e.typed(fmt.Sprintf("products_%d", side)), grid(l.tiles, 1, 1), 128, &l.params, buffers...)
	}
	*l = productLaunch{}
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// aligned16 reports whether every row starts at a multiple of 16 bytes.
func aligned16(t *kernels.Tensor) bool {
	if t.DType.Quantised() || t.Len() == 0 {
		return false
	}
	return (bind(t).Memory.Skew()+t.Off)%16 == 0 && t.DType.Bytes(t.Stride)%16 == 0
}
