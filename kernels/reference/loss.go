package reference

import (
	"math"

	"graft/kernels"
)

func crossEntropy(o *kernels.CrossEntropy) {
	targets, loss := indices(o.Targets), at(o.Loss)
	vocab := o.Terms[0].W.Rows
	weights := make([]matrix, len(o.Terms))
	for i, t := range o.Terms {
		weights[i] = decoded(t.W)
	}
	z, dz := make([]float64, vocab), make([]float64, vocab)
	for n, target := range targets {
		for v := range z {
			var x float64
			for i, t := range o.Terms {
				x += t.Scale * dot(at(t.X).row(n), weights[i].row(v))
			}
			x *= o.LogitScale
			dz[v] = o.LogitScale
			if c := o.SoftCap; c > 0 {
				th := math.Tanh(x / c)
				x, dz[v] = c*th, dz[v]*(1-th*th)
			}
			z[v] = x
		}
		// What others than the target weigh is summed apart: of a sure model
		// nothing else is left in the loss.
		l := logSumExp(z)
		var others float64
		for v := range z {
			if v != int(target) {
				p := math.Exp(z[v] - l)
				others += p
				dz[v] *= p
			}
		}
		dz[target] *= -others
		if others < 0.5 {
			loss.row(n)[0] = -math.Log1p(-others)
		} else {
			loss.row(n)[0] = l - z[target]
		}
		for i, t := range o.Terms {
			if t.DX != nil {
				dx := at(t.DX).row(n)
				clear(dx)
				for v, d := range dz {
					axpy(t.Scale*d, weights[i].row(v), dx)
				}
			}
			if t.DW != nil {
				for v, d := range dz {
					axpy(t.Scale*d, at(t.X).row(n), at(t.DW).row(v))
				}
			}
		}
	}
}
