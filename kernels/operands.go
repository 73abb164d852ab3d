package kernels

// on visits an operand if it is present.
func (v Visitor) on(a Access, ts ...**Tensor) {
	for _, t := range ts {
		if *t != nil {
			v(t, a)
		}
	}
}

func (o *Embed) Operands(v Visitor) {
	v.on(Read, &o.Tokens, &o.Table)
	v.on(Write, &o.Out)
}

func (o *EmbedGrad) Operands(v Visitor) {
	v.on(Read, &o.Tokens, &o.DOut)
	v.on(Update, &o.DTable)
}

func (o *RMSNorm) Operands(v Visitor) {
	v.on(Read, &o.X, &o.Residual, &o.Weight)
	v.on(Write, &o.Sum, &o.Out, &o.InvRMS)
}

func (o *RMSNormGrad) Operands(v Visitor) {
	v.on(Read, &o.X, &o.InvRMS, &o.Weight, &o.DOut, &o.Add)
	v.on(Write, &o.DX, &o.Out)
	v.on(Update, &o.DWeight)
}

func (o *Product) Operands(v Visitor) {
	for i := range o.Terms {
		v.on(Read, &o.Terms[i].X, &o.Terms[i].W)
	}
	v.on(Read, &o.Bias, &o.Add)
	v.on(Write, &o.Out)
}

func (o *WeightGrad) Operands(v Visitor) {
	v.on(Read, &o.DY, &o.X)
	v.on(Update, &o.DW)
}

func (o *BiasGrad) Operands(v Visitor) {
	v.on(Read, &o.DY)
	v.on(Update, &o.DBias)
}

func (o *RotaryTable) Operands(v Visitor) {
	v.on(Read, &o.Positions, &o.Freqs)
	v.on(Write, &o.Out)
}

func (o *Rotary) Operands(v Visitor) {
	v.on(Read, &o.X, &o.Table)
	v.on(Write, &o.Out)
}

func (o *Attention) Operands(v Visitor) {
	v.on(Read, &o.Q, &o.K, &o.V, &o.Bounds)
	v.on(Write, &o.Out, &o.LSE)
}

func (o *AttentionGrad) Operands(v Visitor) {
	v.on(Read, &o.Q, &o.K, &o.V, &o.Bounds, &o.Out, &o.LSE, &o.DOut)
	v.on(Write, &o.DQ, &o.DK, &o.DV)
}

func (o *Softmax) Operands(v Visitor) {
	v.on(Read, &o.X, &o.Bounds)
	v.on(Write, &o.Out)
}

func (o *SoftmaxGrad) Operands(v Visitor) {
	v.on(Read, &o.Out, &o.DOut)
	v.on(Write, &o.DX)
}

func (o *Gated) Operands(v Visitor) {
	v.on(Read, &o.Gate, &o.Up)
	v.on(Write, &o.Out)
}

func (o *GatedGrad) Operands(v Visitor) {
	v.on(Read, &o.Gate, &o.Up, &o.DOut)
	v.on(Write, &o.DGate, &o.DUp, &o.Out)
}

func (o *Gather) Operands(v Visitor) {
	v.on(Read, &o.Rows, &o.X)
	v.on(Write, &o.Out)
}

func (o *Scatter) Operands(v Visitor) {
	v.on(Read, &o.Rows, &o.X)
	v.on(Write, &o.Out)
}

func (o *CrossEntropy) Operands(v Visitor) {
	for i := range o.Terms {
		v.on(Read, &o.Terms[i].X, &o.Terms[i].W)
	}
	v.on(Read, &o.Targets)
	v.on(Write, &o.Loss)
	for i := range o.Terms {
		v.on(Write, &o.Terms[i].DX)
		v.on(Update, &o.Terms[i].DW)
	}
}

func (o *Sum) Operands(v Visitor) {
	v.on(Read, &o.A, &o.B)
	v.on(Write, &o.Out)
}

func (o *Dropout) Operands(v Visitor) {
	v.on(Read, &o.X)
	v.on(Write, &o.Out)
}

func (o *Zero) Operands(v Visitor) { v.on(Write, &o.Out) }

func (o *ClipNorm) Operands(v Visitor) {
	v.on(Read, &o.Grad)
	v.on(Write, &o.Out)
}

func (o *AdamW) Operands(v Visitor) {
	v.on(Read, &o.Grad, &o.Clip)
	v.on(Update, &o.P, &o.M, &o.V)
}

// InPlace visits the pairs of operands of which the output may lie in the
// memory of the input.
func InPlace(o Op, pair func(out, in *Tensor)) {
	switch o := o.(type) {
	case *RMSNormGrad:
		pair(o.DX, o.DOut)
		if o.Add != nil {
			pair(o.DX, o.Add)
		}
	case *Product:
		if o.Add != nil {
			pair(o.Out, o.Add)
		}
	case *Rotary:
		pair(o.Out, o.X)
	case *Softmax:
		pair(o.Out, o.X)
	case *SoftmaxGrad:
		pair(o.DX, o.DOut)
	case *Gated:
		pair(o.Out, o.Gate)
		pair(o.Out, o.Up)
	case *GatedGrad:
		pair(o.DGate, o.Gate)
		pair(o.DUp, o.Up)
		pair(o.DGate, o.DOut)
		pair(o.DUp, o.DOut)
		if o.Out != nil {
			pair(o.Out, o.DOut)
		}
	case *Sum:
		pair(o.Out, o.A)
		pair(o.Out, o.B)
	case *Dropout:
		pair(o.Out, o.X)
	}
}

func (o *Embed) Clone() Op         { c := *o; return &c }
func (o *EmbedGrad) Clone() Op     { c := *o; return &c }
func (o *RMSNorm) Clone() Op       { c := *o; return &c }
func (o *RMSNormGrad) Clone() Op   { c := *o; return &c }
func (o *WeightGrad) Clone() Op    { c := *o; return &c }
func (o *BiasGrad) Clone() Op      { c := *o; return &c }
func (o *RotaryTable) Clone() Op   { c := *o; return &c }
func (o *Rotary) Clone() Op        { c := *o; return &c }
func (o *Attention) Clone() Op     { c := *o; return &c }
func (o *AttentionGrad) Clone() Op { c := *o; return &c }
func (o *Softmax) Clone() Op       { c := *o; return &c }
func (o *SoftmaxGrad) Clone() Op   { c := *o; return &c }
func (o *Gated) Clone() Op         { c := *o; return &c }
func (o *GatedGrad) Clone() Op     { c := *o; return &c }
func (o *Gather) Clone() Op        { c := *o; return &c }
func (o *Scatter) Clone() Op       { c := *o; return &c }
func (o *Sum) Clone() Op           { c := *o; return &c }
func (o *Dropout) Clone() Op       { c := *o; return &c }
func (o *Zero) Clone() Op          { c := *o; return &c }
func (o *ClipNorm) Clone() Op      { c := *o; return &c }
func (o *AdamW) Clone() Op         { c := *o; return &c }

func (o *Product) Clone() Op {
	c := *o
	c.Terms = append([]Term(nil), o.Terms...)
	return &c
}

func (o *CrossEntropy) Clone() Op {
	c := *o
	c.Terms = append([]HeadTerm(nil), o.Terms...)
	return &c
}
