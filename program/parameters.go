package program

import (
	"fmt"

	"graft/kernels"
)

// Parameters holds everything that is trained, in four flat buffers of equal
// layout: the values, their gradients, and the optimizer's two moments. So the
// norm and the update are one operation each, whatever the model.
type Parameters struct {
	float   kernels.DType
	list    []*Parameter
	stacks  []stack
	bufs    []kernels.Buffer
	decayed int // elements that weight decay applies to; they come first
	total   int
}

// Parameter is one trainable matrix.
type Parameter struct {
	Name       string
	Rows, Cols int
	Value      *Value // [Rows, Cols]; Value.Gradient is its gradient
	M, V       kernels.Tensor
	decay      bool
	offset     int // elements from the start of the flat buffers
}

type stack struct {
	value *Value
	parts []*Parameter
}

// Gradient returns the gradient of a trainable parameter, which training
// programs add to.
func (v *Value) Gradient() *Value { return v.grad }

// NewParameters returns an empty set whose elements have type float.
func NewParameters(float kernels.DType) *Parameters { return &Parameters{float: float} }

// Add declares a trainable matrix. Weight decay applies to it if decay is set.
// It has memory after Allocate.
func (ps *Parameters) Add(name string, rows, cols int, decay bool) *Parameter {
	q := &Parameter{Name: name, Rows: rows, Cols: cols, decay: decay, Value: ps.value(name, rows, cols)}
	ps.list = append(ps.list, q)
	return q
}

// Stack returns one value for parameters with equal columns that were added
// one after the other: their rows, in that order.
func (ps *Parameters) Stack(name string, parts []*Parameter) *Value {
	if len(parts) == 1 {
		return parts[0].Value
	}
	rows := 0
	for _, q := range parts {
		rows += q.Rows
	}
	s := stack{ps.value(name, rows, parts[0].Cols), parts}
	ps.stacks = append(ps.stacks, s)
	return s.value
}

func (ps *Parameters) value(name string, rows, cols int) *Value {
	mk := func(name string) *Value {
		v := &Value{
			Tensor: kernels.Tensor{Name: name, DType: ps.float, Rows: rows, Cols: cols, Stride: cols},
			fixed:  rows, producer: -1, param: true, needsGrad: true,
		}
		v.root = v
		return v
	}
	v := mk(name)
	v.grad = mk("d " + name)
	return v
}

// List returns the parameters in the order in which they were added.
func (ps *Parameters) List() []*Parameter { return ps.list }

// Len returns the number of trainable elements.
func (ps *Parameters) Len() int {
	n := 0
	for _, q := range ps.list {
		n += q.Rows * q.Cols
	}
	return n
}

// Bytes returns the memory of one of the four flat buffers.
func (ps *Parameters) Bytes() int { return ps.Len() * ps.float.Size() }

// Allocate gives all parameters memory, zeroed.
func (ps *Parameters) Allocate(b kernels.Backend) error {
	for _, decay := range []bool{true, false} {
		for _, q := range ps.list {
			if q.decay == decay {
				q.offset = ps.total
				ps.total += q.Rows * q.Cols
			}
		}
		if decay {
			ps.decayed = ps.total
		}
	}
	for range 4 {
		buf, err := b.Alloc(ps.Bytes())
		if err != nil {
			return fmt.Errorf("memory for %d trainable parameters: %w", ps.total, err)
		}
		ps.bufs = append(ps.bufs, buf)
	}
	for _, q := range ps.list {
		ps.place(q.Value, q.offset)
		q.M, q.V = ps.at(2, q), ps.at(3, q)
	}
	for _, s := range ps.stacks {
		next := s.parts[0].offset
		for _, q := range s.parts {
			if q.offset != next || q.Cols != s.value.Cols {
				panic(fmt.Sprintf("program: stack %s: %s does not follow the part before it", s.value.Name, q.Name))
			}
			next += q.Rows * q.Cols
		}
		ps.place(s.value, s.parts[0].offset)
	}
	return nil
}

func (ps *Parameters) place(v *Value, offset int) {
	v.Buf, v.Off = ps.bufs[0], offset*ps.float.Size()
	v.grad.Buf, v.grad.Off = ps.bufs[1], v.Off
}

func (ps *Parameters) at(buf int, q *Parameter) kernels.Tensor {
	return kernels.Tensor{Name: q.Name, DType: ps.float, Rows: q.Rows, Cols: q.Cols, Stride: q.Cols,
		Buf: ps.bufs[buf], Off: q.offset * ps.float.Size()}
}

// Flat is a stretch of the four flat buffers, each [1, n].
type Flat struct {
	Value, Grad, M, V *kernels.Tensor
	Decay             bool
}

// All returns the flat buffers whole.
func (ps *Parameters) All() Flat { return ps.flat(0, ps.total, false) }

// Groups returns the stretches with and without weight decay that are not
// empty.
func (ps *Parameters) Groups() []Flat {
	var out []Flat
	if ps.decayed > 0 {
		out = append(out, ps.flat(0, ps.decayed, true))
	}
	if ps.decayed < ps.total {
		out = append(out, ps.flat(ps.decayed, ps.total, false))
	}
	return out
}

func (ps *Parameters) flat(from, to int, decay bool) Flat {
	at := func(i int, name string) *kernels.Tensor {
		return &kernels.Tensor{Name: name, DType: ps.float, Rows: 1, Cols: to - from, Stride: to - from,
			Buf: ps.bufs[i], Off: from * ps.float.Size()}
	}
	return Flat{at(0, "parameters"), at(1, "gradients"), at(2, "first moments"), at(3, "second moments"), decay}
}
