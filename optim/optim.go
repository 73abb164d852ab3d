// Package optim turns gradients into updates: the learning rate's schedule,
// clipping by the global norm, and AdamW, as operations over flat buffers.
package optim

import (
	"fmt"
	"math"

	"graft/kernels"
	"graft/program"
)

// Shape is the course of the learning rate after warmup.
type Shape string

// The shapes. Linear and Cosine fall to the floor, where they would be one step
// after the last, as in Hugging Face's schedules.
const (
	Constant Shape = "constant"
	Linear   Shape = "linear"
	Cosine   Shape = "cosine"
)

// Schedule is the learning rate over a run. It rises linearly over Warmup
// steps, reaching LR at the last of them, and then follows Shape down towards Min.
type Schedule struct {
	Shape  Shape
	LR     float64
	Min    float64 // the floor of Linear and Cosine
	Warmup int     // steps
	Steps  int     // of the whole run
}

// At returns the learning rate of a step, counted from 1.
func (s Schedule) At(step int) float64 {
	if step <= s.Warmup {
		return s.LR * float64(step) / float64(s.Warmup)
	}
	progress := min(1, float64(step-1-s.Warmup)/float64(max(1, s.Steps-s.Warmup)))
	switch s.Shape {
	case Constant:
		return s.LR
	case Linear:
		return s.Min + (s.LR-s.Min)*(1-progress)
	case Cosine:
		return s.Min + (s.LR-s.Min)*(1+math.Cos(math.Pi*progress))/2
	}
	panic(fmt.Sprintf("optim: no schedule %q", s.Shape))
}

// AdamW holds the settings of the optimizer.
type AdamW struct {
	Beta1, Beta2, Eps float64
	WeightDecay       float64
	Clip              float64 // largest global norm of the gradient; 0: any
}

// Update is the list of operations that ends an optimizer step.
type Update struct {
	Ops    []kernels.Op
	Labels []program.Label

	clip  *kernels.ClipNorm
	adamw []*kernels.AdamW
}

// NewUpdate writes the update of all parameters: clip, AdamW, and clearing the
// gradients for the next step.
func NewUpdate(b kernels.Backend, ps *program.Parameters, a AdamW) (*Update, error) {
	float := b.Info().Float
	buf, err := b.Alloc(2 * float.Size())
	if err != nil {
		return nil, err
	}
	factor := &kernels.Tensor{Name: "gradient norm", DType: float, Rows: 1, Cols: 2, Stride: 2, Buf: buf}
	all := ps.All()
	u := &Update{clip: &kernels.ClipNorm{Grad: all.Grad, Out: factor, Max: a.Clip}}
	u.add(u.clip, "clip")
	for _, g := range ps.Groups() {
		op := &kernels.AdamW{Grad: g.Grad, Clip: factor, P: g.Value, M: g.M, V: g.V, Beta1: a.Beta1, Beta2: a.Beta2, Eps: a.Eps}
		if g.Decay {
			op.WeightDecay = a.WeightDecay
		}
		u.adamw = append(u.adamw, op)
		u.add(op, "adamw")
	}
	u.add(&kernels.Zero{Out: all.Grad}, "zero gradients")
	return u, nil
}

func (u *Update) add(op kernels.Op, module string) {
	u.Ops = append(u.Ops, op)
	u.Labels = append(u.Labels, program.Label{Module: module, Layer: -1, Pass: program.Optimizer})
}

// Set prepares the update of a step, counted from 1, whose gradient is a sum
// over tokens trained tokens.
func (u *Update) Set(step, tokens int, lr float64) {
	u.clip.Divisor = float64(tokens)
	for _, op := range u.adamw {
		op.Step, op.LR = step, lr
	}
}

// Norm returns the global norm of the last step's mean gradient, before
// clipping.
func (u *Update) Norm() float64 { return u.clip.Out.Float64s()[0] }
