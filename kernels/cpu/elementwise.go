package cpu

import (
	"graft/kernels"
	"graft/kernels/random"
)

// elementwise runs what treats each element by itself. Tasks are rectangles
// of about eachTask elements.
type elementwise struct {
	v      *vectors
	f      eachKind
	out    matrix // its shape is that of all others
	out2   matrix
	out3   matrix // optional
	a, b   matrix
	c      matrix
	bias   []float32
	act    kernels.Act
	mask   mask
	across int // pieces that a row is cut into
	down   int // rows per task
}

type eachKind uint8

const (
	eachStart eachKind = iota // out = a + bias
	eachSum
	eachZero
	eachDropout
	eachGated
	eachGatedGrad
)

const (
	eachCols = 8192 // most columns per task, a multiple of 4
	eachTask = 16384
)

func (e *elementwise) run(p *pool) {
	if e.out.rows == 0 || e.out.cols == 0 {
		return
	}
	e.across = ceil(e.out.cols, eachCols)
	e.down = max(1, eachTask/min(e.out.cols, eachCols))
	tasks := e.across * ceil(e.out.rows, e.down)
	if e.out.rows*e.out.cols <= eachTask/2 {
		p.inline(e, tasks)
		return
	}
	p.run(e, tasks)
}

func (e *elementwise) do(_ *worker, task int) {
	i0, j := task/e.across*e.down, task%e.across*eachCols
	n := min(eachCols, e.out.cols-j)
	for i := i0; i < min(i0+e.down, e.out.rows); i++ {
		e.segment(i, j, n)
	}
}

func (m matrix) segment(i, j, n int) []float32 { return m.data[i*m.stride+j:][:n:n] }

func (e *elementwise) segment(i, j, n int) {
	out := e.out.segment(i, j, n)
	switch e.f {
	case eachStart:
		startRow(e.v, out, e.a, e.bias, i, j)
	case eachSum:
		e.v.add(out, e.a.segment(i, j, n), e.b.segment(i, j, n))
	case eachZero:
		clear(out)
	case eachDropout:
		e.v.dropout(out, e.a.segment(i, j, n), &e.mask, uint64(i), uint64(j))
	case eachGated:
		e.v.gated[e.act](out, e.a.segment(i, j, n), e.b.segment(i, j, n))
	case eachGatedGrad:
		dup := e.out2.segment(i, j, n)
		again := dup
		if e.out3.present() {
			again = e.out3.segment(i, j, n)
		}
		e.v.gatedGrad[e.act](out, dup, again, e.a.segment(i, j, n), e.b.segment(i, j, n), e.c.segment(i, j, n))
	}
}

func (b *Backend) sum(o *kernels.Sum) {
	b.each = elementwise{v: b.v, f: eachSum, out: view(o.Out), a: view(o.A), b: view(o.B)}
	b.each.run(b.pool)
}

func (b *Backend) zero(o *kernels.Zero) {
	b.each = elementwise{v: b.v, f: eachZero, out: view(o.Out)}
	b.each.run(b.pool)
}

func (b *Backend) gated(o *kernels.Gated) {
	b.each = elementwise{v: b.v, f: eachGated, act: o.Act, out: view(o.Out), a: view(o.Gate), b: view(o.Up)}
	b.each.run(b.pool)
}

func (b *Backend) gatedGrad(o *kernels.GatedGrad) {
	b.each = elementwise{v: b.v, f: eachGatedGrad, act: o.Act, out: view(o.DGate), out2: view(o.DUp), out3: optional(o.Out),
		a: view(o.Gate), b: view(o.Up), c: view(o.DOut)}
	b.each.run(b.pool)
}

// mask says which elements a dropout keeps: element (t, j) has word j mod 4
// at a position of the module's stream that counts step, row and j/4.
type mask struct {
	seed   uint64
	stream uint32
	start  uint64 // position of row 0, column 0
	perRow uint64 // positions of a row
	least  uint64 // words below are dropped
	factor float32
}

func (b *Backend) dropout(o *kernels.Dropout) {
	perRow := uint64(ceil(o.X.Cols, 4))
	b.each = elementwise{v: b.v, f: eachDropout, out: view(o.Out), a: view(o.X), mask: mask{
		seed: o.Seed, stream: o.Stream, start: o.Step<<40 | uint64(o.Row)*perRow, perRow: perRow,
		least: dropBelow(o.P), factor: float32(1 / (1 - o.P)),
	}}
	b.each.run(b.pool)
}

// dropBelow returns the least word that is kept: word ≥ P·2³².
func dropBelow(p float64) uint64 {
	x := p * (1 << 32)
	n := uint64(x)
	if float64(n) < x {
		n++
	}
	return n
}

func plainDropout(out, x []float32, d *mask, row, column uint64) {
	at := d.start + row*d.perRow + column/4
	for j := 0; j < len(out); j += 4 {
		words := random.At(d.seed, random.Dropout, d.stream, at)
		at++
		for i := j; i < min(j+4, len(out)); i++ {
			if uint64(words[i-j]) >= d.least {
				out[i] = x[i] * d.factor
			} else {
				out[i] = 0
			}
		}
	}
}
