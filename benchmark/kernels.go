package benchmark

import (
	"fmt"

	"graft/kernels"
)

// Maker allocates tensors on a backend and fills them. A dry one, and any after
// its first error, returns tensors without memory.
type Maker struct {
	backend kernels.Backend
	dry     bool
	err     error
}

// Activations returns a matrix of the backend's type of activations.
func (m *Maker) Activations(name string, rows, cols int) *kernels.Tensor {
	return m.Weights(name, m.backend.Info().Activations(), rows, cols)
}

// Floats returns a matrix of its type of parameters and statistics.
func (m *Maker) Floats(name string, rows, cols int) *kernels.Tensor {
	return m.Weights(name, m.backend.Info().Float, rows, cols)
}

// Weights returns a matrix of a stored type, with values around 0.
func (m *Maker) Weights(name string, d kernels.DType, rows, cols int) *kernels.Tensor {
	t := m.tensor(name, d, rows, cols)
	if t.Buf == nil {
		return t
	}
	v, row := make([]float64, cols), make([]byte, d.Bytes(cols))
	for i := range rows {
		if d.Quantised() { // of any bytes: their arithmetic takes as long as any other's
			t.Buf.Write(row, i*len(row))
			continue
		}
		for j := range v {
			v[j] = float64((i*7+j*13)%31-15) / 64
		}
		kernels.EncodeFloat64(row, v, d)
		t.Buf.Write(row, i*len(row))
	}
	return t
}

// Ints returns a column of indices.
func (m *Maker) Ints(name string, v []int32) *kernels.Tensor {
	t := m.tensor(name, kernels.I32, len(v), 1)
	if t.Buf != nil {
		t.SetInt32s(v)
	}
	return t
}

func (m *Maker) tensor(name string, d kernels.DType, rows, cols int) *kernels.Tensor {
	t := &kernels.Tensor{Name: name, DType: d, Rows: rows, Cols: cols, Stride: cols}
	if m.err == nil && !m.dry {
		t.Buf, m.err = m.backend.Alloc(t.Bytes())
	}
	return t
}

// upTo returns n indices, all below limit.
func upTo(n, limit int) []int32 {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(i * 7919 % limit)
	}
	return v
}

// Kernels returns every kind of operation, at shapes that are typical or known
// from elsewhere: those of SmolLM2-135M and of a model of 2048 columns; what is
// bound by memory in matrices that no cache holds; and those of Lead.
func Kernels() []Group {
	groups := []Group{{"product", products}}
	for _, s := range [][2]int{{576, 1536}, {2048, 2048}} {
		groups = append(groups, Group{"LoRA linear", func(m *Maker) []Case { return linear(m, 512, s[0], s[1], 16) }})
	}
	for _, bounds := range [][]int32{{0, 2048}, {0, 256, 512, 768, 1024}} {
		groups = append(groups, Group{"attention", func(m *Maker) []Case { return attention(m, bounds) }})
	}
	groups = append(groups, Group{"loss", loss}, Group{"softmax and norms", rows}, Group{"elementwise", elementwise},
		Group{"generation", generation}, Group{"optimizer", optimizer})
	for i, seed := range []float64{37.0e-6, 54.8e-6, 98.4e-6} {
		n := 512 << i
		groups = append(groups, Group{"leads", func(m *Maker) []Case {
			cases := linear(m, 128, n, n, 8)[:2]
			cases[1].Lead = Lead{seed, 8e-6}
			return cases
		}})
	}
	return append(groups, Group{"leads", leads})
}

func products(m *Maker) []Case {
	const n = 1024
	x, out := m.Activations("x", n, n), m.Activations("out", n, n)
	var cases []Case
	for _, d := range []kernels.DType{kernels.F32, kernels.BF16, kernels.F16, kernels.Q8_0, kernels.Q4_0, kernels.Q6_K} {
		w := m.Weights("w", d, n, n)
		for _, transposed := range []bool{false, true} {
			name := "product"
			if transposed {
				name = "product transposed"
			}
			cases = append(cases, Case{Kind: name, Shape: fmt.Sprintf("%d³ %v", n, d), Ops: []kernels.Op{
				&kernels.Product{Terms: []kernels.Term{{X: x, W: w, Transposed: transposed, Scale: 1}}, Out: out}}})
		}
	}
	return append(cases, Case{Kind: "weight_grad", Shape: fmt.Sprintf("%d³", n), Ops: []kernels.Op{
		&kernels.WeightGrad{DY: x, X: out, DW: m.Floats("dw", n, n), Scale: 1}}})
}

// linear is a linear layer [in → out] for t tokens, with and without an
// adapter, forward and backward.
func linear(m *Maker, t, in, out, rank int) []Case {
	shape := fmt.Sprintf("%d×%d→%d r%d", t, in, out, rank)
	x, y, dy, dx := m.Activations("x", t, in), m.Activations("y", t, out), m.Activations("dy", t, out), m.Activations("dx", t, in)
	w, a, b := m.Floats("w", out, in), m.Floats("a", rank, in), m.Floats("b", out, rank)
	u, du := m.Activations("u", t, rank), m.Activations("du", t, rank)
	da, db := m.Floats("da", rank, in), m.Floats("db", out, rank)
	const scale = 2
	return []Case{
		{Kind: "linear", Shape: shape, Ops: []kernels.Op{
			&kernels.Product{Terms: []kernels.Term{{X: x, W: w, Scale: 1}}, Out: y}}},
		{Kind: "LoRA linear", Shape: shape, Against: "linear", Ops: []kernels.Op{
			&kernels.Product{Terms: []kernels.Term{{X: x, W: a, Scale: 1}}, Out: u},
			&kernels.Product{Terms: []kernels.Term{{X: x, W: w, Scale: 1}, {X: u, W: b, Scale: scale}}, Out: y}}},
		{Kind: "linear backward", Shape: shape, Ops: []kernels.Op{
			&kernels.Product{Terms: []kernels.Term{{X: dy, W: w, Transposed: true, Scale: 1}}, Out: dx}}},
		{Kind: "LoRA linear backward", Shape: shape, Against: "linear backward", Ops: []kernels.Op{
			&kernels.Product{Terms: []kernels.Term{{X: dy, W: b, Transposed: true, Scale: scale}}, Out: du},
			&kernels.WeightGrad{DY: dy, X: u, DW: db, Scale: scale},
			&kernels.WeightGrad{DY: du, X: x, DW: da, Scale: 1},
			&kernels.Product{Terms: []kernels.Term{{X: dy, W: w, Transposed: true, Scale: 1}, {X: du, W: a, Transposed: true, Scale: 1}}, Out: dx}}},
	}
}

func attention(m *Maker, bounds []int32) []Case {
	const heads, shared, dim = 9, 3, 64
	t, pairs := int(bounds[len(bounds)-1]), 0.0
	for i := 1; i < len(bounds); i++ {
		n := float64(bounds[i] - bounds[i-1])
		pairs += n * (n + 1) / 2
	}
	f := &kernels.Attention{Q: m.Activations("q", t, heads*dim), K: m.Activations("k", t, shared*dim), V: m.Activations("v", t, shared*dim),
		Bounds: m.Ints("bounds", bounds), Out: m.Activations("out", t, heads*dim), LSE: m.Floats("lse", t, heads),
		AttentionShape: kernels.AttentionShape{HeadDim: dim, Scale: 0.125, Pairs: pairs}}
	shape := fmt.Sprintf("%d × T %d, %d/%d heads of %d", len(bounds)-1, t/(len(bounds)-1), heads, shared, dim)
	return []Case{
		{Kind: "attention", Shape: shape, Ops: []kernels.Op{f}},
		{Kind: "attention_grad", Shape: shape, Ops: []kernels.Op{&kernels.AttentionGrad{Q: f.Q, K: f.K, V: f.V, Bounds: f.Bounds, Out: f.Out, LSE: f.LSE,
			DOut: m.Activations("dout", t, heads*dim), DQ: m.Activations("dq", t, heads*dim), DK: m.Activations("dk", t, shared*dim), DV: m.Activations("dv", t, shared*dim),
			AttentionShape: f.AttentionShape}}},
	}
}

func loss(m *Maker) []Case {
	const n, hidden, vocab = 512, 576, 49152
	x, targets, out := m.Activations("x", n, hidden), m.Ints("targets", upTo(n, vocab)), m.Floats("loss", n, 1)
	w := m.Weights("w", kernels.BF16, vocab, hidden)
	dx := m.Activations("dx", n, hidden)
	head := func(dx *kernels.Tensor) []kernels.Op {
		return []kernels.Op{&kernels.CrossEntropy{Terms: []kernels.HeadTerm{{X: x, W: w, Scale: 1, DX: dx}}, Targets: targets, Loss: out, LogitScale: 1}}
	}
	shape := fmt.Sprintf("%d×%d→%d BF16", n, hidden, vocab)
	return []Case{{Kind: "cross_entropy", Shape: shape, Ops: head(nil)}, {Kind: "cross_entropy with gradient", Shape: shape, Ops: head(dx)}}
}

// Matrices of 64 MiB: more than caches hold.
const (
	largeRows = 16384
	largeCols = 1024
)

// rows is what normalises rows, beside a copy of as many bytes.
func rows(m *Maker) []Case {
	large := func(name string) *kernels.Tensor { return m.Activations(name, largeRows, largeCols) }
	x, y, out := large("x"), large("y"), large("out")
	weight, inv := m.Floats("weight", 1, largeCols), m.Floats("inv", largeRows, 1)
	all := make([]int32, largeRows)
	for i := range all {
		all[i] = int32(i)
	}
	shape := fmt.Sprintf("%d×%d", largeRows, largeCols)
	one := func(kind, against string, op kernels.Op) Case {
		return Case{Kind: kind, Shape: shape, Against: against, Ops: []kernels.Op{op}}
	}
	return []Case{
		one("gather (a copy)", "", &kernels.Gather{Rows: m.Ints("rows", all), X: x, Out: out}),
		one("softmax", "gather (a copy)", &kernels.Softmax{X: x, Out: out, Scale: 0.125}),
		one("softmax_grad", "", &kernels.SoftmaxGrad{Out: x, DOut: y, DX: out, Scale: 0.125}),
		one("rms_norm", "gather (a copy)", &kernels.RMSNorm{X: x, Weight: weight, Out: out, InvRMS: inv, Eps: 1e-5}),
		one("rms_norm with residual", "", &kernels.RMSNorm{X: x, Residual: y, Sum: large("sum"), Weight: weight, Out: out, InvRMS: inv, Eps: 1e-5}),
		one("rms_norm_grad", "", &kernels.RMSNormGrad{X: x, InvRMS: inv, Weight: weight, DOut: y, DX: out}),
		one("rms_norm_grad with output", "", &kernels.RMSNormGrad{X: x, InvRMS: inv, Weight: weight, DOut: y, DX: out, Out: large("again")}),
	}
}

func elementwise(m *Maker) []Case {
	large := func(name string) *kernels.Tensor { return m.Activations(name, largeRows, largeCols) }
	a, b, c, d, e, f := large("a"), large("b"), large("c"), large("d"), large("e"), large("f")
	positions := m.Ints("positions", upTo(largeRows, 2048))
	freqs, table := m.Weights("freqs", kernels.F64, 1, 32), m.Floats("table", largeRows, 64)
	bias, all := m.Floats("bias", 1, largeCols), m.Ints("all", upTo(largeRows, largeRows))
	shape := fmt.Sprintf("%d×%d", largeRows, largeCols)
	one := func(kind string, op kernels.Op) Case { return Case{Kind: kind, Shape: shape, Ops: []kernels.Op{op}} }
	cases := []Case{
		one("sum", &kernels.Sum{A: a, B: b, Out: c}),
		one("zero", &kernels.Zero{Out: c}),
		one("dropout", &kernels.Dropout{X: a, Out: c, P: 0.1}),
		one("embed", &kernels.Embed{Tokens: all, Table: a, Out: c, Scale: 1}),
		one("embed_grad", &kernels.EmbedGrad{Tokens: all, DOut: c, DTable: m.Floats("dtable", largeRows, largeCols), Scale: 1}),
		one("scatter", &kernels.Scatter{Rows: all, X: a, Out: c}),
		one("bias_grad", &kernels.BiasGrad{DY: a, DBias: bias}),
		{Kind: "rotary_table", Shape: fmt.Sprintf("%d×%d", largeRows, table.Cols), Ops: []kernels.Op{
			&kernels.RotaryTable{Positions: positions, Freqs: freqs, Out: table, Scale: 1}}},
		one("rotary", &kernels.Rotary{X: a, Table: table, Out: c, HeadDim: 64}),
	}
	for act, name := range []string{"SiLU", "GELU", "GELU tanh"} {
		cases = append(cases, one("gated "+name, &kernels.Gated{Gate: a, Up: b, Out: c, Act: kernels.Act(act)}),
			one("gated_grad "+name, &kernels.GatedGrad{Gate: a, Up: b, DOut: c, DGate: d, DUp: e, Act: kernels.Act(act)}),
			one("gated_grad "+name+" with output", &kernels.GatedGrad{Gate: a, Up: b, DOut: c, DGate: d, DUp: e, Out: f, Act: kernels.Act(act)}))
	}
	return cases
}

// generation is products with few rows, which read the weights once.
func generation(m *Maker) []Case {
	const n = 4096
	var cases []Case
	for _, d := range []kernels.DType{kernels.F32, kernels.BF16} {
		w := m.Weights("w", d, n, n)
		for _, t := range []int{1, 4, 16} {
			cases = append(cases, Case{Kind: "product", Shape: fmt.Sprintf("%d×%d→%d %v", t, n, n, d), Ops: []kernels.Op{
				&kernels.Product{Terms: []kernels.Term{{X: m.Activations("x", t, n), W: w, Scale: 1}}, Out: m.Activations("out", t, n)}}})
		}
	}
	return cases
}

func optimizer(m *Maker) []Case {
	const n = 8 << 20
	flat := func(name string) *kernels.Tensor { return m.Floats(name, 1, n) }
	grad, clip := flat("grad"), m.Floats("clip", 1, 2)
	shape := fmt.Sprintf("%d", n)
	return []Case{
		{Kind: "clip_norm", Shape: shape, Ops: []kernels.Op{&kernels.ClipNorm{Grad: grad, Out: clip, Divisor: 1, Max: 1}}},
		{Kind: "adamw", Shape: shape, Ops: []kernels.Op{&kernels.AdamW{Grad: grad, Clip: clip, P: flat("p"), M: flat("m"), V: flat("v"),
			LR: 1e-3, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Step: 1}}},
	}
}

// leads are the small shapes of the seed figures.
func leads(m *Maker) []Case {
	const rows, cols = 64, 1024
	x, out := m.Activations("x", rows, cols), m.Activations("out", rows, cols)
	return []Case{
		{Kind: "softmax", Shape: "4×16×1024", Lead: Lead{41.5e-6, 6e-6}, Ops: []kernels.Op{&kernels.Softmax{X: x, Out: out, Scale: 1}}},
		{Kind: "rms_norm", Shape: "4×16×1024", Lead: Lead{25.0e-6, 5.5e-6}, Ops: []kernels.Op{
			&kernels.RMSNorm{X: x, Weight: m.Floats("w", 1, cols), Out: out, InvRMS: m.Floats("inv", rows, 1), Eps: 1e-5}}},
	}
}
