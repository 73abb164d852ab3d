package reference

import "graft/kernels"

func embed(o *kernels.Embed) {
	tokens, out := indices(o.Tokens), at(o.Out)
	for t, token := range tokens {
		row := *o.Table
		row.Rows, row.Off = 1, o.Table.Off+o.Table.DType.Bytes(int(token)*o.Table.Stride)
		for j, v := range row.Float64s() {
			out.row(t)[j] = o.Scale * v
		}
	}
}

func embedGrad(o *kernels.EmbedGrad) {
	d, table := at(o.DOut), at(o.DTable)
	for t, token := range indices(o.Tokens) {
		axpy(o.Scale, d.row(t), table.row(int(token)))
	}
}

func product(o *kernels.Product) {
	out := at(o.Out)
	for i := range o.Out.Rows {
		if y := out.row(i); o.Add == nil {
			clear(y)
		} else {
			copy(y, at(o.Add).row(i))
		}
	}
	if o.Bias != nil {
		bias := decoded(o.Bias).row(0)
		for i := range o.Out.Rows {
			axpy(1, bias, out.row(i))
		}
	}
	for _, term := range o.Terms {
		x, w := at(term.X), decoded(term.W)
		for i := range o.Out.Rows {
			y := out.row(i)
			if term.Transposed {
				for k, v := range x.row(i) {
					axpy(term.Scale*v, w.row(k), y)
				}
			} else {
				for j := range y {
					y[j] += term.Scale * dot(x.row(i), w.row(j))
				}
			}
		}
	}
}

func weightGrad(o *kernels.WeightGrad) {
	dy, x, dw := at(o.DY), at(o.X), at(o.DW)
	for t := range o.DY.Rows {
		for j, v := range dy.row(t) {
			axpy(o.Scale*v, x.row(t), dw.row(j))
		}
	}
}

func biasGrad(o *kernels.BiasGrad) {
	dy, d := at(o.DY), at(o.DBias).row(0)
	for t := range o.DY.Rows {
		axpy(1, dy.row(t), d)
	}
}

func gather(o *kernels.Gather) {
	x, out := at(o.X), at(o.Out)
	for n, r := range indices(o.Rows) {
		copy(out.row(n), x.row(int(r)))
	}
}

func scatter(o *kernels.Scatter) {
	x, out := at(o.X), at(o.Out)
	for t := range o.Out.Rows {
		clear(out.row(t))
	}
	for n, r := range indices(o.Rows) {
		copy(out.row(int(r)), x.row(n))
	}
}

func sum(o *kernels.Sum) {
	a, b, out := at(o.A), at(o.B), at(o.Out)
	for i := range o.Out.Rows {
		for j := range out.row(i) {
			out.row(i)[j] = a.row(i)[j] + b.row(i)[j]
		}
	}
}

func zero(o *kernels.Zero) {
	out := at(o.Out)
	for i := range o.Out.Rows {
		clear(out.row(i))
	}
}
