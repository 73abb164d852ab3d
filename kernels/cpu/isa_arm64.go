package cpu

import (
	"unsafe"

	"graft/kernels"
)

// available returns the instruction sets of this machine, the best last. Every
// arm64 processor has NEON.
func available() []*vectors { return append([]*vectors{&plain, &neon}, accelerated()...) }

// neonOuter sums outerRows rows of neonOuterCols columns, and asks for neonOuterAhead
// elements of each row ahead.
const (
	neonOuterCols  = 24
	neonOuterAhead = 32
)

// neon is NEON, which includes fused multiply-add and half-precision conversion.
var neon = vectors{
	name:       "neon",
	tile:       neonTile,
	tilePacked: neonTilePacked,
	outerDepth: 64,
	outer: func(k, groups int, a *float32, astep int, b *float32, bstep int, c, ahead *float32) {
		at := func(x *float32, i int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(x), 4*i)) }
		asked := 0
		for i := 0; i < groups*outerRows; i += outerRows {
			for j := 0; j < outerBlock; j += neonOuterCols {
				neonOuter(k, at(a, i), astep, at(b, j), bstep, at(c, i*outerBlock+j), at(ahead, asked))
				asked = (asked + neonOuterAhead) % outerBlock
			}
		}
	},
	across:  perType(neonAcrossF32, neonAcrossF16, neonAcrossBF16),
	across6: neonAcross6,
	along:   perType(neonAlongF32, neonAlongF16, neonAlongBF16),
	blocks:  [kernels.Affine8 + 1]func([]float32, *byte){kernels.Q8_0: neonBlocksQ8_0, kernels.Q4_0: neonBlocksQ4_0, kernels.Q4_1: neonBlocksQ4_1},
	widen:   perType(plain.widen[kernels.F32], neonWidenF16, neonWidenBF16),
	dot:     perType(neonDotF32, neonDotF16, neonDotBF16),
	axpy:    perType(neonAxpyF32, neonAxpyF16, neonAxpyBF16),
	scale:   neonScale,
	add:     neonAdd,
	maxOf:   neonMax,
	exp:     neonExp,
	expMax: func(out, x, next, last []float32, scale, top, factor float32) (sum, max float32) {
		neonScale(last, factor)
		return neonExp(out, x, scale, top), neonMax(next)
	},
	cap:          neonCap,
	softmaxRows:  softmaxByRow(neonMax, neonExp),
	scoreRows:    scoreByRow(neonScore),
	dotRows:      dotByRow(neonDotF32),
	scaleRows:    scaleByRow(neonScale),
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
	gatedGrad:  [3]func(dgate, dup, out, gate, up, dout []float32){neonSiLUGrad, neonGELUGrad, neonGELUTanhGrad},
	dropout:    dropoutWithTail(neonDropout),
	adam: func(p, m, v, g []float32, c *adamFactors) {
		neonAdam(p, m, v, g, &c.clip)
	},
	peak: func(rounds int) float64 {
		neonFMA(rounds)
		return float64(rounds) * 24 * 8
	},
}
