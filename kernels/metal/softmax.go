package metal

import "graft/kernels"

func (e *encoder) softmax(o *kernels.Softmax) {
	p := softmaxParams{rows: u(o.X.Rows), cols: u(o.X.Cols), xStride: u(o.X.Stride), outStride: u(o.Out.Stride), scale: float32(o.Scale)}
	if o.Bounds != nil {
		p.sequences = u(o.Bounds.Rows - 1)
	}
	if o.X.Cols > 0 {
		launch(e, e.typed("softmax"), grid(o.X.Rows, 1, 1), 128, &p, e.act(o.X), bind(o.Bounds), e.act(o.Out))
	}
}

func (e *encoder) softmaxGrad(o *kernels.SoftmaxGrad) {
	p := softmaxGradParams{cols: u(o.Out.Cols), outStride: u(o.Out.Stride), doutStride: u(o.DOut.Stride), dxStride: u(o.DX.Stride), scale: float32(o.Scale)}
	launch(e, e.typed("softmax_grad"), grid(o.Out.Rows, 1, 1), rowThreads, &p, e.act(o.Out), e.act(o.DOut), e.act(o.DX))
}
