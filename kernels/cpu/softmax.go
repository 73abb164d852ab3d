package cpu

import (
	"math"
	"slices"

	"graft/kernels"
)

// softmaxRows is Softmax over a range of rows per task. Each row is read from
// memory once: the passes over it find it in the cache.
type softmaxRows struct {
	v      *vectors
	x, out matrix
	bounds []int32
	scale  float32
}

func (b *Backend) softmax(o *kernels.Softmax) {
	s := &b.softmaxes
	*s = softmaxRows{v: b.v, x: view(o.X), out: view(o.Out), scale: float32(o.Scale)}
	if o.Bounds != nil {
		s.bounds = indices(o.Bounds)
	}
	b.share(s, o.X)
}

func (s *softmaxRows) do(_ *worker, task int) {
	per := rowsPerTask(s.x.cols)
	first, end := task*per, min((task+1)*per, s.x.rows)
	if s.bounds == nil {
		s.whole(first, end)
		return
	}
	for r := first; r < end; r++ {
		from, to := s.seen(r)
		out := s.out.row(r)
		clear(out[:from])
		clear(out[to:])
		x := s.x.row(r)[from:to]
		sum := s.v.exp(out[from:to], x, s.scale, s.v.maxOf(x))
		s.v.scale(out[from:to], 1/sum)
	}
}

// whole works on rows that look at all columns, each while the next comes from
// memory, and the last one is divided by its sum.
func (s *softmaxRows) whole(first, end int) {
	top := s.v.maxOf(s.x.row(first))
	last, factor := s.out.row(first), float32(1)
	for r := first; r < end; r++ {
		x, out, next := s.x.row(r), s.out.row(r), s.x.row(min(r+1, end-1))
		var sum, nextTop float32
		if s.scale > 0 && math.Abs(float64(s.scale*top)) < expMaxLimit {
			sum, nextTop = s.v.expMax(out, x, next, last, s.scale, top, factor)
		} else {
			s.v.scale(last, factor)
			sum, nextTop = s.v.exp(out, x, s.scale, top), s.v.maxOf(next)
		}
		last, factor, top = out, 1/sum, nextTop
	}
	s.v.scale(last, factor)
}

// seen returns the columns that a row looks at.
func (s *softmaxRows) seen(r int) (from, to int) {
	t := int32(r % s.x.cols)
	i, found := slices.BinarySearch(s.bounds, t)
	if !found {
		i--
	}
	for i+1 < len(s.bounds) && s.bounds[i+1] == t { // empty sequences
		i++
	}
	return int(s.bounds[i]), int(t) + 1
}

// softmaxGradRows is SoftmaxGrad over a range of rows per task.
type softmaxGradRows struct {
	v             *vectors
	out, dout, dx matrix
	scale         float32
}

func (b *Backend) softmaxGrad(o *kernels.SoftmaxGrad) {
	s := &b.softmaxGrads
	*s = softmaxGradRows{v: b.v, out: view(o.Out), dout: view(o.DOut), dx: view(o.DX), scale: float32(o.Scale)}
	b.share(s, o.Out)
}

func (s *softmaxGradRows) do(_ *worker, task int) {
	per := rowsPerTask(s.out.cols)
	for r := task * per; r < min((task+1)*per, s.out.rows); r++ {
		out, dout := s.out.row(r), s.dout.row(r)
		sum := s.v.dot[kernels.F32](out, &bytesOf(matrix{dout, 1, len(dout), len(dout)}).data[0])
		// scale·dout·out - scale·sum·out is the form of the norm's gradient.
		s.v.normGrad(s.dx.row(r), out, dout, out, s.scale, s.scale*sum)
	}
}
