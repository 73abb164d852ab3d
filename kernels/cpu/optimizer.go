package cpu

import (
	"math"

	"graft/kernels"
)

// chunk is the elements of one task on a flat buffer.
const chunk = 4096

func chunks(n int) int { return ceil(n, chunk) }

// clipNorm sums squares of chunks in float64; the chunks' sums are added in
// order, whoever computed them.
type clipNorm struct {
	v    *vectors
	grad []float32
	sums []float64
}

func (b *Backend) clipNorm(o *kernels.ClipNorm, mem []float32) {
	c := &b.clip
	*c = clipNorm{v: b.v}
	if o.Grad.Len() > 0 {
		c.grad, c.sums = view(o.Grad).row(0), doubles(mem)
	}
	if len(c.sums) < 8 {
		b.pool.inline(c, len(c.sums))
	} else {
		b.pool.run(c, len(c.sums))
	}
	var sum float64
	for _, s := range c.sums {
		sum += s
	}
	norm := math.Sqrt(sum) / o.Divisor
	factor := 1.0
	if o.Max > 0 {
		factor = math.Min(1, o.Max/(norm+1e-6))
	}
	out := view(o.Out).row(0)
	out[0], out[1] = float32(norm), float32(factor/o.Divisor)
}

func (c *clipNorm) do(_ *worker, task int) {
	c.sums[task] = c.v.sumSquares64(c.grad[task*chunk : min((task+1)*chunk, len(c.grad))])
}

// adamW updates a chunk per task.
type adamW struct {
	v          *vectors
	p, m, s, g []float32
	f          adamFactors
}

func (b *Backend) adamW(o *kernels.AdamW) {
	if o.P.Len() == 0 {
		return
	}
	b.adam = adamW{b.v, view(o.P).row(0), view(o.M).row(0), view(o.V).row(0), view(o.Grad).row(0), adamFactors{
		clip: view(o.Clip).row(0)[1], keep: float32(1 - o.LR*o.WeightDecay),
		beta1: float32(o.Beta1), rest1: float32(1 - o.Beta1),
		beta2: float32(o.Beta2), rest2: float32(1 - o.Beta2),
		rate: float32(o.LR / (1 - math.Pow(o.Beta1, float64(o.Step)))), root: float32(1 / (1 - math.Pow(o.Beta2, float64(o.Step)))),
		offset: float32(o.Eps),
	}}
	if n := chunks(o.P.Cols); n < 4 {
		b.pool.inline(&b.adam, n)
	} else {
		b.pool.run(&b.adam, n)
	}
}

func (a *adamW) do(_ *worker, task int) {
	i, j := task*chunk, min((task+1)*chunk, len(a.p))
	a.v.adam(a.p[i:j], a.m[i:j], a.s[i:j], a.g[i:j], &a.f)
}
