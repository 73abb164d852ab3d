package program

import (
	"fmt"

	"graft/kernels"
)

// must panics when a shape rule is broken.
func must(ok bool, op, format string, args ...any) {
	if !ok {
		panic("program: " + op + ": " + fmt.Sprintf(format, args...))
	}
}

func sameRows(op string, a, b *Value) {
	must(a.count == b.count && (a.count != Fixed || a.fixed == b.fixed), op, "rows of %v and %v differ", a, b)
}

func sameShape(op string, a, b *Value) {
	sameRows(op, a, b)
	must(a.Cols == b.Cols, op, "columns of %v and %v differ", a, b)
}

// Embed looks up the rows of table [vocab, hidden] and multiplies them by
// scale: [T, hidden].
func (p *Program) Embed(tokens, table *Value, scale float64) *Value {
	must(tokens.DType == kernels.I32 && table.count == Fixed, "Embed", "tokens %v, table %v", tokens, table)
	out := p.result("embedding", tokens, table.Cols)
	p.emit(&kernels.Embed{Tokens: tokens.T(), Table: table.T(), Out: out.T(), Scale: scale})
	return out
}

// RMSNorm normalises groups of len(weight) columns of x, or of x + residual,
// which it returns too (x itself without a residual).
func (p *Program) RMSNorm(x, residual, weight *Value, eps, offset float64) (sum, out *Value) {
	must(weight.fixed == 1 && x.Cols%weight.Cols == 0, "RMSNorm", "x %v, weight %v", x, weight)
	sum = x
	if residual != nil {
		sameShape("RMSNorm", x, residual)
		sum = p.result("hidden", x, x.Cols)
	}
	out = p.result("normed", x, x.Cols)
	// A norm is cheaper to repeat than to keep.
	out.recomputed = true
	inv := p.summary("1/rms", x, x.Cols/weight.Cols)
	op := &kernels.RMSNorm{X: x.T(), Residual: residual.T(), Weight: weight.T(), Out: out.T(), InvRMS: inv.T(), Eps: eps, Offset: offset}
	if residual != nil {
		op.Sum = sum.T()
	}
	p.emit(op)
	return sum, out
}

// Adapter is a low-rank addition to a linear layer: Scale·U·Bᵀ, where U is
// the product of the layer's input (possibly with dropout) and A.
type Adapter struct {
	U     *Value // [T, rank]
	B     *Value // [out, rank]
	Scale float64
}

// Linear computes scale·(x·weightᵀ + adapter) + bias for weight [out, in]:
// [T, out]. Bias and adapter may be nil.
func (p *Program) Linear(x, weight, bias *Value, adapter *Adapter, scale float64) *Value {
	must(weight.count == Fixed && x.Cols == weight.Cols, "Linear", "x %v, weight %v", x, weight)
	out := p.result("linear", x, weight.fixed)
	op := &kernels.Product{Bias: bias.T(), Out: out.T(), Terms: []kernels.Term{{X: x.T(), W: weight.T(), Scale: scale}}}
	if a := adapter; a != nil {
		sameRows("Linear", x, a.U)
		must(a.U.Cols == a.B.Cols && a.B.fixed == weight.fixed, "Linear", "adapter %v, %v for weight %v", a.U, a.B, weight)
		op.Terms = append(op.Terms, kernels.Term{X: a.U.T(), W: a.B.T(), Scale: scale * a.Scale})
	}
	must(bias == nil || bias.fixed == 1 && bias.Cols == weight.fixed, "Linear", "bias %v", bias)
	p.emit(op)
	return out
}

// RotaryTable computes cosines and sines for the positions: [T, 2·len(freqs)].
func (p *Program) RotaryTable(positions, freqs *Value, scale float64) *Value {
	must(freqs.fixed == 1 && freqs.DType == kernels.F64, "RotaryTable", "frequencies %v", freqs)
	out := p.summary("angles", positions, 2*freqs.Cols)
	out.recomputed = false // one for all layers
	p.emit(&kernels.RotaryTable{Positions: positions.T(), Freqs: freqs.T(), Out: out.T(), Scale: scale})
	return out
}

// Rotary turns each head of x by the table's angles.
func (p *Program) Rotary(x, table *Value, headDim int) *Value {
	sameRows("Rotary", x, table)
	must(x.Cols%headDim == 0 && table.Cols <= headDim, "Rotary", "x %v, table %v, head_dim %d", x, table, headDim)
	out := p.result("rotated", x, x.Cols)
	p.emit(&kernels.Rotary{X: x.T(), Table: table.T(), Out: out.T(), HeadDim: headDim})
	return out
}

// Attention is causal attention within each sequence: [T, heads·HeadDim].
func (p *Program) Attention(q, k, v, bounds *Value, shape kernels.AttentionShape) *Value {
	sameRows("Attention", q, k)
	sameShape("Attention", k, v)
	d := shape.HeadDim
	must(q.Cols%d == 0 && k.Cols%d == 0 && q.Cols%k.Cols == 0, "Attention", "q %v, k %v, head_dim %d", q, k, d)
	must(bounds.count == Bounds, "Attention", "bounds %v", bounds)
	out := p.result("attention", q, q.Cols)
	lse := p.summary("lse", q, q.Cols/d)
	p.emit(&kernels.Attention{Q: q.T(), K: k.T(), V: v.T(), Bounds: bounds.T(), Out: out.T(), LSE: lse.T(), AttentionShape: shape})
	return out
}

// Gated computes act(gate)·up.
func (p *Program) Gated(gate, up *Value, act kernels.Act) *Value {
	sameShape("Gated", gate, up)
	out := p.result("gated", gate, gate.Cols)
	out.recomputed = true // cheaper to repeat than to keep
	p.emit(&kernels.Gated{Gate: gate.T(), Up: up.T(), Out: out.T(), Act: act})
	return out
}

// Add computes a + b.
func (p *Program) Add(a, b *Value) *Value {
	sameShape("Add", a, b)
	out := p.result("hidden", a, a.Cols)
	p.emit(&kernels.Sum{A: a.T(), B: b.T(), Out: out.T()})
	return out
}

// Gather picks rows of x: [N, cols].
func (p *Program) Gather(rows, x *Value) *Value {
	out := p.result(x.Name+" rows", rows, x.Cols)
	p.emit(&kernels.Gather{Rows: rows.T(), X: x.T(), Out: out.T()})
	return out
}

// Dropout zeroes elements with probability rate; stream names the module.
func (p *Program) Dropout(x *Value, rate float64, seed uint64, stream uint32) *Value {
	must(rate > 0 && rate < 1, "Dropout", "probability %v", rate)
	out := p.result("dropout", x, x.Cols)
	out.recomputed = true // the mask is a function of the position
	p.emit(&kernels.Dropout{X: x.T(), Out: out.T(), P: rate, Seed: seed, Stream: stream})
	return out
}

// CrossEntropy is the output head and its loss, one row for each of x:
// [N, 1]. The adapter may be nil.
func (p *Program) CrossEntropy(x, weight, targets *Value, adapter *Adapter, logitScale, softCap float64) *Value {
	sameRows("CrossEntropy", x, targets)
	must(x.Cols == weight.Cols, "CrossEntropy", "x %v, weight %v", x, weight)
	loss := p.summary("loss", x, 1)
	p.Keep(loss)
	op := &kernels.CrossEntropy{Targets: targets.T(), Loss: loss.T(), LogitScale: logitScale, SoftCap: softCap,
		Terms: []kernels.HeadTerm{{X: x.T(), W: weight.T(), Scale: 1}}}
	if adapter != nil {
		op.Terms = append(op.Terms, kernels.HeadTerm{X: adapter.U.T(), W: adapter.B.T(), Scale: adapter.Scale})
	}
	p.emit(op)
	return loss
}
