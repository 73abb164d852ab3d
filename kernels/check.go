package kernels

import "fmt"

// Check panics when the operands of an operation do not fit together or do not
// lie in their memory: a malformed program is its writer's error, and running
// it would read or write where it must not. Backends call it before they run
// an operation; it allocates nothing when all is well. What indices hold is
// not looked at.
func Check(o Op) {
	c := checker{o}
	// Operands is called on the concrete types: through the interface its
	// argument would be allocated.
	switch o := o.(type) {
	case *Embed:
		o.Operands(c.operand)
		c.same(o.Tokens.Rows, o.Out.Rows, "rows of Tokens and Out")
		c.same(o.Table.Cols, o.Out.Cols, "columns of Table and Out")
		c.indices(o.Tokens)
	case *EmbedGrad:
		o.Operands(c.operand)
		c.same(o.Tokens.Rows, o.DOut.Rows, "rows of Tokens and DOut")
		c.same(o.DTable.Cols, o.DOut.Cols, "columns of DTable and DOut")
		c.indices(o.Tokens)
	case *RMSNorm:
		o.Operands(c.operand)
		c.shape(o.X, o.Out)
		c.groups(o.X, o.Weight, o.InvRMS)
		c.that((o.Residual == nil) == (o.Sum == nil), "Residual and Sum go together")
		if o.Residual != nil {
			c.shape(o.X, o.Residual)
			c.shape(o.X, o.Sum)
		}
	case *RMSNormGrad:
		o.Operands(c.operand)
		c.shape(o.X, o.DOut)
		c.shape(o.X, o.DX)
		c.groups(o.X, o.Weight, o.InvRMS)
		if o.Add != nil {
			c.shape(o.X, o.Add)
		}
		if o.Out != nil {
			c.shape(o.X, o.Out)
		}
		if o.DWeight != nil {
			c.shape(o.Weight, o.DWeight)
		}
	case *Product:
		o.Operands(c.operand)
		for i := range o.Terms {
			c.term(&o.Terms[i], o.Out)
		}
		if o.Bias != nil {
			c.same(o.Bias.Rows, 1, "rows of Bias")
			c.same(o.Bias.Cols, o.Out.Cols, "columns of Bias and Out")
		}
		if o.Add != nil {
			c.shape(o.Add, o.Out)
		}
	case *WeightGrad:
		o.Operands(c.operand)
		c.same(o.DY.Rows, o.X.Rows, "rows of DY and X")
		c.same(o.DY.Cols, o.DW.Rows, "columns of DY and rows of DW")
		c.same(o.X.Cols, o.DW.Cols, "columns of X and DW")
	case *BiasGrad:
		o.Operands(c.operand)
		c.same(o.DBias.Rows, 1, "rows of DBias")
		c.same(o.DY.Cols, o.DBias.Cols, "columns of DY and DBias")
	case *RotaryTable:
		o.Operands(c.operand)
		c.same(o.Freqs.Rows, 1, "rows of Freqs")
		c.same(o.Positions.Rows, o.Out.Rows, "rows of Positions and Out")
		c.same(o.Out.Cols, 2*o.Freqs.Cols, "columns of Out and twice those of Freqs")
		c.that(o.Freqs.DType == F64, "Freqs must be F64")
		c.indices(o.Positions)
	case *Rotary:
		o.Operands(c.operand)
		c.shape(o.X, o.Out)
		c.same(o.X.Rows, o.Table.Rows, "rows of X and Table")
		c.heads(o.X, o.HeadDim)
		c.that(o.Table.Cols <= o.HeadDim && o.Table.Cols%2 == 0, "Table is wider than a head")
	case *Attention:
		o.Operands(c.operand)
		c.attention(o.Q, o.K, o.V, o.Bounds, o.Out, o.LSE, o.HeadDim)
	case *AttentionGrad:
		o.Operands(c.operand)
		c.attention(o.Q, o.K, o.V, o.Bounds, o.Out, o.LSE, o.HeadDim)
		c.shape(o.Q, o.DOut)
		c.shape(o.Q, o.DQ)
		c.shape(o.K, o.DK)
		c.shape(o.V, o.DV)
	case *Softmax:
		o.Operands(c.operand)
		c.shape(o.X, o.Out)
		c.that(o.Scale > 0, "Scale is not positive")
		if o.Bounds != nil {
			c.indices(o.Bounds)
			c.that(o.X.Cols == 0 || o.X.Rows%o.X.Cols == 0, "rows of X are no multiple of its columns")
		}
	case *SoftmaxGrad:
		o.Operands(c.operand)
		c.shape(o.Out, o.DOut)
		c.shape(o.Out, o.DX)
	case *Gated:
		o.Operands(c.operand)
		c.shape(o.Gate, o.Up)
		c.shape(o.Gate, o.Out)
		c.that(o.Act <= GELUTanh, "unknown activation")
	case *GatedGrad:
		o.Operands(c.operand)
		c.shape(o.Gate, o.Up)
		c.shape(o.Gate, o.DOut)
		c.shape(o.Gate, o.DGate)
		c.shape(o.Gate, o.DUp)
		if o.Out != nil {
			c.shape(o.Gate, o.Out)
		}
		c.that(o.Act <= GELUTanh, "unknown activation")
	case *Gather:
		o.Operands(c.operand)
		c.same(o.Rows.Rows, o.Out.Rows, "rows of Rows and Out")
		c.same(o.X.Cols, o.Out.Cols, "columns of X and Out")
		c.indices(o.Rows)
	case *Scatter:
		o.Operands(c.operand)
		c.same(o.Rows.Rows, o.X.Rows, "rows of Rows and X")
		c.same(o.X.Cols, o.Out.Cols, "columns of X and Out")
		c.indices(o.Rows)
	case *CrossEntropy:
		o.Operands(c.operand)
		c.that(len(o.Terms) > 0, "no terms")
		for i := range o.Terms {
			c.headTerm(&o.Terms[i], o.Terms[0].W.Rows, o.Loss.Rows)
		}
		c.same(o.Loss.Cols, 1, "columns of Loss")
		c.same(o.Targets.Rows, o.Loss.Rows, "rows of Targets and Loss")
		c.indices(o.Targets)
	case *Sum:
		o.Operands(c.operand)
		c.shape(o.A, o.B)
		c.shape(o.A, o.Out)
	case *Dropout:
		o.Operands(c.operand)
		c.shape(o.X, o.Out)
		c.that(o.P >= 0 && o.P < 1, "P must lie in [0, 1)")
	case *Zero:
		o.Operands(c.operand)
	case *ClipNorm:
		o.Operands(c.operand)
		c.same(o.Grad.Rows, 1, "rows of Grad")
		c.that(o.Out.Rows == 1 && o.Out.Cols == 2, "Out must be [1, 2]")
		c.that(o.Divisor > 0, "Divisor must be above 0")
	case *AdamW:
		o.Operands(c.operand)
		c.same(o.P.Rows, 1, "rows of P")
		c.shape(o.P, o.Grad)
		c.shape(o.P, o.M)
		c.shape(o.P, o.V)
		c.that(o.Clip.Rows == 1 && o.Clip.Cols == 2, "Clip must be [1, 2]")
		c.that(o.Step > 0, "Step counts from 1")
	default:
		c.that(false, "unknown operation")
	}
}

type checker struct{ op Op }

func (c checker) that(ok bool, rule string) {
	if !ok {
		panic(fmt.Sprintf("kernels: %s: %s", c.op.Kind(), rule))
	}
}

// operand checks that the elements of one operand lie in its buffer and are of
// a type that operations know.
func (c checker) operand(p **Tensor, a Access) {
	t := *p
	c.operandThat(t.Rows >= 0 && t.Cols >= 0 && t.Off >= 0, t, "negative size")
	c.operandThat(t.DType.Float() || (t.DType == I32 || t.DType.Quantised()) && a == Read, t, "not of a floating type")
	c.operandThat(t.Cols%t.DType.Block() == 0 && t.Stride%t.DType.Block() == 0, t, "rows are no whole blocks")
	if t.Len() == 0 {
		return
	}
	c.operandThat(t.Rows == 1 || t.Stride >= t.Cols, t, "rows overlap")
	c.operandThat(t.Buf != nil, t, "has no memory")
	end := t.Off + t.DType.Bytes((t.Rows-1)*t.Stride+t.Cols)
	c.operandThat(end <= t.Buf.Size(), t, "ends behind its buffer")
}

func (c checker) operandThat(ok bool, t *Tensor, rule string) {
	if !ok {
		panic(fmt.Sprintf("kernels: %s: %v: %s", c.op.Kind(), t, rule))
	}
}

func (c checker) same(a, b int, what string) {
	if a != b {
		panic(fmt.Sprintf("kernels: %s: %s differ: %d and %d", c.op.Kind(), what, a, b))
	}
}

func (c checker) shape(a, b *Tensor) {
	if a.Rows != b.Rows || a.Cols != b.Cols {
		panic(fmt.Sprintf("kernels: %s: shapes differ: %v and %v", c.op.Kind(), a, b))
	}
}

func (c checker) indices(t *Tensor) {
	if t.DType != I32 || t.Cols != 1 || t.Stride != 1 {
		panic(fmt.Sprintf("kernels: %s: %v: indices are one column of I32", c.op.Kind(), t))
	}
}

func (c checker) groups(x, weight, inv *Tensor) {
	c.same(weight.Rows, 1, "rows of Weight")
	c.same(inv.Rows, x.Rows, "rows of InvRMS and X")
	c.same(inv.Cols*weight.Cols, x.Cols, "columns of X and groups of len(Weight)")
}

func (c checker) heads(x *Tensor, headDim int) {
	c.that(headDim > 0 && x.Cols%headDim == 0, "columns are no multiple of HeadDim")
}

func (c checker) term(t *Term, out *Tensor) {
	c.same(t.X.Rows, out.Rows, "rows of X and Out")
	k, n := t.W.Cols, t.W.Rows
	if t.Transposed {
		k, n = n, k
	}
	c.same(t.X.Cols, k, "columns of X and depth of W")
	c.same(n, out.Cols, "width of W and columns of Out")
}

func (c checker) headTerm(t *HeadTerm, vocab, rows int) {
	c.same(t.X.Rows, rows, "rows of X and Loss")
	c.same(t.X.Cols, t.W.Cols, "columns of X and W")
	c.same(t.W.Rows, vocab, "rows of W")
	if t.DX != nil {
		c.shape(t.X, t.DX)
	}
	if t.DW != nil {
		c.shape(t.W, t.DW)
	}
}

func (c checker) attention(q, k, v, bounds, out, lse *Tensor, headDim int) {
	c.heads(q, headDim)
	c.heads(k, headDim)
	c.shape(k, v)
	c.shape(q, out)
	c.same(q.Rows, k.Rows, "rows of Q and K")
	c.same(q.Rows, lse.Rows, "rows of Q and LSE")
	c.same(lse.Cols*headDim, q.Cols, "columns of LSE and heads")
	c.that(k.Cols > 0 && q.Cols%k.Cols == 0, "heads are no multiple of key and value heads")
	c.indices(bounds)
	c.that(bounds.Rows > 0, "Bounds holds at least the end")
}
