package metal

import (
	"math"

	"graft/kernels"
	"graft/kernels/random"
)

// suffixes name the kernels for a type of elements.
var suffixes = map[kernels.DType]string{kernels.F32: "_f32", kernels.F16: "_f16", kernels.BF16: "_bf16"}

func (e *encoder) sum(o *kernels.Sum) {
	p := elementParams{rows: u(o.Out.Rows), cols: u(o.Out.Cols), aStride: u(o.A.Stride), bStride: u(o.B.Stride), outStride: u(o.Out.Stride)}
	launch(e, "sum"+suffixes[o.Out.DType], elements(o.Out), rowThreads, &p, bind(o.A), bind(o.B), bind(o.Out))
}

func (e *encoder) zero(o *kernels.Zero) {
	p := elementParams{rows: u(o.Out.Rows), cols: u(o.Out.Cols), outStride: u(o.Out.Stride)}
	launch(e, "zero"+suffixes[o.Out.DType], elements(o.Out), rowThreads, &p, bind(o.Out))
}

func (e *encoder) dropout(o *kernels.Dropout) {
	fours := blocks(o.X.Cols, 4)
	start := o.Step<<40 | uint64(o.Row)*uint64(fours)
	p := dropoutParams{
		rows: u(o.X.Rows), cols: u(o.X.Cols), xStride: u(o.X.Stride), outStride: u(o.Out.Stride),
		seedLow: uint32(o.Seed), seedHigh: uint32(o.Seed >> 32), stream: o.Stream, purpose: uint32(random.Dropout),
		startLow: uint32(start), startHigh: uint32(start >> 32), least: uint32(min(math.Ceil(o.P*(1<<32)), math.MaxUint32)), factor: float32(1 / (1 - o.P)),
	}
	launch(e, e.typed("dropout"), grid(blocks(fours, rowThreads), o.X.Rows, 1), rowThreads, &p, e.act(o.X), e.act(o.Out))
}

func (e *encoder) biasGrad(o *kernels.BiasGrad) {
	p := elementParams{rows: u(o.DY.Rows), cols: u(o.DY.Cols), aStride: u(o.DY.Stride)}
	launch(e, e.typed("bias_grad"), grid(blocks(o.DY.Cols, 32), 1, 1), 256, &p, e.act(o.DY), bind(o.DBias))
}
