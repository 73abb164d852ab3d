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
		return thinGradNeed(v, k, n, depth)
	case n <= fewGradCols:
		return thinGradNeed(v, n, k, depth)
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
		*t = thinGrad{v: b.v, long: dy, thin: x, dw: dw, alpha: alpha}
		if t.transposed = dw.cols > fewGradCols; t.transposed {
			t.long, t.thin = x, dy
		}
		t.run(b.pool, mem)
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
// long matrix and a thin one, Cᵀ = thin'·long. Where the thin one is x, that is dw transposed.
// Rows are summed in parts, where these fit a cache: a thread finds there those that it wrote in
// the operation before. A task has some blocks of columns of a part.
type thinGrad struct {
	v          *vectors
	long, thin matrix
	dw         matrix
	transposed bool
	alpha      float32
	sums       []float32 // [parts][blocks]
	parts      int
	blocks     int // of columns
	tasks      int // of a part
}

const (
	gradRows  = 256        // of a part, at least
	gradPart  = 1536 << 10 // bytes that those may have; of more, parts gain nothing
	gradParts = 8          // at most: their sums are read again

	// gradBlocks is how many blocks a task has, at most. It goes over a few rows of all of them at a
	// time: of a long matrix each row is in another page of memory, and to come back
	// to it for the next block takes as long as to read it.
	gradBlocks = 4
)

// partsOf returns how many parts a matrix is summed in, by its shape alone.
func partsOf(rows, cols int) int {
	if 4*gradRows*cols > gradPart {
		return 1
	}
	return min(max(1, rows/gradRows), gradParts)
}

// padded is the number of columns of the thin matrix as whole outer products.
func padded(thin int) int { return ceil(thin, outerRows) * outerRows }

// outerSums is the size of a block's sums.
func outerSums(thin int) int { return ceil(thin, tileCols) * tileCols * outerBlock }

func thinGradNeed(v *vectors, thin, long, rows int) need {
	n := need{
		shared:  partsOf(rows, long) * ceil(long, outerBlock) * outerSums(thin),
		private: outerBlock * max(v.outerDepth, tileCols),
	}
	if thin%outerRows > 0 {
		n.shared += padded(thin) * rows
	}
	return n
}

func (t *thinGrad) run(p *pool, mem []float32) {
	t.parts, t.blocks = partsOf(t.long.rows, t.long.cols), ceil(t.long.cols, outerBlock)
	t.sums = take(&mem, t.parts*t.blocks*outerSums(t.thin.cols))
	if n := t.thin.cols; n%outerRows > 0 {
		wide := matrix{mem, t.thin.rows, n, padded(n)}
		for i := range t.thin.rows {
			clear(mem[i*wide.stride:][copy(wide.row(i), t.thin.row(i)):wide.stride])
		}
		t.thin = wide
	}
	// As many for each thread, and no element depends on how many.
	least := ceil(len(p.workers), t.parts)
	t.tasks = evenParts(t.blocks, gradBlocks, least)
	small := t.dw.rows*t.dw.cols*t.long.rows < smallWork
	p.either(small, t, t.parts*t.tasks)
	if t.parts > 1 {
		p.either(small, (*thinGradSum)(t), t.blocks)
	}
}

// block returns a block's sums in a part.
func (t *thinGrad) block(part, block int) []float32 {
	size := outerSums(t.thin.cols)
	return t.sums[(part*t.blocks+block)*size:][:size]
}

func (t *thinGrad) do(w *worker, task int) {
	part := task / t.tasks
	first, end := portion(t.blocks, t.tasks, task%t.tasks)
	for b := first; b < end; b++ {
		clear(t.block(part, b))
	}
	p0, p1 := portion(t.long.rows, t.parts, part)
	for p := p0; p < p1; p += t.v.outerDepth {
		for b := first; b < end; b++ {
			next := t.place(p, b+1)
			if b+1 == end {
				next = t.place(p+t.v.outerDepth, first)
			}
			long := t.rows(w.private, p, min(t.v.outerDepth, p1-p), b)
			t.v.outer(long.rows, ceil(t.thin.cols, outerRows), &t.thin.data[p*t.thin.stride], t.thin.stride, &long.data[0], long.stride, &t.block(part, b)[0], next)
		}
	}
	if t.parts == 1 {
		for b := first; b < end; b++ {
			t.add(b, w.private)
		}
	}
}

// thinGradSum adds up the parts.
type thinGradSum thinGrad

func (t *thinGradSum) do(w *worker, task int) { (*thinGrad)(t).add(task, w.private) }

// add adds a block's sums of all parts to dw.
func (t *thinGrad) add(block int, mem []float32) {
	c, j := t.block(0, block), block*outerBlock
	for part := 1; part < t.parts; part++ {
		t.v.add(c, c, t.block(part, block))
	}
	m := min(outerBlock, t.long.cols-j)
	if !t.transposed {
		t.addAcross(c, mem, j, m)
		return
	}
	for i := range t.thin.cols {
		t.v.axpy[kernels.F32](t.dw.row(i)[j:][:m], (*byte)(unsafe.Pointer(&c[i*outerBlock])), t.alpha)
	}
}

// rows returns n rows of a block of the long matrix from row p on, copied where it is not whole.
func (t *thinGrad) rows(mem []float32, p, n, block int) matrix {
	j := block * outerBlock
	x := t.long.part(p, n, j, min(outerBlock, t.long.cols-j))
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
