//go:build arm64 && cgo

package cpu

import "graft/kernels/cpu/accelerate"

// accelerated returns NEON with Accelerate for large products. It is the best of
// Apple silicon: one core's NEON does about 100 GFLOP/s, and the matrix unit that
// a group of cores shares, which only Accelerate reaches, well over 1000.
//
// What a Product, WeightGrad or CrossEntropy gives is then as repeatable as
// Accelerate is, of which Apple says nothing: the same calls, in the same order,
// on the same machine. Everything else keeps the promise of the package.
func accelerated() []*vectors {
	v := withBLAS(neon, "accelerate", &blas{sgemm: accelerate.Sgemm, worth: worthAccelerate, words: packBudget, rows: 1024})
	return []*vectors{&v}
}

// worthAccelerate bounds from below what is worth a call: the unit's tiles are
// 32×32, and a product of 2 MFLOP takes it a few microseconds.
func worthAccelerate(m, n, depth int) bool {
	return min(m, n) >= 32 && m*n*depth >= 1<<20
}
