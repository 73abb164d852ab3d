// Package reference is the oracle: every operation of package kernels in
// float64, as plain loops that follow the formula in its documentation. It is
// what other backends are compared with, and a backend itself, to train with
// when exactness matters more than time.
package reference

import (
	"fmt"
	"time"

	"graft/kernels"
)

// Backend runs operations one after the other on the calling goroutine.
type Backend struct {
	memory []kernels.Host
}

// New returns a backend.
func New() *Backend { return &Backend{} }

// Info implements kernels.Backend.
func (b *Backend) Info() kernels.Info {
	return kernels.Info{Name: "reference", Detail: "float64, one thread", Arithmetic: "float64", Float: kernels.F64, Threads: 1}
}

// Alloc implements kernels.Backend.
func (b *Backend) Alloc(n int) (kernels.Buffer, error) {
	h, err := kernels.AllocHost(n)
	if err != nil {
		return nil, err
	}
	b.memory = append(b.memory, h)
	return h, nil
}

// Wrap implements kernels.Backend: the bytes are read where they are.
func (b *Backend) Wrap(data []byte) (kernels.Buffer, error) { return kernels.Host(data), nil }

// Scratch implements kernels.Backend.
func (b *Backend) Scratch(ops []kernels.Op) int {
	n := 0
	for _, op := range ops {
		op.Operands(func(t **kernels.Tensor, _ kernels.Access) { n = max(n, 8*(*t).Len()) })
	}
	return n
}

// Run implements kernels.Backend.
func (b *Backend) Run(ops []kernels.Op, clock kernels.Clock) error {
	for i, op := range ops {
		began := time.Now()
		run(op)
		if clock != nil {
			clock(i, time.Since(began))
		}
	}
	return nil
}

// Close implements kernels.Backend.
func (b *Backend) Close() error {
	for _, h := range b.memory {
		kernels.FreeHost(h)
	}
	b.memory = nil
	return nil
}

func run(op kernels.Op) {
	kernels.Check(op)
	switch op := op.(type) {
	case *kernels.Embed:
		embed(op)
	case *kernels.EmbedGrad:
		embedGrad(op)
	case *kernels.RMSNorm:
		rmsNorm(op)
	case *kernels.RMSNormGrad:
		rmsNormGrad(op)
	case *kernels.Product:
		product(op)
	case *kernels.WeightGrad:
		weightGrad(op)
	case *kernels.BiasGrad:
		biasGrad(op)
	case *kernels.RotaryTable:
		rotaryTable(op)
	case *kernels.Rotary:
		rotary(op)
	case *kernels.Attention:
		attention(op)
	case *kernels.AttentionGrad:
		attentionGrad(op)
	case *kernels.Softmax:
		softmax(op)
	case *kernels.SoftmaxGrad:
		softmaxGrad(op)
	case *kernels.Gated:
		gated(op)
	case *kernels.GatedGrad:
		gatedGrad(op)
	case *kernels.Gather:
		gather(op)
	case *kernels.Scatter:
		scatter(op)
	case *kernels.CrossEntropy:
		crossEntropy(op)
	case *kernels.Sum:
		sum(op)
	case *kernels.Dropout:
		dropout(op)
	case *kernels.Zero:
		zero(op)
	case *kernels.ClipNorm:
		clipNorm(op)
	case *kernels.AdamW:
		adamW(op)
	default:
		panic(fmt.Sprintf("reference: no operation %s", op.Kind()))
	}
}

// matrix is a view of a tensor of float64.
type matrix struct {
	v            []float64
	stride, cols int
}

func at(t *kernels.Tensor) matrix {
	return matrix{kernels.View[float64](t), t.Stride, t.Cols}
}

func (m matrix) row(i int) []float64 { return m.v[i*m.stride:][:m.cols] }

// decoded returns a copy of a tensor of any floating type, as float64.
func decoded(t *kernels.Tensor) matrix { return matrix{t.Float64s(), t.Cols, t.Cols} }

func indices(t *kernels.Tensor) []int32 { return kernels.View[int32](t) }

func dot(a, b []float64) float64 {
	var s float64
	for i, x := range a {
		s += x * b[i]
	}
	return s
}

// axpy adds s·x to y.
func axpy(s float64, x, y []float64) {
	for i, v := range x {
		y[i] += s * v
	}
}
