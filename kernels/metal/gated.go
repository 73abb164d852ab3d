package metal

import "graft/kernels"

func (e *encoder) gated(o *kernels.Gated) {
	p := gatedParams{rows: u(o.Out.Rows), cols: u(o.Out.Cols), gateStride: u(o.Gate.Stride), upStride: u(o.Up.Stride), outStride: u(o.Out.Stride), act: uint32(o.Act)}
	launch(e, e.typed("gated"), elements(o.Out), rowThreads, &p, e.act(o.Gate), e.act(o.Up), e.act(o.Out))
}

func (e *encoder) gatedGrad(o *kernels.GatedGrad) {
	p := gatedParams{
		rows: u(o.DOut.Rows), cols: u(o.DOut.Cols), gateStride: u(o.Gate.Stride), upStride: u(o.Up.Stride), doutStride: u(o.DOut.Stride),
		dgateStride: u(o.DGate.Stride), dupStride: u(o.DUp.Stride), act: uint32(o.Act),
	}
	if o.Out != nil {
		p.out, p.outStride = 1, u(o.Out.Stride)
	}
	launch(e, e.typed("gated_grad"), elements(o.DOut), rowThreads, &p, e.act(o.Gate), e.act(o.Up), e.act(o.DOut), e.act(o.DGate), e.act(o.DUp), e.act(o.Out))
}

// elements is the grid of a kernel with a thread for each element.
func elements(t *kernels.Tensor) [3]int { return grid(blocks(t.Cols, rowThreads), t.Rows, 1) }
