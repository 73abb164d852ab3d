//go:build darwin && arm64 && cgo

package accelerate

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSgemm compares every combination of layouts with plain loops, in matrices
// with gaps between rows, which must stay as they are.
func TestSgemm(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range [][3]int{{1, 1, 1}, {3, 5, 2}, {17, 33, 9}, {130, 70, 257}} {
		for layout := range 8 {
			transA, transB, beta := layout&1 > 0, layout&2 > 0, float32(layout>>2)
			m, n, k := s[0], s[1], s[2]
			aRows, aCols := stored(m, k, transA)
			bRows, bCols := stored(k, n, transB)
			a, lda := random(r, aRows, aCols, 3), aCols+3
			b, ldb := random(r, bRows, bCols, 1), bCols+1
			c, ldc := random(r, m, n, 2), n+2
			got := slices.Clone(c)
			for i := range got {
				if beta == 0 && i%ldc < n {
					got[i] = float32(math.NaN())
				}
			}
			Sgemm(transA, transB, m, n, k, 0.5, a, lda, b, ldb, beta, got, ldc)
			for i, x := range got {
				want := float64(c[i])
				if row, col := i/ldc, i%ldc; col < n {
					want *= float64(beta)
					for p := range k {
						want += 0.5 * float64(at(a, lda, row, p, transA)) * float64(at(b, ldb, p, col, transB))
					}
				}
				if !(math.Abs(float64(x)-want) <= 2e-6*math.Sqrt(float64(k+1))) {
					t.Fatalf("%v, transposed %v %v, beta %v: element %d is %v, want %v", s, transA, transB, beta, i, x, want)
				}
			}
		}
	}
}

func random(r *rand.Rand, rows, cols, gap int) []float32 {
	x := make([]float32, (rows-1)*(cols+gap)+cols)
	for i := range x {
		x[i] = float32(r.NormFloat64())
	}
	return x
}

func at(x []float32, ld, i, j int, trans bool) float32 {
	if trans {
		i, j = j, i
	}
	return x[i*ld+j]
}
