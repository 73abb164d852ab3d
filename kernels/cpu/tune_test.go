package cpu

import (
	"math/rand/v2"
	"testing"
	"time"

	"graft/kernels"
)

func TestTune(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 1))}
	b := New(Options{Threads: 1})
	defer b.Close()
	peak := 0.0
	for range 3 {
		f, _ := b.Peaks()
		peak = max(peak, f)
	}
	prod := func(rows, out, in, rank int, d kernels.DType, tr bool) kernels.Op {
		w := m.w(d, out, in)
		if tr {
			w = m.w(d, in, out)
		}
		op := &kernels.Product{Out: m.f("Out", rows, out), Terms: []kernels.Term{{X: m.f("X", rows, in), W: w, Scale: 1, Transposed: tr}}}
		if rank > 0 {
			op.Terms = append(op.Terms, kernels.Term{X: m.f("U", rows, rank), W: m.f("B", out, rank), Scale: 2})
		}
		return op
	}
	at := func(T int, back bool) kernels.Op {
		shape := kernels.AttentionShape{HeadDim: 64, Scale: 0.125, Pairs: float64(T) * float64(T+1) / 2}
		f := &kernels.Attention{Q: m.f("Q", T, 576), K: m.f("K", T, 192), V: m.f("V", T, 192), Bounds: m.ints(0, int32(T)),
			Out: m.f("Out", T, 576), LSE: m.f("LSE", T, 9), AttentionShape: shape}
		if !back {
			return f
		}
		return &kernels.AttentionGrad{Q: f.Q, K: f.K, V: f.V, Bounds: f.Bounds, Out: f.Out, LSE: f.LSE, DOut: m.f("DOut", T, 576),
			DQ: m.f("DQ", T, 576), DK: m.f("DK", T, 192), DV: m.f("DV", T, 192), AttentionShape: shape}
	}
	for _, c := range []struct {
		name string
		op   kernels.Op
	}{
		{"576x576", prod(512, 576, 576, 0, kernels.F32, false)},
		{"1536x576", prod(512, 1536, 576, 0, kernels.F32, false)},
		{"1536x576+16", prod(512, 1536, 576, 16, kernels.F32, false)},
		{"576x1536T", prod(512, 576, 1536, 0, kernels.F32, true)},
		{"1024", prod(1024, 1024, 1024, 0, kernels.F32, false)},
		{"1024bf16", prod(1024, 1024, 1024, 0, kernels.BF16, false)},
		{"2048", prod(512, 2048, 2048, 0, kernels.F32, false)},
		{"2048+16", prod(512, 2048, 2048, 16, kernels.F32, false)},
		{"16x576", prod(512, 16, 576, 0, kernels.F32, false)},
		{"16x2048", prod(512, 16, 2048, 0, kernels.F32, false)},
		{"wg576x16", &kernels.WeightGrad{DY: m.f("DY", 512, 576), X: m.f("X", 512, 16), DW: m.f("DW", 576, 16), Scale: 1}},
		{"wg16x576", &kernels.WeightGrad{DY: m.f("DY", 512, 16), X: m.f("X", 512, 576), DW: m.f("DW", 16, 576), Scale: 1}},
		{"wg16x2048", &kernels.WeightGrad{DY: m.f("DY", 512, 16), X: m.f("X", 512, 2048), DW: m.f("DW", 16, 2048), Scale: 1}},
		{"wg1536x576", &kernels.WeightGrad{DY: m.f("DY", 512, 1536), X: m.f("X", 512, 576), DW: m.f("DW", 1536, 576), Scale: 1}},
		{"att512", at(512, false)},
		{"att2048", at(2048, false)},
		{"attg512", at(512, true)},
		{"attg2048", at(2048, true)},
	} {
		ops := []kernels.Op{narrow(c.op)}
		best := time.Hour
		for begin := time.Now(); time.Since(begin) < 400*time.Millisecond; {
			s := time.Now()
			b.Run(ops, nil)
			best = min(best, time.Since(s))
		}
		t.Logf("%-12s %8.3f ms  %5.1f GF  %5.1f%%", c.name, best.Seconds()*1e3, c.op.FLOPs()/best.Seconds()/1e9, 100*c.op.FLOPs()/best.Seconds()/peak)
	}
}
