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
	var p gatherParams
	buffers := make([]Binding, 6)
	size := grid(0, 0, len(ops))
	for i, op := range ops {
		o := op.(*kernels.Gather)
		p.part[i] = rowsParams{rows: u(o.Out.Rows), cols: u(o.Out.Cols), fromStride: u(o.X.Stride), toStride: u(o.Out.Stride)}
		copy(buffers[3*i:], []Binding{bind(o.Rows), e.act(o.X), e.act(o.Out)})
		size[0], size[1] = max(size[0], blocks(o.Out.Cols, rowThreads)), max(size[1], o.Out.Rows)
	}
	launch(e, e.typed("gather"), size, rowThreads, &p, buffers...)
}

func (e *encoder) scatter(o *kernels.Scatter) {
	p := rowsParams{cols: u(o.Out.Cols), count: u(o.Rows.Rows), fromStride: u(o.X.Stride), toStride: u(o.Out.Stride)}
	launch(e, e.typed("scatter"), grid(o.Out.Rows, 1, 1), rowThreads, &p, bind(o.Rows), e.act(o.X), e.act(o.Out))
}
