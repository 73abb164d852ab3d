package reference

import (
	"math"

	"graft/kernels"
)

// scores computes what query row i of head h sees: the capped scores of keys
// first to i, and the derivative of the cap at each.
func scores(s kernels.AttentionShape, q []float64, k matrix, column, first, i int) (z, dz []float64) {
	for j := first; j <= i; j++ {
		x := s.Scale * dot(q, k.row(j)[column:][:s.HeadDim])
		d := 1.0
		if c := s.SoftCap; c > 0 {
			th := math.Tanh(x / c)
			x, d = c*th, 1-th*th
		}
		z, dz = append(z, x), append(dz, d)
	}
	return z, dz
}

// rows calls f for every query row and head, with the first key it sees.
func rows(s kernels.AttentionShape, bounds []int32, heads int, f func(i, h, first int)) {
	for b := 1; b < len(bounds); b++ {
		start := int(bounds[b-1])
		for i := start; i < int(bounds[b]); i++ {
			first := start
			if s.Window > 0 {
				first = max(first, i-s.Window+1)
			}
			for h := range heads {
				f(i, h, first)
			}
		}
	}
}

func attention(o *kernels.Attention) {
	q, k, v, out, lse := at(o.Q), at(o.K), at(o.V), at(o.Out), at(o.LSE)
	heads, shared := o.LSE.Cols, o.Q.Cols/o.K.Cols
	rows(o.AttentionShape, indices(o.Bounds), heads, func(i, h, first int) {
		column := h / shared * o.HeadDim
		z, _ := scores(o.AttentionShape, q.row(i)[h*o.HeadDim:][:o.HeadDim], k, column, first, i)
		l := logSumExp(z)
		lse.row(i)[h] = l
		y := out.row(i)[h*o.HeadDim:][:o.HeadDim]
		clear(y)
		for j, x := range z {
			axpy(math.Exp(x-l), v.row(first + j)[column:][:o.HeadDim], y)
		}
	})
}

func logSumExp(z []float64) float64 {
	top := math.Inf(-1)
	for _, x := range z {
		top = max(top, x)
	}
	var sum float64
	for _, x := range z {
		sum += math.Exp(x - top)
	}
	return top + math.Log(sum)
}

func attentionGrad(o *kernels.AttentionGrad) {
	q, k, v, out, dout, lse := at(o.Q), at(o.K), at(o.V), at(o.Out), at(o.DOut), at(o.LSE)
	dq, dk, dv := at(o.DQ), at(o.DK), at(o.DV)
	for i := range o.Q.Rows {
		clear(dq.row(i))
		clear(dk.row(i))
		clear(dv.row(i))
	}
	heads, shared, dim := o.LSE.Cols, o.Q.Cols/o.K.Cols, o.HeadDim
	rows(o.AttentionShape, indices(o.Bounds), heads, func(i, h, first int) {
		column := h / shared * dim
		query, d := q.row(i)[h*dim:][:dim], dout.row(i)[h*dim:][:dim]
		z, dz := scores(o.AttentionShape, query, k, column, first, i)
		delta := dot(d, out.row(i)[h*dim:][:dim])
		for n, x := range z {
			j := first + n
			p := math.Exp(x - lse.row(i)[h])
			axpy(p, d, dv.row(j)[column:][:dim])
			ds := p * (dot(d, v.row(j)[column:][:dim]) - delta) * dz[n] * o.Scale
			axpy(ds, k.row(j)[column:][:dim], dq.row(i)[h*dim:][:dim])
			axpy(ds, query, dk.row(j)[column:][:dim])
		}
	})
}

// softmax of the columns that each row looks at.
func softmax(o *kernels.Softmax) {
	x, out := at(o.X), at(o.Out)
	var bounds []int32
	if o.Bounds != nil {
		bounds = kernels.View[int32](o.Bounds)
	}
	for r := range o.X.Rows {
		from, to := 0, o.X.Cols
		for i := 1; i < len(bounds); i++ {
			if t := r % o.X.Cols; int(bounds[i-1]) <= t && t < int(bounds[i]) {
				from, to = int(bounds[i-1]), t+1
			}
		}
		most, sum := math.Inf(-1), 0.0
		for j := from; j < to; j++ {
			most = max(most, o.Scale*x.row(r)[j])
		}
		for j := range out.row(r) {
			if j < from || j >= to {
				out.row(r)[j] = 0
				continue
			}
			out.row(r)[j] = math.Exp(o.Scale*x.row(r)[j] - most)
			sum += out.row(r)[j]
		}
		for j := from; j < to; j++ {
			out.row(r)[j] /= sum
		}
	}
}

func softmaxGrad(o *kernels.SoftmaxGrad) {
	out, dout, dx := at(o.Out), at(o.DOut), at(o.DX)
	for r := range o.Out.Rows {
		sum := 0.0
		for j, p := range out.row(r) {
			sum += p * dout.row(r)[j]
		}
		for j, p := range out.row(r) {
			dx.row(r)[j] = o.Scale * p * (dout.row(r)[j] - sum)
		}
	}
}
