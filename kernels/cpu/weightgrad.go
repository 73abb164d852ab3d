package cpu

import (
	"unsafe"

	"graft/kernels"
)

// fewGradCols bounds what counts as thin: stacked low-rank factors too.
const fewGradCols = 4 * tileCols

func weightGradNeed(v *vectors, o *kernels.WeightGrad) need {
	n, k, depth := o.DW.Rows, o.DW.Cols, o.X.Rows
	switch {
	case n == 0 || k == 0:
		return need{}
	case k <= fewGradCols:
		return thinGradNeed(v, k, depth)
	case n <= fewGradCols:
		return thinGradNeed(v, n, depth)
	case v.blas.takes(n, k, depth):
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

// thinGrad is the gradient of a low-rank factor: sums of outer products of rows of a
// long matrix and a thin one. A task has some columns of the long one, whose rows it
// reads by whole lines, and sums Cᵀ = thin'·long aside. Where the thin one is x, that
// is dw transposed.
type thinGrad struct {
	v          *vectors
	long, thin matrix
	dw         matrix
	transposed bool
	alpha      float32
	pack       []float32
}

// padded is the number of columns of the thin matrix as whole outer products.
func padded(thin int) int { return ceil(thin, outerRows) * outerRows }

func thinGradNeed(v *vectors, thin, depth int) need {
	n := need{private: outerBlock * (ceil(thin, tileCols)*tileCols + max(v.outerDepth, tileCols))}
	if thin%outerRows > 0 {
		n.shared = padded(thin) * depth
	}
	return n
}

func (t *thinGrad) run(p *pool) {
	if n := t.thin.cols; n%outerRows > 0 {
		wide := matrix{t.pack, t.thin.rows, n, padded(n)}
		for i := range t.thin.rows {
			clear(t.pack[i*wide.stride:][copy(wide.row(i), t.thin.row(i)):wide.stride])
		}
		t.thin = wide
	}
	tasks := ceil(t.long.cols, outerBlock)
	if t.dw.rows*t.dw.cols*t.long.rows < smallWork {
		p.inline(t, tasks)
		return
	}
	p.run(t, tasks)
}

func (t *thinGrad) do(w *worker, task int) {
	j := task * outerBlock
	m, n := min(outerBlock, t.long.cols-j), t.thin.cols
	mem := w.private
	c := take(&mem, ceil(n, tileCols)*tileCols*outerBlock)
	clear(c)
	for p := 0; p < t.long.rows; p += t.v.outerDepth {
		long := t.rows(mem, p, j, m)
		t.v.outer(long.rows, ceil(n, outerRows), &t.thin.data[p*t.thin.stride], t.thin.stride, &long.data[0], long.stride, &c[0], t.next(p, j))
	}
	if !t.transposed {
		t.addAcross(c, mem, j, m)
		return
	}
	for i := range n {
		t.v.axpy[kernels.F32](t.dw.row(i)[j:][:m], (*byte)(unsafe.Pointer(&c[i*outerBlock])), t.alpha)
	}
}

// rows returns m columns of the long matrix from (p, j) on, copied where they are no
// whole block.
func (t *thinGrad) rows(mem []float32, p, j, m int) matrix {
	x := t.long.part(p, min(t.v.outerDepth, t.long.rows-p), j, m)
	if m == outerBlock {
		return x
	}
	wide := matrix{mem, x.rows, outerBlock, outerBlock}
	for i := range x.rows {
		clear(wide.row(i)[copy(wide.row(i), x.row(i)):])
	}
	return wide
}

// next returns where the rows start that are read after those from (p, j) on.
func (t *thinGrad) next(p, j int) *float32 {
	if p += t.v.outerDepth; p >= t.long.rows {
		p, j = 0, j+outerBlock
	}
	if at := p*t.long.stride + j; at < len(t.long.data) {
		return &t.long.data[at]
	}
	return &t.long.data[0]
}

// addAcross adds c, of m columns, to rows j to j+m of dw.
func (t *thinGrad) addAcross(c, mem []float32, j, m int) {
	for i := 0; i < t.thin.cols; i += tileCols {
		t.v.across[kernels.F32](&mem[0], (*byte)(unsafe.Pointer(&c[i*outerBlock])), 4*outerBlock, outerBlock, t.alpha)
		if t.dw.cols == tileCols && t.dw.stride == tileCols { // rows follow each other
			rows := t.dw.data[j*tileCols:][:m*tileCols]
			t.v.add(rows, rows, mem[:len(rows)])
			continue
		}
		for r := range m {
			row := t.dw.row(j + r)[i:min(i+tileCols, t.thin.cols)]
			t.v.add(row, row, mem[r*tileCols:][:len(row)])
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
