package program

import (
	"fmt"

	"graft/kernels"
)

// gradient collects what a value's gradient is the sum of. Products are kept
// as terms, so that the gradient of an input that several layers share becomes
// one product, computed in one pass.
type gradient struct {
	values []*Value       // summands that are computed already
	terms  []kernels.Term // summands still to be multiplied out
	parts  []*part        // gradients of column slices
	whole  *Value         // memory that slices are written to
}

// part is the gradient of a column slice.
type part struct {
	slice *Value
	gradient
	written bool
}

// Backward appends the gradient operations of everything trainable, from the
// last operation, the loss, to the first that a parameter feeds. Nothing is
// computed below it.
func (p *Program) Backward() {
	for i := len(p.Ops) - 1; i >= 0; i-- {
		p.here = p.Labels[i]
		p.here.Pass = Backward
		p.block = false
		p.differentiate(p.Ops[i])
	}
	must(len(p.later) == 0, "Backward", "%d values were not made again", len(p.later))
}

// differentiate is the table of gradient rules, one for each kind.
func (p *Program) differentiate(op kernels.Op) {
	switch op := op.(type) {
	case *kernels.CrossEntropy:
		p.crossEntropyRule(op)
	case *kernels.Embed:
		p.embedRule(op)
	case *kernels.RMSNorm:
		p.rmsNormRule(op)
	case *kernels.Product:
		p.productRule(op)
	case *kernels.Rotary:
		p.rotaryRule(op)
	case *kernels.Attention:
		p.attentionRule(op)
	case *kernels.Gated:
		p.gatedRule(op)
	case *kernels.Sum:
		if d := p.gradientOf(op.Out); d != nil {
			p.add(p.value(op.A), d)
			p.add(p.value(op.B), d)
		}
	case *kernels.Gather:
		p.gatherRule(op)
	case *kernels.Dropout:
		p.dropoutRule(op)
	case *kernels.RotaryTable: // of positions, which nothing trains
	default:
		panic(fmt.Sprintf("program: no gradient rule for %s", op.Kind()))
	}
}

// The loss computes its gradients in the pass that computes it.
func (p *Program) crossEntropyRule(op *kernels.CrossEntropy) {
	for i := range op.Terms {
		t := &op.Terms[i]
		if x := p.value(t.X); x.needsGrad {
			d := p.destination(x)
			t.DX = d.T()
		}
		if w := p.value(t.W); w.param {
			t.DW = w.grad.T()
		}
	}
}

func (p *Program) embedRule(op *kernels.Embed) {
	table := p.value(op.Table)
	if d := p.gradientOf(op.Out); d != nil && table.param {
		p.emit(&kernels.EmbedGrad{Tokens: op.Tokens, DOut: d.T(), DTable: table.grad.T(), Scale: op.Scale})
	}
}

// s = x + residual passes the gradient of s on to both unchanged, so what has
// come to s so far is added in the same pass.
func (p *Program) rmsNormRule(op *kernels.RMSNorm) {
	x := p.value(op.X)
	sum := x
	if op.Sum != nil {
		sum = p.value(op.Sum)
	}
	if !sum.needsGrad {
		p.normWeightRule(op, sum)
		return
	}
	var add *Value
	if sum.root == sum {
		add = p.take(sum)
	}
	d := p.gradientOf(op.Out)
	if d == nil { // only the sum is used
		if add != nil {
			p.spread(op, add)
		}
		return
	}
	p.spread(op, p.normGrad("d hidden", op, sum, d, add))
}

// normWeightRule is for a norm whose input needs no gradient but whose weight
// is trained.
func (p *Program) normWeightRule(op *kernels.RMSNorm, sum *Value) {
	if d := p.gradientOf(op.Out); d != nil && p.value(op.Weight).param {
		p.normGrad("unused", op, sum, d, nil)
	}
}

// normGrad emits the gradients of a norm of sum, whose output has the gradient d, and returns sum's,
// with what is to be added, if anything.
func (p *Program) normGrad(name string, op *kernels.RMSNorm, sum, d, add *Value) *Value {
	dx := p.temporary(name, sum)
	g := &kernels.RMSNormGrad{X: p.need(sum).T(), InvRMS: p.needBeside(op.InvRMS).T(), Weight: op.Weight,
		DOut: d.T(), Add: add.T(), DX: dx.T(), Offset: op.Offset}
	if weight := p.value(op.Weight); weight.param {
		g.DWeight = weight.grad.T()
	}
	p.emitMaking(op.Out, &g.Out, g)
	return dx
}

func (p *Program) spread(op *kernels.RMSNorm, d *Value) {
	p.add(p.value(op.X), d)
	if op.Residual != nil {
		p.add(p.value(op.Residual), d)
	}
}

// With dY known: dX = Σ Scale·dY·W, dW += Scale·dYᵀ·X, dBias += Σ dY.
func (p *Program) productRule(op *kernels.Product) {
	d := p.gradientOf(op.Out)
	if d == nil {
		return
	}
	for _, t := range op.Terms {
		must(!t.Transposed, "Backward", "a transposed product has no gradient rule")
		x, w := p.value(t.X), p.value(t.W)
		if w.param {
			p.weightGrad(x, &kernels.WeightGrad{DY: d.T(), DW: w.grad.T(), Scale: t.Scale})
		}
		if x.needsGrad {
			g := p.sum(x)
			g.terms = append(g.terms, kernels.Term{X: d.T(), W: t.W, Transposed: true, Scale: t.Scale})
		}
	}
	if op.Bias != nil {
		if b := p.value(op.Bias); b.param {
			p.emit(&kernels.BiasGrad{DY: d.T(), DBias: b.grad.T()})
		}
	}
	if op.Add != nil {
		p.add(p.value(op.Add), d)
	}
}

// waiting is a weight's gradient without its X yet.
type waiting struct {
	op    *kernels.WeightGrad
	label Label
}

// weightGrad emits the gradient of a weight by which x was multiplied. If x was not kept, and will
// be made again beside its own gradient, that of the weight follows then.
func (p *Program) weightGrad(x *Value, g *kernels.WeightGrad) {
	if x.root == x && x.recomputed && x.needsGrad && p.again[x] == nil && madeByGradient(p.Ops[x.producer], x.T()) {
		p.later[x] = append(p.later[x], waiting{g, p.here})
		return
	}
	g.X = p.need(x).T()
	p.emit(g)
}

// madeByGradient says whether the gradient of an operation can make its output out again.
func madeByGradient(op kernels.Op, out *kernels.Tensor) bool {
	switch op := op.(type) {
	case *kernels.RMSNorm:
		return op.Out == out
	case *kernels.Gated:
		return true
	}
	return false
}

// emitMaking emits the gradient g of an operation with the output out. If gradients of weights
// wait for out, g makes it again, as its own operand *again, unless that has happened already; they follow.
func (p *Program) emitMaking(out *kernels.Tensor, again **kernels.Tensor, g kernels.Op) {
	v := p.value(out)
	if len(p.later[v]) > 0 && p.again[v] == nil {
		p.again[v] = p.temporary(v.Name, v)
		*again = p.again[v].T()
	}
	p.emit(g)
	here := p.here
	for _, w := range p.later[v] {
		p.here, w.op.X = w.label, p.again[v].T()
		p.emit(w.op)
	}
	p.here = here
	delete(p.later, v)
}

func (p *Program) rotaryRule(op *kernels.Rotary) {
	if d := p.gradientOf(op.Out); d != nil {
		x := p.value(op.X)
		p.emit(&kernels.Rotary{X: d.T(), Table: op.Table, Out: p.destination(x).T(), HeadDim: op.HeadDim, Inverse: true})
	}
}

func (p *Program) attentionRule(op *kernels.Attention) {
	d := p.gradientOf(op.Out)
	if d == nil {
		return
	}
	q, k, v := p.value(op.Q), p.value(op.K), p.value(op.V)
	out := p.need(p.value(op.Out))
	g := &kernels.AttentionGrad{
		Q: p.need(q).T(), K: p.need(k).T(), V: p.need(v).T(), Bounds: op.Bounds,
		Out: out.T(), LSE: p.needBeside(op.LSE).T(), DOut: d.T(),
		AttentionShape: op.AttentionShape,
	}
	g.DQ, g.DK, g.DV = p.destinationOrUnused(q).T(), p.destinationOrUnused(k).T(), p.destinationOrUnused(v).T()
	p.emit(g)
}

func (p *Program) gatedRule(op *kernels.Gated) {
	d := p.gradientOf(op.Out)
	if d == nil {
		return
	}
	gate, up := p.value(op.Gate), p.value(op.Up)
	g := &kernels.GatedGrad{Gate: p.need(gate).T(), Up: p.need(up).T(), DOut: d.T(), Act: op.Act}
	g.DGate, g.DUp = p.destinationOrUnused(gate).T(), p.destinationOrUnused(up).T()
	p.emitMaking(op.Out, &g.Out, g)
}

func (p *Program) gatherRule(op *kernels.Gather) {
	if d := p.gradientOf(op.Out); d != nil {
		p.emit(&kernels.Scatter{Rows: op.Rows, X: d.T(), Out: p.destination(p.value(op.X)).T()})
	}
}

func (p *Program) dropoutRule(op *kernels.Dropout) {
	if d := p.gradientOf(op.Out); d != nil {
		g := *op
		g.X, g.Out = d.T(), p.destination(p.value(op.X)).T()
		p.emit(&g)
	}
}

// sum returns the gradient under construction of a value or a slice.
func (p *Program) sum(v *Value) *gradient {
	g := p.sums[v.root]
	if g == nil {
		g = &gradient{}
		p.sums[v.root] = g
	}
	if v.root.Cols == v.Cols {
		return g
	}
	return &p.part(g, v).gradient
}

func (p *Program) part(g *gradient, v *Value) *part {
	for _, q := range g.parts {
		if q.slice.col == v.col && q.slice.Cols == v.Cols {
			return q
		}
		must(v.col+v.Cols <= q.slice.col || q.slice.col+q.slice.Cols <= v.col, "Backward", "%v and %v overlap", v, q.slice)
	}
	q := &part{slice: v}
	g.parts = append(g.parts, q)
	return q
}

// add adds a computed summand to the gradient of v, if it needs one.
func (p *Program) add(v, d *Value) {
	if v.needsGrad {
		g := p.sum(v)
		g.values = append(g.values, d)
	}
}

// temporary returns memory shaped like v.
func (p *Program) temporary(name string, v *Value) *Value {
	t := p.written(name, v.DType, v, v.Cols)
	t.recomputed = false
	return t
}

// destination returns memory for a summand of v's gradient that the next
// operation writes; for a slice it lies within the gradient of the whole.
func (p *Program) destination(v *Value) *Value {
	if v.root.Cols == v.Cols {
		d := p.temporary("d "+v.Name, v)
		p.add(v, d)
		return d
	}
	g := p.sums[v.root]
	if g == nil {
		g = &gradient{}
		p.sums[v.root] = g
	}
	q := p.part(g, v)
	if q.written || len(q.values)+len(q.terms) > 0 {
		d := p.temporary("d "+v.Name, v)
		q.values = append(q.values, d)
		return d
	}
	q.written = true
	return p.Slice(g.memory(p, v.root), v.col, v.Cols)
}

func (p *Program) destinationOrUnused(v *Value) *Value {
	if v.needsGrad {
		return p.destination(v)
	}
	return p.temporary("unused", v)
}

func (g *gradient) memory(p *Program, root *Value) *Value {
	if g.whole == nil {
		g.whole = p.temporary("d "+root.Name, root)
	}
	return g.whole
}

// take returns the gradient of v as far as it has come, and forgets it.
func (p *Program) take(v *Value) *Value {
	d := p.gradientOf(&v.Tensor)
	delete(p.sums, v.root)
	return d
}

// gradientOf emits what completes the gradient of t and returns it; nil when
// nothing has come to it.
func (p *Program) gradientOf(t *kernels.Tensor) *Value {
	v := p.value(t).root
	g := p.sums[v]
	if g == nil {
		return nil
	}
	if len(g.parts) > 0 {
		p.join(v, g)
	}
	d := p.total(g, v, nil)
	*g = gradient{values: []*Value{d}}
	return d
}

// join brings the gradients of slices into one value.
func (p *Program) join(v *Value, g *gradient) {
	whole := g.memory(p, v)
	covered := 0
	for _, q := range g.parts {
		to := p.Slice(whole, q.slice.col, q.slice.Cols)
		if q.written {
			q.values = append(q.values, to)
		}
		if !q.written || len(q.values)+len(q.terms) > 1 {
			p.total(&q.gradient, q.slice, to)
		}
		covered += q.slice.Cols
	}
	must(covered == v.Cols, "Backward", "the slices of %v that are used cover %d columns", v, covered)
	g.values = append(g.values, whole)
	g.parts, g.whole = nil, nil
}

// total multiplies out and sums a gradient; it writes to into unless that is
// nil and the gradient is one computed value already.
func (p *Program) total(g *gradient, v, into *Value) *Value {
	for len(g.values) > 1 {
		n := len(g.values)
		out := p.temporary("d "+v.Name, v)
		p.emit(&kernels.Sum{A: g.values[n-2].T(), B: g.values[n-1].T(), Out: out.T()})
		g.values = append(g.values[:n-2], out)
	}
	var add *Value
	if len(g.values) == 1 {
		add = g.values[0]
		if len(g.terms) == 0 && into == nil {
			return add
		}
	}
	if into == nil {
		into = p.temporary("d "+v.Name, v)
	}
	p.emit(&kernels.Product{Terms: g.terms, Add: add.T(), Out: into.T()})
	return into
}

// need returns v for use in the backward pass. A value that was not kept is
// computed again, with all that it needs.
func (p *Program) need(v *Value) *Value {
	if v.root != v {
		return p.Slice(p.need(v.root), v.col, v.Cols)
	}
	if !v.recomputed {
		return v
	}
	if a := p.again[v]; a != nil {
		return a
	}
	op := p.Ops[v.producer].Clone()
	if n, ok := op.(*kernels.RMSNorm); ok && n.Sum != nil && !p.value(n.Sum).recomputed {
		n.X, n.Residual, n.Sum = n.Sum, nil, nil
	}
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		if a == kernels.Read {
			*t = p.need(p.value(*t)).T()
		}
	})
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		if a == kernels.Write {
			old := p.value(*t)
			p.again[old] = p.temporary(old.Name, old)
			*t = p.again[old].T()
		}
	})
	label := p.here
	p.here = p.Labels[v.producer]
	p.here.Pass = Recompute
	p.emit(op)
	p.here = label
	return p.again[v]
}

// needBeside returns t, a small second output of an operation: where the first is computed
// again, for whatever reason, t is too.
func (p *Program) needBeside(t *kernels.Tensor) *Value {
	v := p.value(t)
	if a := p.again[v]; a != nil {
		return a
	}
	return p.need(v)
}
