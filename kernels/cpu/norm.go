package cpu

import (
	"math"

	"graft/kernels"
)

// norm is RMSNorm over a range of rows per task.
type norm struct {
	v                          *vectors
	x, residual, sum, out, inv matrix
	weight                     []float32 // with the offset
	eps                        float64
}

const normTask = 8192 // elements

func rowsPerTask(cols int) int { return max(1, normTask/max(1, cols)) }

func (b *Backend) rmsNorm(o *kernels.RMSNorm, mem []float32) {
	n := &b.norm
	*n = norm{v: b.v, x: view(o.X), residual: optional(o.Residual), sum: optional(o.Sum), out: view(o.Out), inv: view(o.InvRMS),
		weight: mem[:o.Weight.Cols], eps: o.Eps}
	normWeight(b.v, n.weight, o.Weight, o.Offset)
	b.share(n, o.X)
}

// normWeight decodes weight + offset.
func normWeight(v *vectors, dst []float32, w *kernels.Tensor, offset float64) {
	weightsOf(w).decode(v, dst, 0, 0)
	if offset != 0 {
		for i := range dst {
			dst[i] += float32(offset)
		}
	}
}

// share runs a job whose tasks are ranges of rowsPerTask rows of x.
func (b *Backend) share(j job, x *kernels.Tensor) {
	if x.Cols == 0 {
		return
	}
	tasks := ceil(x.Rows, rowsPerTask(x.Cols))
	if x.Len() <= normTask {
		b.pool.inline(j, tasks)
		return
	}
	b.pool.run(j, tasks)
}

func (n *norm) do(_ *worker, task int) {
	per, width, groups := rowsPerTask(n.x.cols), len(n.weight), n.inv.cols
	first, end := task*per*groups, min((task+1)*per, n.x.rows)*groups
	x := n.group(first)
	squares := n.v.sumSquares(x)
	for i := first; i < end; i++ { // each while the next comes from memory
		next := x
		if i+1 < end {
			next = n.group(i + 1)
		}
		t, g := i/groups, i%groups
		inv := float32(1 / math.Sqrt(float64(squares)/float64(width)+n.eps))
		n.inv.row(t)[g] = inv
		squares = n.v.normalizeSum(n.out.row(t)[g*width:][:width], x, n.weight, next, inv)
		x = next
	}
}

// group returns what is normalised together i-th, with the residual added.
func (n *norm) group(i int) []float32 {
	t, g := i/n.inv.cols, i%n.inv.cols
	x := n.x.row(t)
	if n.residual.present() {
		x = n.sum.row(t)
		if g == 0 {
			n.v.add(x, n.x.row(t), n.residual.row(t))
		}
	}
	return x[g*len(n.weight):][:len(n.weight)]
}

// normGrad is RMSNormGrad: first the weight's gradient by ranges of columns,
// while DOut is whole (DX may take its place), then DX by ranges of rows.
type normGrad struct {
	v                     *vectors
	x, inv, dout, add, dx matrix
	out                   matrix // optional
	dweight               []float32
	weight                []float32
	columns               int // tasks that the weight's gradient is cut into, while it is computed
}

func (b *Backend) rmsNormGrad(o *kernels.RMSNormGrad, mem []float32) {
	n := &b.normGrad
	*n = normGrad{v: b.v, x: view(o.X), inv: view(o.InvRMS), dout: view(o.DOut), add: optional(o.Add), dx: view(o.DX), out: optional(o.Out), weight: mem[:o.Weight.Cols]}
	normWeight(b.v, n.weight, o.Weight, o.Offset)
	if o.DWeight != nil && o.X.Rows > 0 {
		n.dweight, n.columns = view(o.DWeight).row(0), columnTasks(len(n.weight), b.pool)
		if o.X.Len() < normTask {
			b.pool.inline(n, n.columns)
		} else {
			b.pool.run(n, n.columns)
		}
		n.columns = 0
	}
	b.share(n, o.X)
}

func (n *normGrad) do(w *worker, task int) {
	if n.columns > 0 {
		n.weights(w, task)
		return
	}
	per := rowsPerTask(n.x.cols)
	for t := task * per; t < min((task+1)*per, n.x.rows); t++ {
		n.row(w, t)
	}
}

func (n *normGrad) row(w *worker, t int) {
	x, dout, dx, width := n.x.row(t), n.dout.row(t), n.dx.row(t), len(n.weight)
	for g, inv := range n.inv.row(t) {
		at := g * width
		xg, dg, to := x[at:][:width], dout[at:][:width], dx[at:][:width]
		if n.out.present() {
			_ = n.v.normalizeSum(n.out.row(t)[at:][:width], xg, n.weight, xg, inv)
		}
		// inv·(g - x̂·mean(g·x̂)) = inv·g - x·inv³·mean(g·x)
		mean := float64(n.v.dot3(xg, dg, n.weight)) / float64(width)
		c := float32(mean * float64(inv) * float64(inv) * float64(inv))
		if !n.add.present() {
			n.v.normGrad(to, xg, dg, n.weight, inv, c)
			continue
		}
		n.v.normGrad(w.private, xg, dg, n.weight, inv, c)
		n.v.add(to, n.add.row(t)[at:][:width], w.private)
	}
}

// weights adds the gradient of a block of the weight, groups of rows first.
func (n *normGrad) weights(w *worker, task int) {
	width := len(n.weight)
	j, end := portion(width, n.columns, task)
	out := n.dweight[j:end]
	sum := w.private[:len(out)]
	for t0 := 0; t0 < n.x.rows; t0 += rowGroup {
		clear(sum)
		for t := t0; t < min(t0+rowGroup, n.x.rows); t++ {
			x, dout := n.x.row(t), n.dout.row(t)
			for g, inv := range n.inv.row(t) {
				n.v.weightGrad(sum, x[g*width+j:][:len(out)], dout[g*width+j:][:len(out)], inv)
			}
		}
		n.v.add(out, out, sum)
	}
}
