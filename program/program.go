// Package program writes a training step down before it runs.
//
// A model is not executed layer by layer. Its forward pass is written once, as
// a flat list of large operations ([kernels.Op]) on named values; Backward
// appends the gradient operations by one rule per kind; Plan gives every value
// its place in one arena, where values that are never alive together share
// memory; and a backend runs the list, step after step, with nothing left to
// decide but the number of tokens.
//
//	params := program.NewParameters(kernels.F32)
//	p := program.New(kernels.F32, kernels.F32)
//	tokens := p.Input("tokens", program.Tokens)
//	x := p.Embed(tokens, p.Constant(table), 1)
//	y := p.Linear(x, w, nil)
//	…
//	p.Backward()
//	plan := p.Plan(program.Counts{Tokens: 2048, …})
//
// Sizes: the rows of a value are a fixed number, or one of the counts that
// change from step to step (tokens, loss rows, sequences). Plan lays values out
// for the largest counts, Bind sets the counts of the step at hand. Sequences
// lie end to end, so nothing is padded.
//
// Misuse (shapes that do not fit, a value of another program) is a
// programmer's error and panics with the operation's name.
package program

import (
	"fmt"

	"graft/kernels"
)

// Count names the number of rows that a value has.
type Count uint8

// Fixed values always have the same rows; the others have one row for each
// token, each loss row, or each sequence bound (sequences + 1).
const (
	Fixed Count = iota
	Tokens
	LossRows
	Bounds
)

// Counts is the size of one step.
type Counts struct {
	Tokens    int
	LossRows  int
	Sequences int
}

func (c Counts) rows(n Count, fixed int) int {
	switch n {
	case Tokens:
		return c.Tokens
	case LossRows:
		return c.LossRows
	case Bounds:
		return c.Sequences + 1
	}
	return fixed
}

// Value is a matrix that operations read and write. Its embedded tensor gets
// memory from Plan and rows from Bind.
type Value struct {
	kernels.Tensor
	count Count
	fixed int // rows of a Fixed value

	root       *Value // the value that this one is a column slice of, or itself
	col        int    // first column in root
	producer   int    // index of the operation that writes it, -1 for none
	param      bool   // trainable: memory and gradient belong to Parameters
	grad       *Value // of a trainable parameter
	needsGrad  bool
	recomputed bool // not kept for the backward pass: computed again there
}

// T returns the tensor, as operations hold it.
func (v *Value) T() *kernels.Tensor {
	if v == nil {
		return nil
	}
	return &v.Tensor
}

// Slice returns the n columns of v from col on, without copying.
func (p *Program) Slice(v *Value, col, n int) *Value {
	if col < 0 || n <= 0 || n > v.Cols-col {
		panic(fmt.Sprintf("program: slice [%d:%d] of %v", col, col+n, v))
	}
	if col == 0 && n == v.Cols {
		return v
	}
	s := *v
	s.Cols, s.col = n, v.col+col
	s.Name = fmt.Sprintf("%s[%d:%d]", v.Name, col, col+n)
	return p.register(&s)
}

// Pass is the part of a step that an operation belongs to.
type Pass string

// The passes. Recompute operations repeat forward ones during the backward
// pass instead of keeping their results.
const (
	Forward   Pass = "forward"
	Recompute Pass = "recompute"
	Backward  Pass = "backward"
	Optimizer Pass = "optimizer"
)

// Label says where an operation comes from.
type Label struct {
	Module string // "model.layers.3.mlp.up_proj"; the first of several that share an operation
	Layer  int    // -1 outside the layers
	Pass   Pass
}

// Program is a list of operations and the values that they work on.
type Program struct {
	Ops    []kernels.Op
	Labels []Label // one for each of Ops

	// Apart is how many operations there must be between the last use of a value
	// and another's use of its memory, as a backend asks for.
	Apart int

	activation, statistic kernels.DType

	values []*Value
	of     map[*kernels.Tensor]*Value
	inputs []*Value
	here   Label
	block  bool                 // operations now belong to a recomputed block
	again  map[*Value]*Value    // values computed again for the backward pass
	sums   map[*Value]*gradient // gradients under construction, by root
	later  map[*Value][]waiting // gradients of weights that wait for a value to be made again
	kept   map[*Value]bool      // values that are read after the program has run
}

// New returns an empty program for a backend with such types of activations and
// of statistics (norms' 1/rms, attention's log-sum-exp, losses, angles).
func New(activation, statistic kernels.DType) *Program {
	return &Program{
		activation: activation, statistic: statistic,
		of:    map[*kernels.Tensor]*Value{},
		here:  Label{Layer: -1, Pass: Forward},
		again: map[*Value]*Value{},
		sums:  map[*Value]*gradient{},
		later: map[*Value][]waiting{},
		kept:  map[*Value]bool{},
	}
}

func (p *Program) register(v *Value) *Value {
	if v.root == nil {
		v.root = v
	}
	p.values = append(p.values, v)
	p.of[&v.Tensor] = v
	return v
}

// At labels the operations that follow.
func (p *Program) At(layer int, module string) {
	p.here.Layer, p.here.Module = layer, module
}

// Block starts a block whose values are not kept for the backward pass but
// computed again there, or ends it.
func (p *Program) Block(recompute bool) { p.block = recompute }

// Input returns a column of int32 that the caller fills before each step.
func (p *Program) Input(name string, count Count) *Value {
	v := p.register(&Value{Tensor: kernels.Tensor{Name: name, DType: kernels.I32, Cols: 1, Stride: 1}, count: count, producer: -1})
	p.inputs = append(p.inputs, v)
	return v
}

// Constant returns a value for a tensor that never changes, such as a frozen
// weight.
func (p *Program) Constant(t kernels.Tensor) *Value {
	return p.register(&Value{Tensor: t, fixed: t.Rows, producer: -1})
}

// Use lets the program work on a trainable parameter.
func (p *Program) Use(param *Value) *Value {
	p.of[&param.Tensor] = param
	p.of[&param.grad.Tensor] = param.grad
	return param
}

// Keep makes v readable after the program has run.
func (p *Program) Keep(v *Value) { p.kept[v.root] = true }

// result returns a new activation with as many rows as like has.
func (p *Program) result(name string, like *Value, cols int) *Value {
	return p.written(name, p.activation, like, cols)
}

// summary returns a new statistic, one row for each of like.
func (p *Program) summary(name string, like *Value, cols int) *Value {
	return p.written(name, p.statistic, like, cols)
}

func (p *Program) written(name string, d kernels.DType, like *Value, cols int) *Value {
	return p.register(&Value{
		Tensor: kernels.Tensor{Name: name, DType: d, Rows: like.Rows, Cols: cols, Stride: cols},
		count:  like.count, fixed: like.fixed, producer: len(p.Ops), recomputed: p.block,
	})
}

// emit appends an operation; what it writes needs a gradient if anything that
// it reads does.
func (p *Program) emit(op kernels.Op) {
	needs := false
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		v := p.value(*t)
		if a == kernels.Read {
			needs = needs || v.needsGrad
		} else if !v.param {
			v.needsGrad = needs
		}
	})
	p.Ops = append(p.Ops, op)
	p.Labels = append(p.Labels, p.here)
}

func (p *Program) value(t *kernels.Tensor) *Value {
	v := p.of[t]
	if v == nil {
		panic(fmt.Sprintf("program: %v is not a value of this program", t))
	}
	return v
}

// Step is what changes from one run of a program to the next.
type Step struct {
	Tokens, LossRows int
	Bounds           []int32 // where the sequences start, and where the last one ends
	Number           uint64  // of the optimizer step, for dropout
	// Tokens and loss rows of the same optimizer step that ran before, for
	// dropout: its masks do not depend on how a step is split.
	TokensBefore, LossRowsBefore int
}

// Bind sets the sizes of all values for the step at hand.
func (p *Program) Bind(s Step) {
	c := Counts{Tokens: s.Tokens, LossRows: s.LossRows, Sequences: len(s.Bounds) - 1}
	for _, v := range p.values {
		v.Rows = c.rows(v.count, v.fixed)
	}
	for _, op := range p.Ops {
		switch op := op.(type) {
		case *kernels.Attention:
			op.Pairs = pairs(s.Bounds, op.Window)
		case *kernels.AttentionGrad:
			op.Pairs = pairs(s.Bounds, op.Window)
		case *kernels.Dropout:
			op.Step, op.Row = s.Number, s.TokensBefore
			if p.value(op.X).count == LossRows {
				op.Row = s.LossRowsBefore
			}
		}
	}
}

// pairs counts the (query, key) pairs of causal attention.
func pairs(bounds []int32, window int) float64 {
	var sum float64
	for i := 1; i < len(bounds); i++ {
		n := float64(bounds[i] - bounds[i-1])
		sum += n * (n + 1) / 2
		if over := n - float64(window); window > 0 && over > 0 {
			sum -= over * (over + 1) / 2
		}
	}
	return sum
}
