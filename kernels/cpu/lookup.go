package cpu

import "graft/kernels"

// lookup runs what moves rows by index: embedding, gather and scatter.
type lookup struct {
	v     *vectors
	f     lookupKind
	index []int32
	x     matrix
	table weights
	out   matrix
	scale float32
}

type lookupKind uint8

const (
	lookupEmbed lookupKind = iota
	lookupEmbedGrad
	lookupGather
	lookupScatter
)

const (
	lookupRows = 16
	owners     = 32 // tasks of an EmbedGrad; each owns the rows of some tokens
)

func indices(t *kernels.Tensor) []int32 { return kernels.View[int32](t)[:t.Rows] }

func (b *Backend) embed(o *kernels.Embed) {
	b.lookup = lookup{v: b.v, f: lookupEmbed, index: indices(o.Tokens), table: weightsOf(o.Table), out: view(o.Out), scale: float32(o.Scale)}
	b.lookup.run(b.pool, ceil(o.Out.Rows, lookupRows))
}

func (b *Backend) embedGrad(o *kernels.EmbedGrad) {
	b.lookup = lookup{v: b.v, f: lookupEmbedGrad, index: indices(o.Tokens), x: view(o.DOut), out: view(o.DTable), scale: float32(o.Scale)}
	b.lookup.run(b.pool, owners)
}

func (b *Backend) gather(o *kernels.Gather) {
	b.lookup = lookup{v: b.v, f: lookupGather, index: indices(o.Rows), x: view(o.X), out: view(o.Out)}
	b.lookup.run(b.pool, ceil(o.Out.Rows, lookupRows))
}

func (b *Backend) scatter(o *kernels.Scatter) {
	b.each = elementwise{v: b.v, f: eachZero, out: view(o.Out)}
	b.each.run(b.pool)
	b.lookup = lookup{v: b.v, f: lookupScatter, index: indices(o.Rows), x: view(o.X), out: view(o.Out)}
	b.lookup.run(b.pool, ceil(o.X.Rows, lookupRows))
}

func (l *lookup) run(p *pool, tasks int) {
	if l.out.cols == 0 || len(l.index) == 0 {
		return
	}
	if len(l.index)*l.out.cols < eachTask {
		p.inline(l, tasks)
		return
	}
	p.run(l, tasks)
}

func (l *lookup) do(_ *worker, task int) {
	if l.f == lookupEmbedGrad {
		l.accumulate(task)
		return
	}
	for i := task * lookupRows; i < min((task+1)*lookupRows, len(l.index)); i++ {
		row := int(l.index[i])
		switch l.f {
		case lookupEmbed:
			out := l.out.row(i)
			l.table.decode(l.v, out, row, 0)
			if l.scale != 1 {
				l.v.scale(out, l.scale)
			}
		case lookupGather:
			copy(l.out.row(i), l.x.row(row))
		case lookupScatter:
			copy(l.out.row(row), l.x.row(i))
		}
	}
}

// accumulate adds the gradients of the tokens that a task owns, in order, so
// that a token met several times is summed the same way by any thread.
func (l *lookup) accumulate(task int) {
	for i, row := range l.index {
		if int(row)%owners == task {
			x := l.x.row(i)
			l.v.axpy[kernels.F32](l.out.row(int(row)), &bytesOf(matrix{x, 1, len(x), len(x)}).data[0], l.scale)
		}
	}
}
