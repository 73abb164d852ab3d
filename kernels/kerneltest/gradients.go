package kerneltest

import (
	"fmt"
	"math"

	"graft/kernels"
	"graft/kernels/reference"
)

func newReference() kernels.Backend { return reference.New() }

// gradient pairs a forward operation with the operations that compute its
// gradient. The loss is Σ c∘out over the outputs, with random c.
type gradient struct {
	name    string
	forward kernels.Op
	outputs []*kernels.Tensor // that the loss depends on
	by      []*kernels.Tensor // what the loss is differentiated by
	// backward returns the gradient operations for the outputs' gradients c,
	// and where they put the gradients of by.
	backward func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor)
}

// Gradients compares the gradient kinds of a float64 backend with central
// differences of the forward kinds.
func Gradients(r Reporter, b kernels.Backend) {
	r.Helper()
	for _, make := range gradients() {
		g := &rig{backend: b, round: kernels.F64}
		c := make(g)
		checkGradient(r, g, c)
	}
}

func checkGradient(r Reporter, g *rig, c gradient) {
	r.Helper()
	run := func(ops ...kernels.Op) {
		if err := g.backend.Run(ops, nil); err != nil {
			r.Errorf("%s: %v", c.name, err)
		}
	}
	run(c.forward)
	var cs []*kernels.Tensor
	for _, o := range c.outputs {
		cs = append(cs, g.in("d "+o.Name, o.Rows, o.Cols))
	}
	ops, grads := c.backward(cs)
	run(ops...)
	loss := func() float64 {
		run(c.forward)
		var sum float64
		for i, o := range c.outputs {
			d := cs[i].Float64s()
			for j, v := range o.Float64s() {
				sum += d[j] * v
			}
		}
		return sum
	}
	const h = 1e-5
	for i, x := range c.by {
		values, got := x.Float64s(), grads[i].Float64s()
		for j, v := range values {
			var quotient float64
			for _, sign := range []float64{1, -1} {
				values[j] = v + sign*h
				x.SetFloat64s(values)
				quotient += sign * loss() / (2 * h)
			}
			values[j] = v
			if math.Abs(got[j]-quotient) > 1e-7*(1+math.Abs(quotient)) {
				r.Errorf("%s: gradient by element %d of %s is %v, difference quotient %v", c.name, j, x.Name, got[j], quotient)
				break
			}
		}
		x.SetFloat64s(values)
	}
}

// zeros returns a gradient that operations add to.
func (g *rig) zeros(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, update, g.float(), rows, cols, g.padding, make([]float64, rows*cols))
}

func gradients() []func(g *rig) gradient {
	var out []func(g *rig) gradient
	add := func(f func(g *rig) gradient) { out = append(out, f) }
	add(func(g *rig) gradient {
		tokens := g.indices("tokens", []int32{2, 0, 2, 4})
		f := &kernels.Embed{Tokens: tokens, Table: g.in("table", 5, 3), Out: g.out("out", 4, 3), Scale: 1.7}
		return gradient{"embed", f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.Table}, func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			d := g.zeros("dtable", 5, 3)
			return []kernels.Op{&kernels.EmbedGrad{Tokens: tokens, DOut: c[0], DTable: d, Scale: 1.7}}, []*kernels.Tensor{d}
		}}
	})
	for _, residual := range []bool{false, true} {
		for _, groups := range []int{1, 3} {
			add(func(g *rig) gradient { return normGradient(g, residual, groups) })
		}
	}
	for _, transposed := range []bool{false, true} {
		add(func(g *rig) gradient { return productGradient(g, transposed) })
	}
	for _, half := range []int{4, 3} {
		add(func(g *rig) gradient {
			table := g.out("table", 3, 2*half)
			t := &kernels.RotaryTable{Positions: g.indices("positions", []int32{0, 1, 7}), Freqs: g.in("freqs", 1, half), Out: table, Scale: 1}
			if err := g.backend.Run([]kernels.Op{t}, nil); err != nil {
				panic(err)
			}
			f := &kernels.Rotary{X: g.in("x", 3, 16), Table: table, Out: g.out("out", 3, 16), HeadDim: 8}
			return gradient{"rotary", f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.X}, func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
				d := g.out("dx", 3, 16)
				return []kernels.Op{&kernels.Rotary{X: c[0], Table: table, Out: d, HeadDim: 8, Inverse: true}}, []*kernels.Tensor{d}
			}}
		})
	}
	for _, shape := range []kernels.AttentionShape{
		{HeadDim: 4, Scale: 0.5}, {HeadDim: 4, Scale: 0.5, Window: 2}, {HeadDim: 4, Scale: 0.9, SoftCap: 1.5}, {HeadDim: 4, Scale: 0.5, Window: 3, SoftCap: 2},
	} {
		for _, heads := range [][2]int{{1, 1}, {4, 2}, {3, 1}} {
			add(func(g *rig) gradient { return attentionGradient(g, shape, heads[0], heads[1]) })
		}
	}
	for _, causal := range []bool{false, true} {
		add(func(g *rig) gradient { return softmaxGradient(g, causal) })
	}
	for _, act := range []kernels.Act{kernels.SiLU, kernels.GELU, kernels.GELUTanh} {
		add(func(g *rig) gradient {
			f := &kernels.Gated{Gate: g.scaled("gate", 3, 5, 2), Up: g.in("up", 3, 5), Out: g.out("out", 3, 5), Act: act}
			return gradient{fmt.Sprintf("gated, act %d", act), f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.Gate, f.Up},
				func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
					o := &kernels.GatedGrad{Gate: f.Gate, Up: f.Up, DOut: c[0], DGate: g.out("dgate", 3, 5), DUp: g.out("dup", 3, 5), Act: act}
					return []kernels.Op{o}, []*kernels.Tensor{o.DGate, o.DUp}
				}}
		})
	}
	add(func(g *rig) gradient {
		rows := g.indices("rows", []int32{4, 1, 2})
		f := &kernels.Gather{Rows: rows, X: g.in("x", 6, 3), Out: g.out("out", 3, 3)}
		return gradient{"gather", f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.X}, func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			d := g.out("dx", 6, 3)
			return []kernels.Op{&kernels.Scatter{Rows: rows, X: c[0], Out: d}}, []*kernels.Tensor{d}
		}}
	})
	add(func(g *rig) gradient {
		f := &kernels.Dropout{X: g.in("x", 4, 7), Out: g.out("out", 4, 7), P: 0.4, Seed: 3, Stream: 2, Step: 1, Row: 5}
		return gradient{"dropout", f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.X}, func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			d := *f
			d.X, d.Out = c[0], g.out("dx", 4, 7)
			return []kernels.Op{&d}, []*kernels.Tensor{d.Out}
		}}
	})
	for _, softCap := range []float64{0, 2} {
		add(func(g *rig) gradient { return lossGradient(g, softCap) })
	}
	return out
}

func softmaxGradient(g *rig, causal bool) gradient {
	const n = 5
	f := &kernels.Softmax{X: g.in("x", 2*n, n), Out: g.out("out", 2*n, n), Scale: 0.7}
	if causal {
		f.Bounds = g.indices("bounds", []int32{0, 2, 5})
	}
	return gradient{fmt.Sprintf("softmax, causal %v", causal), f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.X},
		func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			o := &kernels.SoftmaxGrad{Out: f.Out, DOut: c[0], DX: g.out("dx", 2*n, n), Scale: f.Scale}
			return []kernels.Op{o}, []*kernels.Tensor{o.DX}
		}}
}

func normGradient(g *rig, residual bool, groups int) gradient {
	const t, width = 3, 5
	cols := groups * width
	f := &kernels.RMSNorm{X: g.in("x", t, cols), Weight: g.in("weight", 1, width), Out: g.out("out", t, cols), InvRMS: g.out("inv", t, groups),
		Eps: 0.1, Offset: 0.5}
	outputs, by, summed := []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.X, f.Weight}, f.X
	if residual {
		f.Residual, f.Sum = g.in("residual", t, cols), g.out("sum", t, cols)
		outputs, by, summed = append(outputs, f.Sum), append(by, f.Residual), f.Sum
	}
	return gradient{fmt.Sprintf("rms_norm, %d groups, residual %v", groups, residual), f, outputs, by,
		func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			o := &kernels.RMSNormGrad{X: summed, InvRMS: f.InvRMS, Weight: f.Weight, DOut: c[0], DX: g.out("dx", t, cols),
				DWeight: g.zeros("dweight", 1, width), Offset: f.Offset}
			grads := []*kernels.Tensor{o.DX, o.DWeight}
			if residual {
				o.Add = c[1]
				grads = append(grads, o.DX)
			}
			return []kernels.Op{o}, grads
		}}
}

func productGradient(g *rig, transposed bool) gradient {
	const t, n, k = 3, 4, 5
	w := g.in("w", n, k)
	if transposed {
		w = g.in("w", k, n)
	}
	f := &kernels.Product{Terms: []kernels.Term{
		{X: g.in("x", t, k), W: w, Transposed: transposed, Scale: 0.7}, {X: g.in("u", t, 2), W: g.in("b", n, 2), Scale: -1.3},
	}, Bias: g.in("bias", 1, n), Add: g.in("add", t, n), Out: g.out("out", t, n)}
	by := []*kernels.Tensor{f.Terms[0].X, f.Terms[0].W, f.Terms[1].X, f.Terms[1].W, f.Bias, f.Add}
	return gradient{fmt.Sprintf("product, transposed %v", transposed), f, []*kernels.Tensor{f.Out}, by,
		func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			dx, du := g.out("dx", t, k), g.out("du", t, 2)
			dw, db, dbias := g.zeros("dw", w.Rows, w.Cols), g.zeros("db", n, 2), g.zeros("dbias", 1, n)
			wgrad := &kernels.WeightGrad{DY: c[0], X: f.Terms[0].X, DW: dw, Scale: 0.7}
			if transposed {
				wgrad.DY, wgrad.X = wgrad.X, wgrad.DY
			}
			return []kernels.Op{
				&kernels.Product{Terms: []kernels.Term{{X: c[0], W: w, Transposed: !transposed, Scale: 0.7}}, Out: dx},
				&kernels.Product{Terms: []kernels.Term{{X: c[0], W: f.Terms[1].W, Transposed: true, Scale: -1.3}}, Out: du},
				wgrad, &kernels.WeightGrad{DY: c[0], X: f.Terms[1].X, DW: db, Scale: -1.3}, &kernels.BiasGrad{DY: c[0], DBias: dbias},
			}, []*kernels.Tensor{dx, dw, du, db, dbias, c[0]}
		}}
}

func attentionGradient(g *rig, shape kernels.AttentionShape, heads, kv int) gradient {
	const t = 7
	q, k := heads*shape.HeadDim, kv*shape.HeadDim
	bounds := g.indices("bounds", []int32{0, 4, 5, 7})
	f := &kernels.Attention{Q: g.in("q", t, q), K: g.in("k", t, k), V: g.in("v", t, k), Bounds: bounds, Out: g.out("out", t, q),
		LSE: g.out("lse", t, heads), AttentionShape: shape}
	return gradient{fmt.Sprintf("attention %d/%d %+v", heads, kv, shape), f, []*kernels.Tensor{f.Out}, []*kernels.Tensor{f.Q, f.K, f.V},
		func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			o := &kernels.AttentionGrad{Q: f.Q, K: f.K, V: f.V, Bounds: bounds, Out: f.Out, LSE: f.LSE, DOut: c[0],
				DQ: g.out("dq", t, q), DK: g.out("dk", t, k), DV: g.out("dv", t, k), AttentionShape: shape}
			return []kernels.Op{o}, []*kernels.Tensor{o.DQ, o.DK, o.DV}
		}}
}

// lossGradient is by the sum of losses, so the outputs' gradient is all ones:
// the loss is multiplied by c before it is compared.
func lossGradient(g *rig, softCap float64) gradient {
	const n, vocab = 3, 6
	targets := g.indices("targets", []int32{5, 0, 3})
	f := &kernels.CrossEntropy{Targets: targets, Loss: g.out("loss", n, 1), LogitScale: 0.8, SoftCap: softCap, Terms: []kernels.HeadTerm{
		{X: g.in("x", n, 4), W: g.in("w", vocab, 4), Scale: 1}, {X: g.in("u", n, 2), W: g.in("b", vocab, 2), Scale: 0.6},
	}}
	a, b := f.Terms[0], f.Terms[1]
	return gradient{fmt.Sprintf("cross_entropy, cap %g", softCap), f, []*kernels.Tensor{f.Loss}, []*kernels.Tensor{a.X, a.W, b.X, b.W},
		func(c []*kernels.Tensor) ([]kernels.Op, []*kernels.Tensor) {
			c[0].SetFloat64s([]float64{1, 1, 1})
			o := f.Clone().(*kernels.CrossEntropy)
			o.Loss = g.out("loss again", n, 1)
			var grads []*kernels.Tensor
			for i := range o.Terms {
				t := &o.Terms[i]
				t.DX, t.DW = g.out("dx", t.X.Rows, t.X.Cols), g.zeros("dw", t.W.Rows, t.W.Cols)
				grads = append(grads, t.DX, t.DW)
			}
			return []kernels.Op{o}, grads
		}}
}
