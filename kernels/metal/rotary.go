package metal

import "graft/kernels"

func (e *encoder) rotaryTable(o *kernels.RotaryTable) {
	p := rotaryTableParams{pairs: u(o.Freqs.Cols), tokens: u(o.Out.Rows), outStride: u(o.Out.Stride), scale: float32(o.Scale)}
	launch(e, "rotary_table", grid(blocks(o.Freqs.Cols, rowThreads), o.Out.Rows, 1), rowThreads, &p, bind(o.Positions), bind(o.Freqs), bind(o.Out))
}

func (e *encoder) rotary(ops []kernels.Op) {
	var p rotaryParams
	buffers := make([]Binding, 6)
	size := grid(0, 0, len(ops))
	for i, op := range ops {
		o := op.(*kernels.Rotary)
		heads, pairs := o.X.Cols/o.HeadDim, o.Table.Cols/2
		p.part[i] = rotaryPart{
			rows:  u(o.X.Rows),
			heads: u(heads), xStride: u(o.X.Stride), outStride: u(o.Out.Stride), tableStride: u(o.Table.Stride),
			headDim: u(o.HeadDim), pairs: u(pairs), sign: 1,
		}
		if o.Inverse {
			p.part[i].sign = -1
		}
		copy(buffers[3*i:], []Binding{e.act(o.X), bind(o.Table), e.act(o.Out)})
		size[0], size[1] = max(size[0], blocks(heads*(o.HeadDim-pairs), rowThreads)), max(size[1], o.X.Rows)
	}
	launch(e, e.typed("rotary"), size, rowThreads, &p, buffers...)
}
