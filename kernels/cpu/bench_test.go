package cpu

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"graft/kernels"
)

// measured holds the peaks by thread count, measured once.
var measured = [3]func() (flops, bytes float64){1: peaksOf(1), 2: peaksOf(2)}

func peaksOf(threads int) func() (float64, float64) {
	return sync.OnceValues(func() (float64, float64) {
		b := New(Options{Threads: threads})
		defer b.Close()
		return b.Peaks()
	})
}

// bench runs an operation on one and two threads and reports its rates and
// what share of the machine's peaks they are.
func bench(b *testing.B, name string, make func(m maker) kernels.Op) {
	for _, threads := range []int{1, 2} {
		b.Run(fmt.Sprintf("%s/threads=%d", name, threads), func(b *testing.B) {
			flops, bytes := measured[threads]()
			backend := New(Options{Threads: threads})
			defer backend.Close()
			ops := []kernels.Op{narrow(make(maker{rand.New(rand.NewPCG(1, 1))}))}
			if err := backend.Run(ops, nil); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				backend.Run(ops, nil)
			}
			seconds := b.Elapsed().Seconds() / float64(b.N)
			b.ReportMetric(ops[0].FLOPs()/seconds/1e9, "GFLOP/s")
			b.ReportMetric(100*ops[0].FLOPs()/seconds/flops, "%FLOP")
			b.ReportMetric(kernels.Traffic(ops[0])/seconds/1e9, "GB/s")
			b.ReportMetric(100*kernels.Traffic(ops[0])/seconds/bytes, "%byte")
		})
	}
}

func BenchmarkProduct(b *testing.B) {
	for _, c := range []struct {
		name          string
		rows, out, in int
		rank          int
		dtype         kernels.DType
		transposed    bool
	}{
		{"512x576x576", 512, 576, 576, 0, kernels.F32, false},
		{"512x1536x576", 512, 1536, 576, 0, kernels.F32, false},
		{"512x1536x576+r16", 512, 1536, 576, 16, kernels.F32, false},
		{"512x576x1536", 512, 576, 1536, 0, kernels.F32, false},
		{"512x576x1536T", 512, 576, 1536, 0, kernels.F32, true},
		{"512x576x1536Tbf16", 512, 576, 1536, 0, kernels.BF16, true},
		{"1024^3", 1024, 1024, 1024, 0, kernels.F32, false},
		{"1024^3bf16", 1024, 1024, 1024, 0, kernels.BF16, false},
		{"512x2048x2048", 512, 2048, 2048, 0, kernels.F32, false},
		{"512x2048x2048+r16", 512, 2048, 2048, 16, kernels.F32, false},
		{"512x16x576", 512, 16, 576, 0, kernels.F32, false},
		{"512x16x2048", 512, 16, 2048, 0, kernels.F32, false},
		{"512x16x1536T", 512, 16, 1536, 0, kernels.F32, true},
		{"1x576x576", 1, 576, 576, 0, kernels.F32, false},
		{"1x2048x2048bf16", 1, 2048, 2048, 0, kernels.BF16, false},
		{"1x2048x2048", 1, 2048, 2048, 0, kernels.F32, false},
		{"4x2048x2048", 4, 2048, 2048, 0, kernels.F32, false},
		{"8x2048x2048", 8, 2048, 2048, 0, kernels.F32, false},
	} {
		bench(b, c.name, func(m maker) kernels.Op {
			w := m.w(c.dtype, c.out, c.in)
			if c.transposed {
				w = m.w(c.dtype, c.in, c.out)
			}
			op := &kernels.Product{Out: m.f("Out", c.rows, c.out), Terms: []kernels.Term{{X: m.f("X", c.rows, c.in), W: w, Scale: 1, Transposed: c.transposed}}}
			if c.rank > 0 {
				op.Terms = append(op.Terms, kernels.Term{X: m.f("U", c.rows, c.rank), W: m.f("B", c.out, c.rank), Scale: 2})
			}
			return op
		})
	}
}

func BenchmarkWeightGrad(b *testing.B) {
	for _, s := range [][3]int{{512, 16, 576}, {512, 16, 2048}, {512, 576, 16}, {512, 1536, 16}, {512, 576, 576}, {512, 1536, 576}} {
		bench(b, fmt.Sprintf("T%dx%dx%d", s[0], s[1], s[2]), func(m maker) kernels.Op {
			return &kernels.WeightGrad{DY: m.f("DY", s[0], s[1]), X: m.f("X", s[0], s[2]), DW: m.f("DW", s[1], s[2]), Scale: 1}
		})
	}
}

func BenchmarkAttention(b *testing.B) {
	for _, c := range []struct{ sequences, rows int }{{4, 256}, {1, 512}, {1, 2048}} {
		all := c.sequences * c.rows
		shape := kernels.AttentionShape{HeadDim: 64, Scale: 0.125, Pairs: float64(all) * float64(c.rows+1) / 2}
		forward := func(m maker) *kernels.Attention {
			bounds := []int32{0}
			for i := range c.sequences {
				bounds = append(bounds, int32((i+1)*c.rows))
			}
			return &kernels.Attention{Q: m.f("Q", all, 576), K: m.f("K", all, 192), V: m.f("V", all, 192), Bounds: m.ints(bounds...),
				Out: m.f("Out", all, 576), LSE: m.f("LSE", all, 9), AttentionShape: shape}
		}
		bench(b, fmt.Sprintf("%dxT%d/forward", c.sequences, c.rows), func(m maker) kernels.Op { return forward(m) })
		bench(b, fmt.Sprintf("%dxT%d/backward", c.sequences, c.rows), func(m maker) kernels.Op {
			f := forward(m)
			return &kernels.AttentionGrad{Q: f.Q, K: f.K, V: f.V, Bounds: f.Bounds, Out: f.Out, LSE: f.LSE, DOut: m.f("DOut", all, 576),
				DQ: m.f("DQ", all, 576), DK: m.f("DK", all, 192), DV: m.f("DV", all, 192), AttentionShape: shape}
		})
	}
}

func BenchmarkCrossEntropy(b *testing.B) {
	bench(b, "512x576x49152", func(m maker) kernels.Op {
		return &kernels.CrossEntropy{Targets: m.below(512, 49152), Loss: m.f("Loss", 512, 1), LogitScale: 1,
			Terms: []kernels.HeadTerm{{X: m.f("X", 512, 576), W: m.w(kernels.BF16, 49152, 576), Scale: 0.1, DX: m.f("DX", 512, 576)}}}
	})
}

func BenchmarkRows(b *testing.B) {
	const rows, hidden, wide = 2048, 576, 1536
	bench(b, "norm", func(m maker) kernels.Op {
		return &kernels.RMSNorm{X: m.f("X", rows, hidden), Weight: m.w(kernels.F32, 1, hidden), Out: m.f("Out", rows, hidden), InvRMS: m.f("InvRMS", rows, 1), Eps: 1e-5}
	})
	bench(b, "norm_grad", func(m maker) kernels.Op {
		return &kernels.RMSNormGrad{X: m.f("X", rows, hidden), Weight: m.w(kernels.F32, 1, hidden), InvRMS: m.f("InvRMS", rows, 1),
			DOut: m.f("DOut", rows, hidden), Add: m.f("Add", rows, hidden), DX: m.f("DX", rows, hidden)}
	})
	bench(b, "gated", func(m maker) kernels.Op {
		return &kernels.Gated{Gate: m.f("Gate", rows, wide), Up: m.f("Up", rows, wide), Out: m.f("Out", rows, wide)}
	})
	bench(b, "gated_grad", func(m maker) kernels.Op {
		return &kernels.GatedGrad{Gate: m.f("Gate", rows, wide), Up: m.f("Up", rows, wide), DOut: m.f("DOut", rows, wide), DGate: m.f("DGate", rows, wide), DUp: m.f("DUp", rows, wide)}
	})
	bench(b, "rotary", func(m maker) kernels.Op {
		return &kernels.Rotary{X: m.f("X", rows, hidden), Table: m.f("Table", rows, 64), Out: m.f("Out", rows, hidden), HeadDim: 64}
	})
	bench(b, "rotary_table", func(m maker) kernels.Op {
		return &kernels.RotaryTable{Positions: m.below(rows, rows), Freqs: m.tensor("Freqs", kernels.F64, 1, 32), Out: m.f("Table", rows, 64), Scale: 1}
	})
	bench(b, "dropout", func(m maker) kernels.Op {
		return &kernels.Dropout{X: m.f("X", rows, hidden), Out: m.f("Out", rows, hidden), P: 0.1}
	})
	bench(b, "sum", func(m maker) kernels.Op {
		return &kernels.Sum{A: m.f("A", rows, hidden), B: m.f("B", rows, hidden), Out: m.f("Out", rows, hidden)}
	})
	const parameters = 4 << 20
	bench(b, "clip_norm", func(m maker) kernels.Op {
		return &kernels.ClipNorm{Grad: m.f("Grad", 1, parameters), Out: m.f("Clip", 1, 2), Divisor: 1, Max: 1}
	})
	bench(b, "adamw", func(m maker) kernels.Op {
		return &kernels.AdamW{Grad: m.f("Grad", 1, parameters), Clip: m.f("Clip", 1, 2), P: m.f("P", 1, parameters), M: m.f("M", 1, parameters), V: m.f("V", 1, parameters),
			LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}
	})
}
