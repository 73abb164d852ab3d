package kerneltest

import (
	"fmt"

	"graft/kernels"
)

// rowCounts are the numbers of tokens that most kinds are tried with.
var rowCounts = []int{0, 1, 2, 3, 5, 17, 33, 64, 100}

// widths are ragged numbers of columns.
var widths = []int{1, 3, 16, 48, 65, 130}

var weightTypes = []kernels.DType{kernels.F32, kernels.F16, kernels.BF16, kernels.F64}

func cases() []*testCase {
	var out []*testCase
	add := func(name string, f func(g *rig) kernels.Op) *testCase {
		c := &testCase{name: name, make: f}
		out = append(out, c)
		return c
	}
	embeddings(add)
	norms(add)
	products(add)
	quantised(add)
	rotaries(add)
	attentions(add)
	softmaxes(add)
	gates(add)
	rowsCases(add)
	losses(add)
	optimizers(add)
	for _, alike := range byKind(out) {
		for i, c := range alike { // far apart in the list sizes differ most
			c.beside = alike[(i+len(alike)/2)%len(alike)]
		}
	}
	return out
}

type adder func(name string, f func(g *rig) kernels.Op) *testCase

func embeddings(add adder) {
	for _, t := range rowCounts {
		for i, w := range widths {
			d := weightTypes[i%len(weightTypes)]
			add(fmt.Sprintf("embed %d×%d %v", t, w, d), func(g *rig) kernels.Op {
				return &kernels.Embed{Tokens: g.indices("tokens", g.below(t, 9)), Table: g.weight("table", d, 9, w), Out: g.out("out", t, w), Scale: 1.5}
			})
			add(fmt.Sprintf("embed_grad %d×%d", t, w), func(g *rig) kernels.Op {
				return &kernels.EmbedGrad{Tokens: g.indices("tokens", g.below(t, 9)), DOut: g.in("dout", t, w), DTable: g.trained("dtable", 9, w), Scale: 1.5}
			})
		}
	}
}

func norms(add adder) {
	for _, t := range rowCounts {
		for i, w := range append(widths, 576, 1025) {
			groups := 1 + i%3
			d := weightTypes[i%len(weightTypes)]
			scale := []float64{1, 1e-3, 1e3, 0}[i%4]
			offset := float64(i % 2)
			cols := groups * w
			add(fmt.Sprintf("rms_norm %d×%d×%d %v", t, groups, w, d), func(g *rig) kernels.Op {
				return &kernels.RMSNorm{X: g.scaled("x", t, cols, scale), Weight: g.weight("weight", d, 1, w), Out: g.out("out", t, cols),
					InvRMS: g.found("inv", t, groups), Eps: 1e-6, Offset: offset}
			})
			add(fmt.Sprintf("rms_norm with residual %d×%d×%d %v", t, groups, w, d), func(g *rig) kernels.Op {
				return &kernels.RMSNorm{X: g.scaled("x", t, cols, scale), Residual: g.scaled("residual", t, cols, scale), Sum: g.out("sum", t, cols),
					Weight: g.weight("weight", d, 1, w), Out: g.out("out", t, cols), InvRMS: g.found("inv", t, groups), Eps: 1e-6, Offset: offset}
			})
			for variant := range 4 {
				add(fmt.Sprintf("rms_norm_grad %d×%d×%d %v variant %d", t, groups, w, d, variant), func(g *rig) kernels.Op {
					o := &kernels.RMSNormGrad{X: g.in("x", t, cols), InvRMS: g.known("inv", t, groups), Weight: g.weight("weight", d, 1, w),
						Offset: offset}
					switch variant {
					case 0:
						o.DOut, o.DX, o.Out = g.in("dout", t, cols), g.out("dx", t, cols), g.out("out", t, cols)
					case 1:
						o.DOut, o.Add, o.DX = g.in("dout", t, cols), g.in("add", t, cols), g.out("dx", t, cols)
						o.DWeight, o.Out = g.trained("dweight", 1, w), g.out("out", t, cols)
					case 2:
						o.DOut = g.change("dout and dx", t, cols)
						o.DX, o.Add, o.Out = o.DOut, g.in("add", t, cols), g.out("out", t, cols)
					case 3:
						o.DOut, o.Add = g.in("dout", t, cols), g.change("add and dx", t, cols)
						o.DX = o.Add
					}
					return o
				}).floor = 1
			}
		}
	}
}

func products(add adder) {
	type shape struct{ t, n, k int }
	var shapes []shape
	for _, t := range rowCounts {
		shapes = append(shapes, shape{t, 5, 3}, shape{t, 40, 4}, shape{t, 64, 48}, shape{t, 48, 24}, shape{t, 1, 130}, shape{t, 33, 1}, shape{t, 8, 65}, shape{t, 65, 8}, shape{t, 130, 300})
	}
	shapes = append(shapes, shape{70, 200, 600}, shape{3, 1000, 17})
	for i, s := range shapes {
		d := weightTypes[i%len(weightTypes)]
		for _, transposed := range []bool{false, true} {
			w := func(g *rig, name string, d kernels.DType, k int) *kernels.Tensor {
				if transposed {
					return g.weight(name, d, k, s.n)
				}
				return g.weight(name, d, s.n, k)
			}
			add(fmt.Sprintf("product %d×%d×%d %v transposed=%v", s.t, s.n, s.k, d, transposed), func(g *rig) kernels.Op {
				return &kernels.Product{Terms: []kernels.Term{{X: g.in("x", s.t, s.k), W: w(g, "w", d, s.k), Transposed: transposed, Scale: 1}},
					Out: g.out("out", s.t, s.n)}
			})
			add(fmt.Sprintf("product with everything %d×%d×%d %v transposed=%v", s.t, s.n, s.k, d, transposed), func(g *rig) kernels.Op {
				return &kernels.Product{Terms: []kernels.Term{
					{X: g.in("x", s.t, s.k), W: w(g, "w", d, s.k), Transposed: transposed, Scale: 0.5},
					{X: g.in("u", s.t, 4), W: g.weight("b", kernels.F32, s.n, 4), Scale: -2},
					{X: g.in("y", s.t, 7), W: g.weight("v", kernels.BF16, 7, s.n), Transposed: true, Scale: 1},
				}, Bias: g.weight("bias", d, 1, s.n), Add: g.in("add", s.t, s.n), Out: g.out("out", s.t, s.n)}
			})
		}
		add(fmt.Sprintf("product in place %d×%d×%d", s.t, s.n, s.k), func(g *rig) kernels.Op {
			out := g.change("add and out", s.t, s.n)
			return &kernels.Product{Terms: []kernels.Term{{X: g.in("x", s.t, s.k), W: g.weight("w", d, s.n, s.k), Scale: 1}}, Add: out, Out: out}
		})
		add(fmt.Sprintf("copy %d×%d", s.t, s.n), func(g *rig) kernels.Op {
			return &kernels.Product{Add: g.in("add", s.t, s.n), Out: g.out("out", s.t, s.n)}
		})
		add(fmt.Sprintf("weight_grad %d×%d×%d", s.t, s.n, s.k), func(g *rig) kernels.Op {
			return &kernels.WeightGrad{DY: g.in("dy", s.t, s.n), X: g.in("x", s.t, s.k), DW: g.trained("dw", s.n, s.k), Scale: 0.75}
		})
		add(fmt.Sprintf("bias_grad %d×%d", s.t, s.n), func(g *rig) kernels.Op {
			return &kernels.BiasGrad{DY: g.in("dy", s.t, s.n), DBias: g.trained("dbias", 1, s.n)}
		})
	}
}

// quantised weights have rows of whole blocks; the shapes make packing start and
// end within a group.
func quantised(add adder) {
	for _, d := range []kernels.DType{kernels.Q8_0, kernels.Q4_0, kernels.Q4_1, kernels.Q5_0, kernels.Q5_1, kernels.Q4_K, kernels.Q5_K, kernels.Q6_K,
		kernels.Affine4, kernels.Affine8} {
		b := d.Block()
		for _, s := range []struct{ t, n, k int }{{1, 70, b}, {3, 33, 2 * b}, {9, 40, 768}} {
			for _, u := range []int{0, 4} { // a term before it shifts its blocks
				name := fmt.Sprintf("%d×%d×%d+%d %v", s.t, s.n, s.k, u, d)
				add("product "+name, func(g *rig) kernels.Op {
					o := &kernels.Product{Out: g.out("out", s.t, s.n)}
					if u > 0 {
						o.Terms = append(o.Terms, kernels.Term{X: g.in("u", s.t, u), W: g.weight("b", kernels.F32, s.n, u), Scale: -1})
					}
					o.Terms = append(o.Terms, kernels.Term{X: g.in("x", s.t, s.k), W: g.weight("w", d, s.n, s.k), Scale: 0.5})
					return o
				})
			}
			add(fmt.Sprintf("product transposed %d×%d×%d %v", s.t, s.k, s.n, d), func(g *rig) kernels.Op {
				return &kernels.Product{Terms: []kernels.Term{{X: g.in("x", s.t, s.n), W: g.weight("w", d, s.n, s.k), Transposed: true, Scale: 0.5}},
					Out: g.out("out", s.t, s.k)}
			})
		}
		add(fmt.Sprintf("embed %v", d), func(g *rig) kernels.Op {
			return &kernels.Embed{Tokens: g.indices("tokens", g.below(5, 9)), Table: g.weight("table", d, 9, 2*b), Out: g.out("out", 5, 2*b), Scale: 1.5}
		})
		add(fmt.Sprintf("cross_entropy %v", d), func(g *rig) kernels.Op {
			return &kernels.CrossEntropy{Targets: g.indices("targets", g.below(7, 40)), Loss: g.found("loss", 7, 1), LogitScale: 1,
				Terms: []kernels.HeadTerm{{X: g.in("x", 7, b), W: g.weight("w", d, 40, b), Scale: 1, DX: g.out("dx", 7, b)}}}
		}).floor = 32 // the weights' size
	}
}

func rotaries(add adder) {
	for _, t := range rowCounts {
		for _, s := range []struct{ dim, half, heads int }{{2, 1, 1}, {8, 4, 3}, {20, 10, 2}, {16, 5, 2}, {64, 32, 3}} {
			add(fmt.Sprintf("rotary_table %d×%d", t, s.half), func(g *rig) kernels.Op {
				return &kernels.RotaryTable{Positions: g.indices("positions", g.below(t, 100000)), Freqs: g.weight("freqs", kernels.F64, 1, s.half),
					Out: g.found("out", t, 2*s.half), Scale: 1.25}
			})
			for _, inverse := range []bool{false, true} {
				add(fmt.Sprintf("rotary %d×%d×%d/%d inverse=%v", t, s.heads, s.dim, s.half, inverse), func(g *rig) kernels.Op {
					return &kernels.Rotary{X: g.in("x", t, s.heads*s.dim), Table: g.known("table", t, 2*s.half), Out: g.out("out", t, s.heads*s.dim),
						HeadDim: s.dim, Inverse: inverse}
				})
			}
			add(fmt.Sprintf("rotary in place %d×%d×%d/%d", t, s.heads, s.dim, s.half), func(g *rig) kernels.Op {
				x := g.change("x", t, s.heads*s.dim)
				return &kernels.Rotary{X: x, Table: g.known("table", t, 2*s.half), Out: x, HeadDim: s.dim}
			})
		}
	}
}

func attentions(add adder) {
	for _, lengths := range [][]int32{{1}, {2}, {5, 1, 3}, {33}, {0, 17, 0, 0, 40, 0}, {17, 64, 1, 19}, {100, 31}, {150}} {
		for _, s := range []struct {
			heads, kv, dim, window int
			cap, scale, size       float64
		}{
			{1, 1, 8, 0, 0, 0.35, 1}, {4, 2, 16, 0, 0, 0.25, 1}, {3, 1, 20, 7, 0, 0.2, 1}, {4, 4, 8, 0, 5, 0.35, 3},
			{6, 2, 64, 20, 2, 0.125, 1}, {2, 1, 10, 0, 0, 1, 30}, {9, 3, 64, 0, 0, 0.125, 1}, {2, 2, 5, 1, 0, 0.4, 1},
			{3, 1, 100, 40, 0, 0.1, 1}, {2, 1, 128, 0, 20, 0.09, 1}, {2, 2, 203, 0, 0, 0.07, 1}, {2, 1, 256, 50, 0, 0.0625, 1},
		} {
			bounds := []int32{0}
			for _, n := range lengths {
				bounds = append(bounds, bounds[len(bounds)-1]+n)
			}
			t := int(bounds[len(lengths)])
			q, kv := s.heads*s.dim, s.kv*s.dim
			shape := kernels.AttentionShape{HeadDim: s.dim, Scale: s.scale, Window: s.window, SoftCap: s.cap}
			name := fmt.Sprintf("%v %+v", lengths, s)
			// With scores in the thousands, their rounding moves e^score.
			slack := s.size * s.size
			add("attention "+name, func(g *rig) kernels.Op {
				return &kernels.Attention{Q: g.scaled("q", t, q, s.size), K: g.scaled("k", t, kv, s.size), V: g.in("v", t, kv),
					Bounds: g.indices("bounds", bounds), Out: g.out("out", t, q), LSE: g.found("lse", t, s.heads), AttentionShape: shape}
			}).slack = slack
			c := add("attention_grad "+name, func(g *rig) kernels.Op {
				return attentionGrad(g, shape, bounds, t, q, kv, s.heads, s.size)
			})
			c.slack, c.floor = slack, s.size
		}
	}
}

// attentionGrad makes the operation with the outputs that the reference
// computes for its inputs.
func attentionGrad(g *rig, shape kernels.AttentionShape, bounds []int32, t, q, kv, heads int, size float64) kernels.Op {
	qs, ks, vs := g.normal(t*q, size), g.normal(t*kv, size), g.normal(t*kv, 1)
	oracle := &rig{backend: newReference(), round: g.round}
	defer oracle.backend.Close()
	f := &kernels.Attention{
		Q: oracle.add("q", input, kernels.F64, t, q, 0, qs), K: oracle.add("k", input, kernels.F64, t, kv, 0, ks),
		V: oracle.add("v", input, kernels.F64, t, kv, 0, vs), Bounds: oracle.indices("bounds", bounds),
		Out: oracle.out("out", t, q), LSE: oracle.out("lse", t, heads), AttentionShape: shape,
	}
	if err := oracle.backend.Run([]kernels.Op{f}, nil); err != nil {
		panic(err)
	}
	in := func(name string, cols int, v []float64) *kernels.Tensor {
		return g.add(name, input, g.activation(), t, cols, g.padding, v)
	}
	return &kernels.AttentionGrad{
		Q: in("q", q, qs), K: in("k", kv, ks), V: in("v", kv, vs), Bounds: g.indices("bounds", bounds),
		Out: in("out", q, g.rounded(f.Out.Float64s())), LSE: g.add("lse", input, g.float(), t, heads, g.padding, f.LSE.Float64s()), DOut: g.in("dout", t, q),
		DQ: g.out("dq", t, q), DK: g.out("dk", t, kv), DV: g.out("dv", t, kv), AttentionShape: shape,
	}
}

func softmaxes(add adder) {
	for _, t := range rowCounts {
		for _, w := range append(widths, 1025) {
			size, scale := []float64{1, 30, 1e4}[w%3], []float64{1, 0.125, 3}[t%3]
			name := fmt.Sprintf("%d×%d", t, w)
			add("softmax "+name, func(g *rig) kernels.Op {
				return &kernels.Softmax{X: g.scaled("x", t, w, size), Out: g.out("out", t, w), Scale: scale}
			})
			add("softmax in place "+name, func(g *rig) kernels.Op {
				x := g.change("x and out", t, w)
				return &kernels.Softmax{X: x, Out: x, Scale: scale}
			})
			add("softmax_grad "+name, func(g *rig) kernels.Op {
				return &kernels.SoftmaxGrad{Out: g.in("out", t, w), DOut: g.in("dout", t, w), DX: g.out("dx", t, w), Scale: scale}
			})
			add("softmax_grad in place "+name, func(g *rig) kernels.Op {
				d := g.change("dout and dx", t, w)
				return &kernels.SoftmaxGrad{Out: g.in("out", t, w), DOut: d, DX: d, Scale: scale}
			})
		}
	}
	for _, bounds := range [][]int32{{0, 1}, {0, 5}, {0, 2, 3, 17}, {0, 0, 40, 40, 41, 66}, {0, 130}} {
		t := int(bounds[len(bounds)-1])
		for _, heads := range []int{1, 3} {
			add(fmt.Sprintf("softmax causal %d heads %v", heads, bounds), func(g *rig) kernels.Op {
				return &kernels.Softmax{X: g.in("x", heads*t, t), Bounds: g.indices("bounds", bounds), Out: g.out("out", heads*t, t), Scale: 0.5}
			})
		}
	}
}

func gates(add adder) {
	for _, t := range rowCounts {
		for _, w := range widths {
			for _, act := range []kernels.Act{kernels.SiLU, kernels.GELU, kernels.GELUTanh} {
				scale := []float64{1, 10, 1e4}[w%3]
				name := fmt.Sprintf("%d×%d act %d", t, w, act)
				add("gated "+name, func(g *rig) kernels.Op {
					return &kernels.Gated{Gate: g.scaled("gate", t, w, scale), Up: g.in("up", t, w), Out: g.out("out", t, w), Act: act}
				})
				add("gated in place "+name, func(g *rig) kernels.Op {
					x := g.change("gate and out", t, w)
					return &kernels.Gated{Gate: x, Up: g.in("up", t, w), Out: x, Act: act}
				})
				add("gated_grad "+name, func(g *rig) kernels.Op {
					return &kernels.GatedGrad{Gate: g.scaled("gate", t, w, scale), Up: g.in("up", t, w), DOut: g.in("dout", t, w),
						DGate: g.out("dgate", t, w), DUp: g.out("dup", t, w), Act: act}
				})
				add("gated_grad in place "+name, func(g *rig) kernels.Op {
					o := &kernels.GatedGrad{Gate: g.change("gate and dgate", t, w), Up: g.change("up and dup", t, w), DOut: g.in("dout", t, w), Act: act}
					o.DGate, o.DUp = o.Gate, o.Up
					if w%2 > 0 {
						o.Out = g.out("out", t, w)
					}
					return o
				})
				add("gated_grad over dout "+name, func(g *rig) kernels.Op {
					o := &kernels.GatedGrad{Gate: g.in("gate", t, w), Up: g.in("up", t, w), DOut: g.change("dout and dgate", t, w), DUp: g.out("dup", t, w), Out: g.out("out", t, w), Act: act}
					o.DGate = o.DOut
					return o
				})
				add("gated_grad, output over dout "+name, func(g *rig) kernels.Op {
					o := &kernels.GatedGrad{Gate: g.change("gate and dgate", t, w), Up: g.in("up", t, w), DOut: g.change("dout and out", t, w), DUp: g.out("dup", t, w), Act: act}
					o.DGate, o.Out = o.Gate, o.DOut
					return o
				})
			}
		}
	}
}

func rowsCases(add adder) {
	for _, t := range rowCounts {
		for _, w := range widths {
			var picked []int32
			for i := int32(0); i < int32(t); i += 1 + i%3 {
				picked = append(picked, i)
			}
			n := len(picked)
			name := fmt.Sprintf("%d of %d×%d", n, t, w)
			add("gather "+name, func(g *rig) kernels.Op {
				return &kernels.Gather{Rows: g.indices("rows", picked), X: g.in("x", t, w), Out: g.out("out", n, w)}
			})
			add("scatter "+name, func(g *rig) kernels.Op {
				return &kernels.Scatter{Rows: g.indices("rows", picked), X: g.in("x", n, w), Out: g.out("out", t, w)}
			})
			add("sum "+name, func(g *rig) kernels.Op {
				return &kernels.Sum{A: g.in("a", t, w), B: g.in("b", t, w), Out: g.out("out", t, w)}
			})
			add("sum in place "+name, func(g *rig) kernels.Op {
				b := g.change("b and out", t, w)
				return &kernels.Sum{A: g.in("a", t, w), B: b, Out: b}
			})
			add("zero "+name, func(g *rig) kernels.Op { return &kernels.Zero{Out: g.out("out", t, w)} })
			for _, p := range []float64{0.1, 0.5, 0.9} {
				add(fmt.Sprintf("dropout %g %s", p, name), func(g *rig) kernels.Op {
					return &kernels.Dropout{X: g.in("x", t, w), Out: g.out("out", t, w), P: p, Seed: 1 << 40, Stream: 7, Step: 3, Row: 11}
				})
			}
		}
	}
}

func losses(add adder) {
	for _, s := range []struct {
		n, vocab, k int
		cap, scale  float64
		size        float64
	}{
		{0, 10, 4, 0, 1, 1}, {1, 2, 1, 0, 1, 1}, {2, 17, 5, 0, 1, 1}, {7, 320, 64, 3, 0.5, 1}, {33, 1000, 48, 0, 1, 1},
		{5, 300, 64, 0, 1, 100}, {4, 90, 16, 0, 1, 3000}, {100, 513, 65, 0, 1, 1}, {3, 5000, 16, 0, 2, 1},
	} {
		for i, d := range weightTypes {
			name := fmt.Sprintf("cross_entropy %d×%d×%d %v cap %g", s.n, s.vocab, s.k, d, s.cap)
			if i == 0 || s.n < 10 {
				add(name+", loss only", func(g *rig) kernels.Op {
					return &kernels.CrossEntropy{Targets: g.indices("targets", g.below(s.n, s.vocab)), Loss: g.found("loss", s.n, 1),
						LogitScale: s.scale, SoftCap: s.cap,
						Terms: []kernels.HeadTerm{{X: g.scaled("x", s.n, s.k, s.size), W: g.weight("w", d, s.vocab, s.k), Scale: 1}}}
				})
				add(name+", with gradients", func(g *rig) kernels.Op {
					return &kernels.CrossEntropy{Targets: g.indices("targets", g.below(s.n, s.vocab)), Loss: g.found("loss", s.n, 1),
						LogitScale: s.scale, SoftCap: s.cap,
						Terms: []kernels.HeadTerm{
							{X: g.scaled("x", s.n, s.k, s.size), W: g.weight("w", d, s.vocab, s.k), Scale: 1, DX: g.out("dx", s.n, s.k)},
							{X: g.in("u", s.n, 3), W: g.known("b", s.vocab, 3), Scale: 0.5, DX: g.out("du", s.n, 3), DW: g.trained("db", s.vocab, 3)},
						}}
				})
			}
		}
	}
	// A model that is sure: what is left of its gradients are differences that
	// must not be taken between numbers next to one.
	for _, size := range []float64{4, 8, 16} {
		add(fmt.Sprintf("cross_entropy of a sure model, logits of %g", size), func(g *rig) kernels.Op {
			const vocab = 200
			targets, all := []int32{0, 77, 199, 64, 63}, make([]int32, vocab)
			for i := range all {
				all[i] = int32(i)
			}
			n := len(targets)
			return &kernels.CrossEntropy{Targets: g.indices("targets", targets), Loss: g.found("loss", n, 1), LogitScale: 1,
				Terms: []kernels.HeadTerm{{X: g.add("x", input, g.activation(), n, vocab, g.padding, g.picking(targets, vocab, size)),
					W:     g.add("w", input, g.float(), vocab, vocab, g.padding, g.picking(all, vocab, 1)),
					Scale: 1, DX: g.out("dx", n, vocab)}}}
		}).slack = 3 // rounding of the logits
	}
}

func optimizers(add adder) {
	for _, n := range []int{1, 3, 64, 1000, 5001, 20000} {
		for _, limit := range []float64{0, 0.5, 1e6} {
			add(fmt.Sprintf("clip_norm %d max %g", n, limit), func(g *rig) kernels.Op {
				return &kernels.ClipNorm{Grad: g.flat("grad", input, n, g.normal(n, 1)), Out: g.flat("out", output, 2, nil), Divisor: 7, Max: limit}
			})
		}
		for _, step := range []int{1, 2, 1000} {
			add(fmt.Sprintf("adamw %d step %d", n, step), func(g *rig) kernels.Op {
				v := g.normal(n, 1)
				for i := range v {
					v[i] *= v[i]
				}
				return &kernels.AdamW{Grad: g.flat("grad", input, n, g.normal(n, 1)), Clip: g.flat("clip", input, 2, []float64{2, 0.25}),
					P: g.flat("p", update, n, g.normal(n, 1)), M: g.flat("m", update, n, g.normal(n, 0.1)), V: g.flat("v", update, n, v),
					LR: 1e-2, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.01, Step: step}
			})
		}
	}
}
