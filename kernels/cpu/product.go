package cpu

import "graft/kernels"

// A product takes one of four ways, by its shape alone: few rows read the
// weights once and need no packing; few columns (a low-rank projection) leave
// the long activations where they are; of all others the large ones are the
// library's, where there is one, and the rest goes the packed way.
const (
	fewRows = 4
	fewCols = 2 * tileCols
)

func productDepth(o *kernels.Product) (depth int) {
	for _, t := range o.Terms {
		depth += t.X.Cols
	}
	return depth
}

// productBlocks returns how many blocks the depth takes in pieces.
func productBlocks(o *kernels.Product) (blocks int) {
	for _, t := range o.Terms {
		blocks += ceil(t.X.Cols, blockDepth)
	}
	return blocks
}

func biasLen(o *kernels.Product) int {
	if o.Bias == nil {
		return 0
	}
	return o.Out.Cols
}

func productNeed(v *vectors, o *kernels.Product) need {
	m, n, depth := o.Out.Rows, o.Out.Cols, productDepth(o)
	n1 := need{shared: aligned(biasLen(o))}
	switch {
	case m == 0 || n == 0 || depth == 0:
	case m <= fewRows:
		n1.private = rowsPrivate(o)
	case n <= fewCols:
		n1.shared += ceil(n, tileCols) * tileCols * depth
		n1.private = tileRows * (thinDepth + 8)
	case v.blas.takes(m, n, depth):
		n1.shared += v.blas.productNeed(o)
	case v.pieces.takes(m, n, depth):
		g := piecesNeed(m, n, productBlocks(o))
		n1.shared += g.shared
		n1.private = g.private
	default:
		g := gemmNeed(m, n, depth)
		if useful(v, m, n, depth) {
			s := strassenNeed(v, n, depth)
			g = need{max(g.shared, s.shared), max(g.private, s.private)}
		}
		n1.shared += g.shared
		n1.private = g.private
	}
	return n1
}

func (b *Backend) product(o *kernels.Product, mem []float32) {
	m, n, depth := o.Out.Rows, o.Out.Cols, productDepth(o)
	if m == 0 || n == 0 {
		return
	}
	var bias []float32
	if o.Bias != nil {
		bias = take(&mem, n)
		weightsOf(o.Bias).decode(b.v, bias, 0, 0)
	}
	switch {
	case depth == 0:
		b.start(o, bias)
	case m <= fewRows:
		b.productRows(o, bias)
	case n <= fewCols:
		b.productThin(o, bias, mem)
	case b.v.blas.takes(m, n, depth):
		b.productBLAS(o, bias, mem)
	default:
		b.productPacked(o, bias, mem)
	}
}

func (b *Backend) productPacked(o *kernels.Product, bias, mem []float32) {
	g := &b.gemm
	out := view(o.Out)
	*g = gemm{v: b.v, terms: g.terms[:0], cuts: g.cuts, m: out.rows, n: out.cols, c: out.data, ldc: out.stride, alpha: 1, bias: bias}
	for _, t := range o.Terms {
		g.terms = append(g.terms, productTerm(t))
		g.depth += t.X.Cols
	}
	g.base = optional(o.Add)
	if o.Add != nil && sameMemory(o.Add, o.Out) && bias == nil {
		g.add, g.base = true, matrix{}
	}
	if b.v.pieces.takes(g.m, g.n, g.depth) {
		(*inPieces)(g).run(b.pool, mem)
		return
	}
	done := 0
	if useful(b.v, g.m, g.n, g.depth) {
		done = (*strassen)(g).run(b.pool, mem)
	}
	g.run(b.pool, mem, done)
}

func productTerm(t kernels.Term) term {
	return term{
		left:  factor{weights: bytesOf(view(t.X))},
		right: factor{weights: weightsOf(t.W), along: t.Transposed, scale: float32(t.Scale)},
		depth: t.X.Cols,
	}
}

// sameMemory reports whether two operands are the same matrix.
func sameMemory(a, b *kernels.Tensor) bool {
	x, y := kernels.View[float32](a), kernels.View[float32](b)
	return len(x) > 0 && len(y) > 0 && &x[0] == &y[0]
}

// start computes a product without terms: Out = Add + bias.
func (b *Backend) start(o *kernels.Product, bias []float32) {
	e := &b.each
	*e = elementwise{v: b.v, out: view(o.Out), a: optional(o.Add), bias: bias, f: eachStart}
	e.run(b.pool)
}

// thinProduct is a product with few columns: the weights are packed whole, or lie
// as if they were, and the rows of X are read in place, a few panels per task.
type thinProduct struct {
	v    *vectors
	o    *kernels.Product
	out  matrix
	base matrix
	bias []float32
	pack []float32
}

const (
	thinRows  = 4 * tileRows // of a task
	thinDepth = 2 * maxDepth // rows of X are read once, in order
)

func (b *Backend) productThin(o *kernels.Product, bias, mem []float32) {
	t := &b.thin
	*t = thinProduct{v: b.v, o: o, out: view(o.Out), base: optional(o.Add), bias: bias, pack: mem}
	for i := range o.Terms {
		f := productTerm(o.Terms[i])
		if _, ok := inPlace(&o.Terms[i]); ok {
			continue
		}
		packThin(b.pool.workers[0], b.v, mem, f.right, t.out.cols, f.depth, depthBlock(f.depth, thinDepth))
		mem = mem[ceil(t.out.cols, tileCols)*tileCols*f.depth:]
	}
	tasks := ceil(t.out.rows, thinRows)
	if o.FLOPs() < 2*smallWork {
		b.pool.inline(t, tasks)
		return
	}
	b.pool.run(t, tasks)
}

func (t *thinProduct) do(w *worker, task int) {
	i0 := task * thinRows
	m := min(thinRows, t.out.rows-i0)
	for i := i0; i < i0+m; i++ {
		startRow(t.v, t.out.row(i), t.base, t.bias, i, 0)
	}
	pack := t.pack
	for n := range t.o.Terms {
		x := view(t.o.Terms[n].X)
		if b, ok := inPlace(&t.o.Terms[n]); ok {
			t.multiply(w, x, b, float32(t.o.Terms[n].Scale), i0, m)
			continue
		}
		t.multiply(w, x, matrix{data: pack}, 1, i0, m)
		pack = pack[ceil(t.out.cols, tileCols)*tileCols*x.cols:]
	}
}

// inPlace returns a weight whose rows are those of right panels: [k, n] in
// float32, n whole panels.
func inPlace(t *kernels.Term) (w matrix, ok bool) {
	if !t.Transposed || t.W.Cols%tileCols > 0 {
		return w, false
	}
	return weightsOf(t.W).inPlace()
}

// packThin packs the right factor of a product with few columns, block by
// block of the depth.
func packThin(w *worker, v *vectors, dst []float32, f factor, n, depth, block int) {
	panels := ceil(n, tileCols)
	for p := 0; p < depth; p += block {
		k := min(block, depth-p)
		packRight(w, v, dst[p*panels*tileCols:], k*tileCols, f, 0, n, p, k)
	}
}

// multiply adds alpha times the product of rows i0 to i0+m of x and a weight: in
// place, or where it has no stride, packed.
func (t *thinProduct) multiply(w *worker, x, weight matrix, alpha float32, i0, m int) {
	whole := m / tileRows * tileRows
	panels, block := ceil(t.out.cols, tileCols), depthBlock(x.cols, thinDepth)
	for p := 0; p < x.cols; p += block {
		k := min(block, x.cols-p)
		b := right{weight.data[p*weight.stride:], tileCols, weight.stride}
		if !weight.present() {
			b = packedRight(weight.data, panels, p, k, 0)
		}
		if whole > 0 {
			a := left{x.data[i0*x.stride+p:], tileRows * x.stride, x.stride, 1}
			w.tiles(t.v, whole, t.out.cols, k, a, b, t.out.data[i0*t.out.stride:], t.out.stride, alpha, true)
		}
		if whole < m {
			packLeft(t.v, w.private, factor{weights: bytesOf(x)}, i0+whole, m-whole, p, k)
			w.tiles(t.v, m-whole, t.out.cols, k, packedLeft(w.private, 1, 0, k, 0), b, t.out.data[(i0+whole)*t.out.stride:], t.out.stride, alpha, true)
		}
	}
}

// rowsProduct is a product with few rows, as in generation: a task reads its
// part of the weights once and does no packing.
type rowsProduct struct {
	v    *vectors
	o    *kernels.Product
	out  matrix
	base matrix
	bias []float32
}

const (
	rowsCols  = 64  // columns per task
	rowsDepth = 256 // depth summed apart, for accuracy
)

// rowsPrivate is room for partial sums, and for a row of weights that must be
// decoded.
func rowsPrivate(o *kernels.Product) int {
	n := 0
	for _, t := range o.Terms {
		if !direct(t.W.DType) {
			n = max(n, t.X.Cols, rowsCols)
		}
	}
	return aligned(n) + fewRows*rowsCols
}

func (b *Backend) productRows(o *kernels.Product, bias []float32) {
	r := &b.rows
	*r = rowsProduct{v: b.v, o: o, out: view(o.Out), base: optional(o.Add), bias: bias}
	tasks := ceil(r.out.cols, rowsCols)
	if o.FLOPs() < smallWork/4 {
		b.pool.inline(r, tasks)
		return
	}
	b.pool.run(r, tasks)
}

func (r *rowsProduct) do(w *worker, task int) {
	j := task * rowsCols
	n := min(rowsCols, r.out.cols-j)
	for t := range r.out.rows {
		startRow(r.v, r.out.row(t)[j:j+n], r.base, r.bias, t, j)
	}
	for i := range r.o.Terms {
		t := &r.o.Terms[i]
		x, wt := view(t.X), weightsOf(t.W)
		if x.cols == 0 {
			continue
		}
		if t.Transposed {
			r.along(w, x, wt, float32(t.Scale), j, n)
		} else {
			r.across(w, x, wt, float32(t.Scale), j, n)
		}
	}
}

// across adds dot products with rows of the weights.
func (r *rowsProduct) across(w *worker, x matrix, wt weights, scale float32, j, n int) {
	for c := j; c < j+n; c++ {
		dtype, row := r.stored(w, wt, c, 0, x.cols)
		for t := range x.rows {
			r.out.row(t)[c] += scale * r.v.dot[dtype](x.row(t), row)
		}
	}
}

// along adds multiples of rows of the weights.
func (r *rowsProduct) along(w *worker, x matrix, wt weights, scale float32, j, n int) {
	sums := w.private[len(w.private)-fewRows*rowsCols:]
	for p0 := 0; p0 < x.cols; p0 += rowsDepth {
		clear(sums)
		for p := p0; p < min(p0+rowsDepth, x.cols); p++ {
			dtype, row := r.stored(w, wt, p, j, n)
			for t := range x.rows {
				r.v.axpy[dtype](sums[t*rowsCols:][:n], row, scale*x.row(t)[p])
			}
		}
		for t := range x.rows {
			out := r.out.row(t)[j : j+n]
			r.v.add(out, out, sums[t*rowsCols:][:n])
		}
	}
}

// stored returns n weights from (i, j) on in a type that the vectors read.
func (r *rowsProduct) stored(w *worker, wt weights, i, j, n int) (kernels.DType, *byte) {
	if direct(wt.dtype) {
		return wt.dtype, &wt.at(i, j)[0]
	}
	row := w.private[:n]
	wt.decode(r.v, row, i, j)
	return kernels.F32, &bytesOf(matrix{row, 1, n, n}).data[0]
}
