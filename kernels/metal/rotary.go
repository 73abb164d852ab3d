package metal

import "graft/kernels"

func (e *encoder) rotaryTable(o *kernels.RotaryTable) {
	p := rotaryTableParams{pairs: u(o.Freqs.Cols), tokens: u(o.Out.Rows), outStride: u(o.Out.Stride), scale: float32(o.Scale)}
	launch(e, "rotary_table", grid(blocks(o.Freqs.Cols, rowThreads), o.Out.Rows, 1), rowThreads, &p, bind(o.Positions), bind(o.Freqs), bind(o.Out))
}

// canJoinRotary reports whether op can be turned in the launch of list: a
// launch takes two.
func canJoinRotary(list []kernels.Op, op *kernels.Rotary) bool {
	first, ok := list[0].(*kernels.Rotary)
	return ok && len(list) == 1 && first.X.Rows == op.X.Rows
}

func (e *encoder) rotary(ops []kernels.Op) {
	var p rotaryParams
	buffers := make([]Binding, 6)
	widest, rows := 0, 0
	for i, op := range ops {
		o := op.(*kernels.Rotary)
		heads, pairs := o.X.Cols/o.HeadDim, o.Table.Cols/2
		p.part[i] = rotaryPart{
			heads: u(heads), xStride: u(o.X.Stride), outStride: u(o.Out.Stride), tableStride: u(o.Table.Stride),
			headDim: u(o.HeadDim), pairs: u(pairs), sign: 1,
		}
		if o.Inverse {
			p.part[i].sign = -1
		}
		copy(buffers[3*i:], []Binding{e.act(o.X), bind(o.Table), e.act(o.Out)})
		widest, rows = max(widest, heads*(o.HeadDim-pairs)), o.X.Rows
	}
	launch(e, e.typed("rotary"), grid(blocks(widest, rowThreads), rows, len(ops)), rowThreads, &p, buffers...)
}
