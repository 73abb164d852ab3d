package metal

import (
	"math"

	"graft/kernels"
)

// normPart is how many elements a threadgroup squares and sums.
const normPart = 1 << 14

func clipNormNeed(o *kernels.ClipNorm) int { return 4 * blocks(o.Grad.Cols, normPart) }

func (e *encoder) clipNorm(o *kernels.ClipNorm) {
	parts := blocks(o.Grad.Cols, normPart)
	p := clipParams{count: u(o.Grad.Cols), each: normPart, parts: u(parts), divisor: float32(o.Divisor), most: float32(o.Max)}
	work := e.work(0, 4*parts)
	launch(e, "norm_parts", grid(parts, 1, 1), 256, &p, bind(o.Grad), work)
	launch(e, "clip_norm", grid(1, 1, 1), 256, &p, work, bind(o.Out))
}

func (e *encoder) adamW(o *kernels.AdamW) {
	step := float64(o.Step)
	p := adamParams{
		count: u(o.P.Cols), keep: float32(1 - o.LR*o.WeightDecay), beta1: float32(o.Beta1), rest1: float32(1 - o.Beta1),
		beta2: float32(o.Beta2), rest2: float32(1 - o.Beta2), rate: float32(o.LR / (1 - math.Pow(o.Beta1, step))),
		correction: float32(1 / (1 - math.Pow(o.Beta2, step))), epsilon: float32(o.Eps),
	}
	launch(e, "adamw", grid(blocks(o.P.Cols, rowThreads), 1, 1), rowThreads, &p, bind(o.Grad), bind(o.Clip), bind(o.P), bind(o.M), bind(o.V))
}
