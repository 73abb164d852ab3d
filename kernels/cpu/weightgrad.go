package cpu

import "graft/kernels"

// fewGradCols bounds what counts as thin: stacked low-rank factors too.
const fewGradCols = 4 * tileCols

func weightGradNeed(l *blas, o *kernels.WeightGrad) need {
	n, k, depth := o.DW.Rows, o.DW.Cols, o.X.Rows
	switch {
	case n == 0 || k == 0:
		return need{}
	case k <= fewGradCols:
		return thinGradNeed(n, k, depth)
	case n <= fewGradCols:
		return thinGradNeed(k, n, depth)
	case l.takes(n, k, depth):
		return need{}
	}
	return gemmNeed(n, k, depth)
}

// weightGrad sums over the tokens: both factors lie along the depth.
func (b *Backend) weightGrad(o *kernels.WeightGrad, mem []float32) {
	if o.DW.Len() == 0 || o.X.Rows == 0 {
		return
	}
	dy, x, dw := view(o.DY), view(o.X), view(o.DW)
	alpha := float32(o.Scale)
	if min(dw.rows, dw.cols) <= fewGradCols {
		t := &b.thinGrad
		*t = thinGrad{v: b.v, long: dy, thin: x, dw: dw, alpha: alpha, pack: mem}
		if t.transposed = dw.cols > fewGradCols; t.transposed {
			t.long, t.thin = x, dy
		}
		t.run(b.pool)
		return
	}
	if b.v.blas.takes(dw.rows, dw.cols, dy.rows) {
		b.weightGradBLAS(dw, alpha, dy, x)
		return
	}
	t := term{
		left:  factor{weights: bytesOf(dy), along: true},
		right: factor{weights: bytesOf(x), along: true, scale: 1},
		depth: dy.rows,
	}
	g := &b.gemm
	*g = gemm{v: b.v, terms: append(g.terms[:0], t), cuts: g.cuts, depth: t.depth, m: dw.rows, n: dw.cols, c: dw.data, ldc: dw.stride, alpha: alpha, add: true}
	g.run(b.pool, mem, 0)
}

// thinGrad is the gradient of a low-rank factor, C = long'·thin. Both are read
// in place, but for an incomplete last panel of the long one, and a thin one
// that is no whole panels, which is packed. Where the thin one is dy, C is dw
// transposed.
type thinGrad struct {
	v          *vectors
	long, thin matrix
	dw         matrix
	transposed bool
	alpha      float32
	pack       []float32
}

// A task has whole cache lines of the long matrix, so many at a time that they
// stay in the first cache with a panel of the thin one.
const (
	thinGradRows  = 16 * tileRows
	thinGradDepth = 192
)

func thinGradNeed(long, thin, depth int) need {
	return need{shared: ceil(thin, tileCols) * tileCols * depth, private: tileRows*thinGradDepth + thinGradRows*thin}
}

func (t *thinGrad) run(p *pool) {
	depth := t.long.rows
	if t.thin.cols%tileCols > 0 {
		packThin(p.workers[0], t.v, t.pack, factor{weights: bytesOf(t.thin), along: true, scale: 1}, t.thin.cols, depth, thinGradDepth)
	}
	tasks := ceil(t.long.cols, thinGradRows)
	if t.dw.rows*t.dw.cols*depth < smallWork {
		p.inline(t, tasks)
		return
	}
	p.run(t, tasks)
}

func (t *thinGrad) do(w *worker, task int) {
	i := task * thinGradRows
	m := min(thinGradRows, t.long.cols-i)
	if !t.transposed {
		t.multiply(w, i, m, t.dw.data[i*t.dw.stride:], t.dw.stride)
		return
	}
	n := t.thin.cols
	c := w.private[len(w.private)-thinGradRows*n:]
	clear(c)
	t.multiply(w, i, m, c, n)
	for j := range n {
		row := t.dw.row(j)[i:][:m]
		for r := range row {
			row[r] += c[r*n+j]
		}
	}
}

// multiply adds rows i to i+m of the product to c.
func (t *thinGrad) multiply(w *worker, i, m int, c []float32, ldc int) {
	depth, n := t.long.rows, t.thin.cols
	whole := m / tileRows * tileRows
	panels := ceil(n, tileCols)
	for p := 0; p < depth; p += thinGradDepth {
		k := min(thinGradDepth, depth-p)
		b := right{t.thin.data[p*t.thin.stride:], tileCols, t.thin.stride}
		if n%tileCols > 0 {
			b = packedRight(t.pack, panels, p, k, 0)
		}
		if whole > 0 {
			a := left{t.long.data[p*t.long.stride+i:], tileRows, 1, t.long.stride}
			w.tiles(t.v, whole, n, k, a, b, c, ldc, t.alpha, true)
		}
		if whole < m {
			packLeft(t.v, w.private, factor{weights: bytesOf(t.long), along: true}, i+whole, m-whole, p, k, nil)
			w.tiles(t.v, m-whole, n, k, packedLeft(w.private, 1, 0, k, 0), b, c[whole*ldc:], ldc, t.alpha, true)
		}
	}
}

// columns sums over the rows of matrices: a task has a range of columns, and
// adds groups of rows first, which keeps long sums exact.
type columns struct {
	v   *vectors
	dy  matrix
	out []float32
}

const (
	columnBlock = 64 // columns per task
	rowGroup    = 64 // rows summed apart
)

func (b *Backend) biasGrad(o *kernels.BiasGrad) {
	c := &b.columns
	*c = columns{v: b.v, dy: view(o.DY), out: view(o.DBias).row(0)}
	tasks := ceil(c.dy.cols, columnBlock)
	if o.DY.Len() < smallWork/4 {
		b.pool.inline(c, tasks)
		return
	}
	b.pool.run(c, tasks)
}

func (c *columns) do(w *worker, task int) {
	j := task * columnBlock
	out := c.out[j:min(j+columnBlock, len(c.out))]
	sum := w.private[:len(out)]
	for t0 := 0; t0 < c.dy.rows; t0 += rowGroup {
		clear(sum)
		for t := t0; t < min(t0+rowGroup, c.dy.rows); t++ {
			c.v.add(sum, sum, c.dy.row(t)[j:][:len(out)])
		}
		c.v.add(out, out, sum)
	}
}
