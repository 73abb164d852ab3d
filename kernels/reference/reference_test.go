package reference_test

import (
	"math"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/kerneltest"
	"graft/kernels/reference"
)

func TestGradients(t *testing.T) {
	b := reference.New()
	defer b.Close()
	kerneltest.Gradients(t, b)
}

func row(t *testing.T, b *reference.Backend, v ...float64) *kernels.Tensor {
	t.Helper()
	buf, err := b.Alloc(8 * len(v))
	if err != nil {
		t.Fatal(err)
	}
	x := &kernels.Tensor{DType: kernels.F64, Rows: 1, Cols: len(v), Stride: len(v), Buf: buf}
	x.SetFloat64s(v)
	return x
}

// TestOptimizer compares with values computed by hand: the kernels of the
// optimizer have no gradient to check them with.
func TestOptimizer(t *testing.T) {
	b := reference.New()
	defer b.Close()
	grad, out := row(t, b, 6, 8), row(t, b, 0, 0)
	for _, c := range []struct{ max, factor float64 }{{0, 0.5}, {100, 0.5}, {1, 0.5 / (5 + 1e-6)}} {
		if err := b.Run([]kernels.Op{&kernels.ClipNorm{Grad: grad, Out: out, Divisor: 2, Max: c.max}}, nil); err != nil {
			t.Fatal(err)
		}
		if v := out.Float64s(); v[0] != 5 || math.Abs(v[1]-c.factor) > 1e-15 {
			t.Errorf("max %v: %v, want 5 and %v", c.max, v, c.factor)
		}
	}
	// The first step moves by LR·sign(g), after decay, whatever the gradient's
	// size.
	out.SetFloat64s([]float64{5, 0.5})
	p, m, v := row(t, b, 1, -2), row(t, b, 0, 0), row(t, b, 0, 0)
	op := &kernels.AdamW{Grad: grad, Clip: out, P: p, M: m, V: v, LR: 0.1, Beta1: 0.9, Beta2: 0.99, WeightDecay: 0.5, Step: 1}
	if err := b.Run([]kernels.Op{op}, nil); err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want []float64) {
		t.Helper()
		for i := range want {
			if math.Abs(got[i]-want[i]) > 1e-12 {
				t.Errorf("%s: %v, want %v", what, got, want)
			}
		}
	}
	near("parameters", p.Float64s(), []float64{1*0.95 - 0.1, -2*0.95 - 0.1})
	near("first moments", m.Float64s(), []float64{0.3, 0.4})
	near("second moments", v.Float64s(), []float64{0.09, 0.16})
	// A second step with the gradient reversed: m̂ = (0.9·0.1-0.1)·g/(1-0.81),
	// v̂ = g².
	grad.SetFloat64s([]float64{-6, -8})
	op.Step, op.WeightDecay = 2, 0
	before := p.Float64s()
	if err := b.Run([]kernels.Op{op}, nil); err != nil {
		t.Fatal(err)
	}
	move := 0.1 * 0.01 / 0.19
	near("second step", p.Float64s(), []float64{before[0] + move, before[1] + move})
}

func TestMalformed(t *testing.T) {
	b := reference.New()
	defer b.Close()
	defer func() {
		if r, ok := recover().(string); !ok || !strings.Contains(r, "kernels: sum") {
			t.Errorf("panic %v", r)
		}
	}()
	_ = b.Run([]kernels.Op{&kernels.Sum{A: row(t, b, 1), B: row(t, b, 1, 2), Out: row(t, b, 1)}}, nil)
}

// TestSoftmaxBeyond: a softmax is 0 where a row does not look, whatever it sees.
func TestSoftmaxBeyond(t *testing.T) {
	b := reference.New()
	defer b.Close()
	x, y := row(t, b, math.NaN(), 1, 2, 3), row(t, b, 9, 9, 9, 9)
	for _, m := range []*kernels.Tensor{x, y} {
		m.Rows, m.Cols, m.Stride = 2, 2, 2
	}
	buf, err := b.Alloc(8)
	if err != nil {
		t.Fatal(err)
	}
	bounds := &kernels.Tensor{DType: kernels.I32, Rows: 2, Cols: 1, Stride: 1, Buf: buf}
	bounds.SetInt32s([]int32{0, 2})
	if err := b.Run([]kernels.Op{&kernels.Softmax{X: x, Out: y, Scale: 1, Bounds: bounds}}, nil); err != nil {
		t.Fatal(err)
	}
	if v := y.Float64s(); !math.IsNaN(v[0]) || v[1] != 0 {
		t.Error(v)
	}
}
