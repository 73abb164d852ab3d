package trainer

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"graft/kernels"
	"graft/kernels/reference"
)

// transformers is the reference backend with what transformers and torch
// compute in float32 although a model is in float64: RMS norms, forward and
// backward, in torch's order of operations; and cosines and sines that are not
// always the nearest float32 (bench/cosines.py wrote down which).
//
// graft's gradients are those of the sum of a step's losses, and are divided by
// its tokens last of all. In the golden run the losses are divided, so the
// float32 gradients of its norms are rounded in that unit.
type transformers struct {
	kernels.Backend
	cosines map[angle]float64
	tokens  []int // of the present step and those after it
}

// angle is a place in a rotary table.
type angle struct {
	position int32
	column   int // cosines, then sines, as in kernels.RotaryTable
}

// newTransformers returns a backend for a run with the steps of a golden run.
func newTransformers(t *testing.T, steps []goldenStep) *transformers {
	t.Helper()
	b, err := os.ReadFile("testdata/torch-cosines.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Function            string
		Position, Frequency int32
		Value               float64
	}
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	const frequencies = 4
	x := &transformers{Backend: reference.New(), cosines: map[angle]float64{}}
	for _, s := range steps {
		x.tokens = append(x.tokens, s.Tokens)
	}
	for _, r := range rows {
		column := int(r.Frequency)
		if r.Function == "sin" {
			column += frequencies
		}
		x.cosines[angle{r.Position, column}] = r.Value
	}
	return x
}

func (x *transformers) Run(ops []kernels.Op, clock kernels.Clock) error {
	for _, op := range ops {
		switch o := op.(type) {
		case *kernels.RMSNorm:
			norm32(o)
			continue
		case *kernels.RMSNormGrad:
			normGrad32(o, float64(x.tokens[0]))
			continue
		case *kernels.ClipNorm: // the last of a step's gradients
			x.tokens = x.tokens[1:]
		}
		if err := x.Backend.Run([]kernels.Op{op}, nil); err != nil {
			return err
		}
		if o, ok := op.(*kernels.RotaryTable); ok {
			for t, position := range kernels.View[int32](o.Positions) {
				for j := range rowOf(o.Out, t) {
					if v, ok := x.cosines[angle{position, j}]; ok {
						rowOf(o.Out, t)[j] = v
					}
				}
			}
		}
	}
	return nil
}

func rowOf(t *kernels.Tensor, i int) []float64 {
	return kernels.View[float64](t)[i*t.Stride:][:t.Cols]
}

// norm32 is LlamaRMSNorm.forward: the input to float32, x·rsqrt(mean(x²) + ε),
// back to float64, times the weight.
func norm32(o *kernels.RMSNorm) {
	weight := o.Weight.Float64s()
	for t := range o.X.Rows {
		s := rowOf(o.X, t)
		if o.Residual != nil {
			sum := rowOf(o.Sum, t)
			for j, r := range rowOf(o.Residual, t) {
				sum[j] = s[j] + r
			}
			s = sum
		}
		squares := make([]float32, len(s))
		for j, v := range s {
			squares[j] = float32(v) * float32(v)
		}
		variance := sum32(squares)/float32(len(s)) + float32(o.Eps)
		inv := 1 / float32(math.Sqrt(float64(variance)))
		rowOf(o.InvRMS, t)[0] = float64(inv)
		normalize32(rowOf(o.Out, t), s, weight, inv)
	}
}

func normalize32(out, x, weight []float64, inv float32) {
	for j, v := range x {
		out[j] = weight[j] * float64(float32(v)*inv)
	}
}

// normGrad32 is what autograd makes of norm32, for a loss that is divided by
// tokens; its operands are the gradients of one that is not.
func normGrad32(o *kernels.RMSNormGrad, tokens float64) {
	weight := o.Weight.Float64s()
	n := len(weight)
	for t := range o.X.Rows {
		x, dout, dx := rowOf(o.X, t), rowOf(o.DOut, t), rowOf(o.DX, t)
		inv := float32(rowOf(o.InvRMS, t)[0])
		if o.Out != nil {
			normalize32(rowOf(o.Out, t), x, weight, inv)
		}
		d, products := make([]float32, n), make([]float32, n)
		for j := range n {
			d[j] = float32(dout[j] * weight[j] / tokens)
			products[j] = d[j] * float32(x[j])
		}
		cube := float32(inv*inv) * inv
		dvariance := float32(float32(-0.5*sum32(products))*cube) / float32(n)
		for j := range n {
			v := tokens * float64(float32(d[j]*inv)+float32(dvariance*float32(2*float32(x[j]))))
			if o.Add != nil {
				v += rowOf(o.Add, t)[j]
			}
			dx[j] = v
		}
	}
}

// sum32 adds up as torch does with vectors of eight: four sums of vectors, one
// after the other, then the elements of the total.
func sum32(v []float32) (sum float32) {
	const lanes, abreast = 8, 4
	var acc [abreast][lanes]float32
	for i, x := range v {
		acc[i/lanes%abreast][i%lanes] += x
	}
	for j := range lanes {
		lane := acc[0][j]
		for k := 1; k < abreast; k++ {
			lane += acc[k][j]
		}
		sum += lane
	}
	return sum
}
