package reference

import (
	"math"

	"graft/kernels"
)

func clipNorm(o *kernels.ClipNorm) {
	g, out := at(o.Grad).row(0), at(o.Out).row(0)
	norm := math.Sqrt(dot(g, g)) / o.Divisor
	factor := 1.0
	if o.Max > 0 {
		factor = min(1, o.Max/(norm+1e-6))
	}
	out[0], out[1] = norm, factor/o.Divisor
}

func adamW(o *kernels.AdamW) {
	grad, p, m, v := at(o.Grad).row(0), at(o.P).row(0), at(o.M).row(0), at(o.V).row(0)
	factor := at(o.Clip).row(0)[1]
	c1 := 1 - math.Pow(o.Beta1, float64(o.Step))
	c2 := 1 - math.Pow(o.Beta2, float64(o.Step))
	for i := range p {
		g := factor * grad[i]
		p[i] -= o.LR * o.WeightDecay * p[i]
		m[i] = o.Beta1*m[i] + (1-o.Beta1)*g
		v[i] = o.Beta2*v[i] + (1-o.Beta2)*g*g
		p[i] -= o.LR / c1 * m[i] / (math.Sqrt(v[i]/c2) + o.Eps)
	}
}
