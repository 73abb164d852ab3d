package metal

import "graft/kernels"

// The rows of the loss are worked on as many at a time as logitBytes hold, but not
// fewer than leastRows: the head's weights are read once for each such part.
var (
	logitBytes = 64 << 20
	leastRows  = 128
)

// lossRows returns how many rows are worked on at a time, and the distance
// between rows of their logits in elements.
func lossRows(o *kernels.CrossEntropy) (rows, stride int) {
	stride = (o.Terms[0].W.Rows + 3) &^ 3
	rows = max(leastRows, logitBytes/4/max(1, stride)&^63) // whole tiles
	return min(rows, o.Loss.Rows), stride
}

func crossEntropyNeed(o *kernels.CrossEntropy) int {
	rows, stride := lossRows(o)
	return 4 * rows * stride
}

// crossEntropy makes the logits of some rows, turns them into the loss and, in
// place, into its gradient by the logits, and multiplies that out, rows after
// rows: the logits never lie in memory whole.
func (e *encoder) crossEntropy(o *kernels.CrossEntropy) {
	n, vocab := o.Loss.Rows, o.Terms[0].W.Rows
	step, stride := lossRows(o)
	for first := 0; first < n; first += step {
		rows := min(step, n-first)
		logits := &kernels.Tensor{Name: "logits", DType: kernels.F32, Rows: rows, Cols: vocab, Stride: stride, Buf: e.b.scratch}
		forward := &kernels.Product{Out: logits}
		var backward []kernels.Op
		for _, t := range o.Terms {
			x := part(t.X, first, rows)
			forward.Terms = append(forward.Terms, kernels.Term{X: x, W: t.W, Scale: t.Scale})
			if t.DX != nil {
				backward = append(backward, &kernels.Product{Out: part(t.DX, first, rows),
					Terms: []kernels.Term{{X: logits, W: t.W, Transposed: true, Scale: t.Scale}}})
			}
			if t.DW != nil {
				backward = append(backward, &kernels.WeightGrad{DY: logits, X: x, DW: t.DW, Scale: t.Scale})
			}
		}
		e.products([]kernels.Op{forward})
		loss := part(o.Loss, first, rows)
		p := lossParams{
			vocabulary: u(vocab), stride: u(stride), lossStride: u(loss.Stride), gradients: flag(len(backward) > 0),
			scale: float32(o.LogitScale), cap: float32(o.SoftCap),
		}
		launch(e, "cross_entropy", grid(rows, 1, 1), 256, &p, bind(logits), bind(part(o.Targets, first, rows)), bind(loss))
		e.products(backward)
	}
}

// part returns the n rows of t from first on.
func part(t *kernels.Tensor, first, n int) *kernels.Tensor {
	p := *t
	p.Rows = n
	p.Off += t.DType.Bytes(first * t.Stride)
	return &p
}
