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
	case v.pieces.takes(n, k, depth):
		return piecesNeed(n, k, ceil(depth, blockDepth))
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
	if b.v.pieces.takes(g.m, g.n, g.depth) {
		(*inPieces)(g).run(b.pool, mem)
		return
	}
	g.run(b.pool, mem, 0)
}

// thinGrad is the gradient of a low-rank factor: sums of outer products of rows of a
// long matrix and a thin one. A task has some blocks of columns of the long one, and sums
// Cᵀ = thin'·long aside. Where the thin one is x, that is dw transposed.
type thinGrad struct {
	v          *vectors
	long, thin matrix
	dw         matrix
	transposed bool
	alpha      float32
	pack       []float32
	tasks      int
}

// gradBlocks is how many blocks a task has, at most. It goes over a few rows of all of them at a
// time: of a long matrix each row is in another page of memory, and to come back
// to it for the next block takes as long as to read it.
const gradBlocks = 4

// padded is the number of columns of the thin matrix as whole outer products.
func padded(thin int) int { return ceil(thin, outerRows) * outerRows }

// outerSums is the size of a block's sums.
func outerSums(thin int) int { return ceil(thin, tileCols) * tileCols * outerBlock }

func thinGradNeed(v *vectors, thin, depth int) need {
	n := need{private: gradBlocks*outerSums(thin) + outerBlock*max(v.outerDepth, tileCols)}
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
	// As many for each thread, and no element depends on how many.
	blocks, threads := ceil(t.long.cols, outerBlock), len(p.workers)
	t.tasks = min(blocks, ceil(ceil(blocks, gradBlocks), threads)*threads)
	if t.dw.rows*t.dw.cols*t.long.rows < smallWork {
		p.inline(t, t.tasks)
		return
	}
	p.run(t, t.tasks)
}

func (t *thinGrad) do(w *worker, task int) {
	first, end := portion(ceil(t.long.cols, outerBlock), t.tasks, task)
	mem, size := w.private, outerSums(t.thin.cols)
	sums := take(&mem, (end-first)*size)
	clear(sums)
	for p := 0; p < t.long.rows; p += t.v.outerDepth {
		for b := first; b < end; b++ {
			next := t.place(p, b+1)
			if b+1 == end {
				next = t.place(p+t.v.outerDepth, first)
			}
			long := t.rows(mem, p, b)
			t.v.outer(long.rows, ceil(t.thin.cols, outerRows), &t.thin.data[p*t.thin.stride], t.thin.stride, &long.data[0], long.stride, &sums[(b-first)*size], next)
		}
	}
	for b := first; b < end; b++ {
		t.add(sums[(b-first)*size:][:size], mem, b*outerBlock)
	}
}

// add adds a block's sums, from column j on.
func (t *thinGrad) add(c, mem []float32, j int) {
	m := min(outerBlock, t.long.cols-j)
	if !t.transposed {
		t.addAcross(c, mem, j, m)
		return
	}
	for i := range t.thin.cols {
		t.v.axpy[kernels.F32](t.dw.row(i)[j:][:m], (*byte)(unsafe.Pointer(&c[i*outerBlock])), t.alpha)
	}
}

// rows returns a block of the long matrix from row p on, copied where it is not whole.
func (t *thinGrad) rows(mem []float32, p, block int) matrix {
	j := block * outerBlock
	x := t.long.part(p, min(t.v.outerDepth, t.long.rows-p), j, min(outerBlock, t.long.cols-j))
	if x.cols == outerBlock {
		return x
	}
	wide := matrix{mem, x.rows, outerBlock, outerBlock}
	for i := range x.rows {
		clear(wide.row(i)[copy(wide.row(i), x.row(i)):])
	}
	return wide
}

// place returns where a block of the long matrix starts, or if there is none, a place all the same.
func (t *thinGrad) place(p, block int) *float32 {
	if at := p*t.long.stride + block*outerBlock; at < len(t.long.data) {
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
	v     *vectors
	dy    matrix
	out   []float32
	tasks int
}

const (
	columnBlock = 512 // columns per task, at most: a row of them is a page's half
	columnLeast = 64  // and at least, where there are as many
	rowGroup    = 64  // rows summed apart
)

// columnTasks returns how many tasks so many columns are cut into.
func columnTasks(cols int, p *pool) int {
	return min(ceil(cols, columnLeast), max(ceil(cols, columnBlock), len(p.workers)))
}

func (b *Backend) biasGrad(o *kernels.BiasGrad) {
	c := &b.columns
	*c = columns{v: b.v, dy: view(o.DY), out: view(o.DBias).row(0), tasks: columnTasks(o.DY.Cols, b.pool)}
	if o.DY.Len() < smallWork/4 {
		b.pool.inline(c, c.tasks)
		return
	}
	b.pool.run(c, c.tasks)
}

func (c *columns) do(w *worker, task int) {
	j, end := portion(len(c.out), c.tasks, task)
	out := c.out[j:end]
	sum := w.private[:len(out)]
	for t0 := 0; t0 < c.dy.rows; t0 += rowGroup {
		clear(sum)
		for t := t0; t < min(t0+rowGroup, c.dy.rows); t++ {
			c.v.add(sum, sum, c.dy.row(t)[j:end])
		}
		c.v.add(out, out, sum)
	}
}
