package cpu

import "graft/kernels"

// available returns the instruction sets of this machine, the best last. Every
// arm64 processor has NEON.
func available() []*vectors { return append([]*vectors{&plain, &neon}, accelerated()...) }

// neon is NEON, which includes fused multiply-add and half-precision conversion.
var neon = vectors{
	name:       "neon",
	tile:       neonTile,
	tilePacked: neonTilePacked,
	outer:      neonOuter,
	outerCols:  24,
	across:     perType(neonAcrossF32, neonAcrossF16, neonAcrossBF16),
	across6:    neonAcross6,
	along:      perType(neonAlongF32, neonAlongF16, neonAlongBF16),
	blocks:     [kernels.Affine8 + 1]func([]float32, *byte){kernels.Q8_0: neonBlocksQ8_0, kernels.Q4_0: neonBlocksQ4_0, kernels.Q4_1: neonBlocksQ4_1},
	widen:      perType(plain.widen[kernels.F32], neonWidenF16, neonWidenBF16),
	dot:        perType(neonDotF32, neonDotF16, neonDotBF16),
	axpy:       perType(neonAxpyF32, neonAxpyF16, neonAxpyBF16),
	scale:      neonScale,
	add:        neonAdd,
	maxOf:      neonMax,
	exp:        neonExp,
	expMax: func(out, x, next []float32, scale, top float32) (sum, max float32) {
		return neonExp(out, x, scale, top), neonMax(next)
	},
	cap:          neonCap,
	score:        neonScore,
	sumSquares:   neonSumSquares,
	sumSquares64: neonSumSquares64,
	normalizeSum: func(out, x, w, next []float32, inv float32) float32 {
		neonNormalize(out, x, w, inv)
		return neonSumSquares(next)
	},
	dot3:       neonDot3,
	normGrad:   neonNormGrad,
	weightGrad: neonWeightGrad,
	rotate:     neonRotate,
	unrotate:   neonUnrotate,
	gated:      [3]func(out, gate, up []float32){neonSiLU, neonGELU, neonGELUTanh},
	gatedGrad:  [3]func(dgate, dup, gate, up, dout []float32){neonSiLUGrad, neonGELUGrad, neonGELUTanhGrad},
	dropout:    dropoutWithTail(neonDropout),
	adam: func(p, m, v, g []float32, c *adamFactors) {
		neonAdam(p, m, v, g, &c.clip)
	},
	peak: func(rounds int) float64 {
		neonFMA(rounds)
		return float64(rounds) * 24 * 8
	},
}
