package cpu

import (
	"time"

	"graft/kernels"
)

// blas is a library that multiplies large matrices on units that the vectors do
// not reach. It has threads of its own, so it is called between jobs of the
// pool, by the caller, never in a task.
//
// What it is asked depends on shapes and types alone, not on the number of
// threads, and for a sum of products it adds term after term to C: that reads C once more for
// a low-rank term, a few hundredths of the time of the large one, where to
// continue its sums would take copies of X and W with spare columns.
type blas struct {
	sgemm sgemm
	worth func(m, n, depth int) bool // whether a product is large enough for a call
	words int                        // float32 of widened weights, or of logits, at a time
	rows  int                        // of logits at a time
}

// sgemm is C = alpha·A·B + beta·C as in BLAS (Dongarra et al., 1990), row-major:
// A is m×k, or k×m and taken transposed, B is k×n, or n×k and taken transposed,
// C is m×n. Rows lie lda, ldb, ldc elements apart. m, n and k are positive. With
// beta 0 it does not matter what C holds.
type sgemm func(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int)

// withBLAS is an instruction set whose large products a library computes.
func withBLAS(v vectors, name string, l *blas) vectors {
	v.name, v.blas = name, l
	return v
}

// takes says whether a product of m×n elements, sums of depth, is the library's.
func (l *blas) takes(m, n, depth int) bool {
	return l != nil && m > 0 && n > 0 && depth > 0 && l.worth(m, n, depth)
}

// multiply computes C = alpha·A·B, plus the old C where add is set; either
// factor may be taken transposed.
func (l *blas) multiply(c matrix, alpha float32, a matrix, transA bool, b matrix, transB, add bool) {
	k, beta := a.cols, float32(0)
	if transA {
		k = a.rows
	}
	if add {
		beta = 1
	}
	l.sgemm(transA, transB, c.rows, c.cols, k, alpha, a.data, a.stride, b.data, b.stride, beta, c.data, c.stride)
}

// rowsAtOnce returns how many rows of a weight, of so many columns, are widened
// at a time.
func (l *blas) rowsAtOnce(rows, cols int) int {
	return min(rows, max(1, l.words/max(1, cols)))
}

func (l *blas) productNeed(o *kernels.Product) int {
	n := 0
	for _, t := range o.Terms {
		n = max(n, l.rowsAtOnce(t.W.Rows, t.W.Cols)*t.W.Cols)
	}
	return n
}

func (b *Backend) productBLAS(o *kernels.Product, bias, mem []float32) {
	add := o.Add != nil || bias != nil
	there := bias == nil && o.Add != nil && sameMemory(o.Add, o.Out)
	if add && !there {
		b.start(o, bias)
	}
	for i := range o.Terms {
		b.termBLAS(view(o.Out), &o.Terms[i], mem, add)
		add = add || o.Terms[i].X.Cols > 0
	}
}

// termBLAS computes one product of a sum, block by block of the weight's rows:
// these are columns of out, or where it is transposed, depths of the sum.
func (b *Backend) termBLAS(out matrix, t *kernels.Term, mem []float32, add bool) {
	l, x, w, alpha := b.v.blas, view(t.X), weightsOf(t.W), float32(t.Scale)
	if x.cols == 0 {
		return
	}
	step := l.rowsAtOnce(w.rows, w.cols)
	if _, ok := w.inPlace(); ok {
		step = w.rows
	}
	for i := 0; i < w.rows; i += step {
		n := min(step, w.rows-i)
		wide := b.widened(w, i, n, mem)
		if t.Transposed {
			l.multiply(out, alpha, x.part(0, x.rows, i, n), false, wide, false, add || i > 0)
		} else {
			l.multiply(out.part(0, out.rows, i, n), alpha, x, false, wide, true, add)
		}
	}
}

// widened returns rows i to i+n of a weight in float32: where they lie, or in
// mem.
func (b *Backend) widened(w weights, i, n int, mem []float32) matrix {
	if m, ok := w.inPlace(); ok {
		return m.part(i, n, 0, w.cols)
	}
	d := &b.widen
	*d = widenRows{v: b.v, w: w, first: i, out: matrix{mem[:n*w.cols], n, w.cols, w.cols}}
	if n*w.cols < smallWork {
		b.pool.inline(d, n)
	} else {
		b.pool.run(d, n)
	}
	return d.out
}

// widenRows decodes rows of a weight, one per task.
type widenRows struct {
	v     *vectors
	w     weights
	first int
	out   matrix
}

func (d *widenRows) do(_ *worker, task int) { d.w.decode(d.v, d.out.row(task), d.first+task, 0) }

// weightGradBLAS adds Scale·DYᵀ·X.
func (b *Backend) weightGradBLAS(dw matrix, alpha float32, dy, x matrix) {
	b.v.blas.multiply(dw, alpha, dy, true, x, false, true)
}

// peak measures the rate of products of n×n matrices in scratch memory of 3·n²
// elements, for as long as the vectors' own.
func (l *blas) peak(n int, mem []float32) float64 {
	part := func(i int) matrix { return matrix{mem[i*n*n:][:n*n], n, n, n} }
	least, rounds := time.Hour, 0
	for began := time.Now(); rounds < 2 || time.Since(began) < arithmeticRounds*arithmeticTime; rounds++ {
		start := time.Now()
		l.multiply(part(2), 1, part(0), false, part(1), false, false)
		least = min(least, time.Since(start))
	}
	return 2 * float64(n) * float64(n) * float64(n) / max(least, time.Nanosecond).Seconds()
}
