package kernels

// Sparse says whether an operation touches only some rows of an operand, so that
// Traffic is not the sum of its operands.
func Sparse(o Op) bool {
	switch o.(type) {
	case *Embed, *EmbedGrad, *Gather:
		return true
	}
	return false
}

// Traffic returns the bytes that an operation must move at least: every
// operand once, and once more where it is both read and written. A table of
// which only some rows are touched counts with those rows.
func Traffic(o Op) float64 {
	var sum float64
	o.Operands(func(t **Tensor, a Access) {
		b := float64((*t).Bytes())
		if a == Update {
			b *= 2
		}
		sum += b
	})
	switch o := o.(type) {
	case *Embed:
		sum -= float64(o.Table.Bytes()) - float64(o.Table.DType.Bytes(o.Out.Len()))
	case *EmbedGrad:
		sum -= 2 * (float64(o.DTable.Bytes()) - float64(o.DOut.Bytes()))
	case *Gather:
		sum -= float64(o.X.Bytes() - o.Out.Bytes())
	}
	return sum
}

// The counts of elementwise operations take exp, tanh and division as one
// each; they matter only against the memory's limit, never the arithmetic's.

func (o *Embed) FLOPs() float64       { return 0 }
func (o *EmbedGrad) FLOPs() float64   { return float64(o.DOut.Len()) }
func (o *RMSNorm) FLOPs() float64     { return 4 * float64(o.X.Len()) }
func (o *RMSNormGrad) FLOPs() float64 { return 8 * float64(o.X.Len()) }
func (o *BiasGrad) FLOPs() float64    { return float64(o.DY.Len()) }
func (o *RotaryTable) FLOPs() float64 { return 2 * float64(o.Out.Len()) }
func (o *Rotary) FLOPs() float64      { return 3 * float64(o.X.Len()) }
func (o *Softmax) FLOPs() float64     { return 4 * float64(o.X.Len()) }
func (o *SoftmaxGrad) FLOPs() float64 { return 4 * float64(o.Out.Len()) }
func (o *Gated) FLOPs() float64       { return 5 * float64(o.Out.Len()) }
func (o *GatedGrad) FLOPs() float64   { return 10 * float64(o.DOut.Len()) }
func (o *Gather) FLOPs() float64      { return 0 }
func (o *Scatter) FLOPs() float64     { return 0 }
func (o *Sum) FLOPs() float64         { return float64(o.Out.Len()) }
func (o *Dropout) FLOPs() float64     { return float64(o.Out.Len()) }
func (o *Zero) FLOPs() float64        { return 0 }
func (o *ClipNorm) FLOPs() float64    { return 2 * float64(o.Grad.Len()) }
func (o *AdamW) FLOPs() float64       { return 14 * float64(o.P.Len()) }

func (o *Product) FLOPs() float64 {
	var sum float64
	for _, t := range o.Terms {
		sum += 2 * float64(t.X.Len()) * float64(o.Out.Cols)
	}
	return sum
}

func (o *WeightGrad) FLOPs() float64 { return 2 * float64(o.DY.Len()) * float64(o.X.Cols) }

// Two products of HeadDim per pair and query head forward, five backward.
func (o *Attention) FLOPs() float64     { return 4 * o.Pairs * float64(o.Q.Cols) }
func (o *AttentionGrad) FLOPs() float64 { return 10 * o.Pairs * float64(o.Q.Cols) }

func (o *CrossEntropy) FLOPs() float64 {
	var sum float64
	for _, t := range o.Terms {
		product := 2 * float64(t.X.Len()) * float64(t.W.Rows)
		sum += product
		if t.DX != nil {
			sum += product
		}
		if t.DW != nil {
			sum += product
		}
	}
	return sum
}

func (o *Embed) Kind() string         { return "embed" }
func (o *EmbedGrad) Kind() string     { return "embed_grad" }
func (o *RMSNorm) Kind() string       { return "rms_norm" }
func (o *RMSNormGrad) Kind() string   { return "rms_norm_grad" }
func (o *Product) Kind() string       { return "product" }
func (o *WeightGrad) Kind() string    { return "weight_grad" }
func (o *BiasGrad) Kind() string      { return "bias_grad" }
func (o *RotaryTable) Kind() string   { return "rotary_table" }
func (o *Rotary) Kind() string        { return "rotary" }
func (o *Attention) Kind() string     { return "attention" }
func (o *AttentionGrad) Kind() string { return "attention_grad" }
func (o *Softmax) Kind() string       { return "softmax" }
func (o *SoftmaxGrad) Kind() string   { return "softmax_grad" }
func (o *Gated) Kind() string         { return "gated" }
func (o *GatedGrad) Kind() string     { return "gated_grad" }
func (o *Gather) Kind() string        { return "gather" }
func (o *Scatter) Kind() string       { return "scatter" }
func (o *CrossEntropy) Kind() string  { return "cross_entropy" }
func (o *Sum) Kind() string           { return "sum" }
func (o *Dropout) Kind() string       { return "dropout" }
func (o *Zero) Kind() string          { return "zero" }
func (o *ClipNorm) Kind() string      { return "clip_norm" }
func (o *AdamW) Kind() string         { return "adamw" }
