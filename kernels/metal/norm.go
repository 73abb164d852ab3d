package metal

import "graft/kernels"

// rowThreads is the size of the threadgroups that work on a row.
const rowThreads = 128

func (e *encoder) rmsNorm(o *kernels.RMSNorm) {
	p := normParams{
		groups: u(o.InvRMS.Cols), width: u(o.Weight.Cols), xStride: u(o.X.Stride), outStride: u(o.Out.Stride), inverseStride: u(o.InvRMS.Stride),
		weightType: weightType(o.Weight.DType), eps: float32(o.Eps), offset: float32(o.Offset),
	}
	if o.Residual != nil {
		p.residual, p.residualStride, p.sumStride = 1, u(o.Residual.Stride), u(o.Sum.Stride)
	}
	launch(e, e.typed("rms_norm"), grid(o.InvRMS.Cols, o.X.Rows, 1), rowThreads, &p,
		e.act(o.X), e.act(o.Residual), bind(o.Weight), e.act(o.Sum), e.act(o.Out), bind(o.InvRMS))
}

// partRows is how many rows a part of the weight's gradient sums.
const partRows = 64

func rmsNormGradNeed(o *kernels.RMSNormGrad) int {
	if o.DWeight == nil {
		return 0
	}
	return 4 * o.Weight.Cols * blocks(o.X.Rows, partRows)
}

// The weight's gradient comes first: DX may take the place of DOut.
func (e *encoder) rmsNormGrad(o *kernels.RMSNormGrad) {
	p := normGradParams{
		rows: u(o.X.Rows), groups: u(o.InvRMS.Cols), width: u(o.Weight.Cols), xStride: u(o.X.Stride), inverseStride: u(o.InvRMS.Stride),
		doutStride: u(o.DOut.Stride), dxStride: u(o.DX.Stride), weightType: weightType(o.Weight.DType), offset: float32(o.Offset),
		rowsEach: partRows, parts: u(blocks(o.X.Rows, partRows)),
	}
	if o.DWeight != nil && o.X.Rows > 0 {
		parts := e.work(0, rmsNormGradNeed(o))
		across := blocks(o.Weight.Cols, rowThreads)
		launch(e, e.typed("rms_norm_weight_parts"), grid(across, int(p.parts), 1), rowThreads, &p, e.act(o.X), bind(o.InvRMS), e.act(o.DOut), parts)
		launch(e, "rms_norm_weight", grid(across, 1, 1), rowThreads, &p, parts, bind(o.DWeight))
	}
	if o.Add != nil {
		p.add, p.addStride = 1, u(o.Add.Stride)
	}
	if o.Out != nil {
		p.out, p.outStride = 1, u(o.Out.Stride)
	}
	launch(e, e.typed("rms_norm_grad"), grid(o.InvRMS.Cols, o.X.Rows, 1), rowThreads, &p,
		e.act(o.X), bind(o.InvRMS), bind(o.Weight), e.act(o.DOut), e.act(o.Add), e.act(o.DX), e.act(o.Out))
}
