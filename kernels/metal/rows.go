package metal

import "graft/kernels"

func (e *encoder) embed(o *kernels.Embed) {
	p := rowsParams{rows: u(o.Out.Rows), cols: u(o.Out.Cols), tableType: weightType(o.Table.DType), fromStride: u(o.Table.Stride), toStride: u(o.Out.Stride), scale: float32(o.Scale)}
	launch(e, e.typed("embed"), elements(o.Out), rowThreads, &p, bind(o.Tokens), bind(o.Table), e.act(o.Out))
}

func (e *encoder) embedGrad(o *kernels.EmbedGrad) {
	p := rowsParams{cols: u(o.DOut.Cols), count: u(o.DOut.Rows), fromStride: u(o.DOut.Stride), toStride: u(o.DTable.Stride), scale: float32(o.Scale)}
	launch(e, e.typed("embed_grad"), grid(o.DOut.Rows, 1, 1), rowThreads, &p, bind(o.Tokens), e.act(o.DOut), bind(o.DTable))
}

func (e *encoder) gather(ops []kernels.Op) {
	var r rowsLaunch
	for _, op := range ops {
		o := op.(*kernels.Gather)
		r.add(e, o.Rows, o.X, o.Out)
	}
	launch(e, e.typed("gather"), grid(blocks(r.cols, rowThreads), r.rows, len(ops)), rowThreads, &r.params, r.buffers[:]...)
}

func (e *encoder) scatter(ops []kernels.Op) {
	var r rowsLaunch
	for _, op := range ops {
		o := op.(*kernels.Scatter)
		r.add(e, o.Rows, o.X, o.Out)
	}
	launch(e, e.typed("scatter"), grid(1, r.rows, len(ops)), rowThreads, &r.params, r.buffers[:]...)
}

// rowsLaunch collects one or two operations.
type rowsLaunch struct {
	params     rowsPair
	buffers    [6]Binding
	n          int
	rows, cols int // the most of either
}

func (r *rowsLaunch) add(e *encoder, rows, x, out *kernels.Tensor) {
	r.params.part[r.n] = rowsParams{rows: u(out.Rows), cols: u(out.Cols), count: u(rows.Rows), fromStride: u(x.Stride), toStride: u(out.Stride)}
	copy(r.buffers[3*r.n:], []Binding{bind(rows), e.act(x), e.act(out)})
	r.n++
	r.rows, r.cols = max(r.rows, out.Rows), max(r.cols, out.Cols)
}
