package cpu

import (
	"math"

	"graft/kernels"
)

// Attention goes block by block over queries and keys with the running
// maximum and sum of Milakov and Gimelshein (2018) and Dao et al. (2022), so
// that no more than a block of scores exists at a time. Both products of a
// block go through the micro-kernel; tiles above the diagonal are left out.
const (
	blockQueries = 16 * tileRows // a multiple of tileRows
	blockKeys    = 8 * tileCols  // a multiple of tileCols
)

// span is a sequence: rows start to start+len, and its first panel of keys
// (tileCols rows each).
type span struct{ start, len, keyPanel int }

// block is a range of rows of a sequence: queries of a task, or a panel.
type block struct {
	span     int32
	first, n int32 // within the sequence
}

// sequences is how the rows fall into sequences, panels and blocks. Panels
// start anew with each sequence, so a sequence's results do not depend on
// what lies beside it.
type sequences struct {
	spans   []span
	keys    []block // panels of tileCols
	queries []block // blocks of blockQueries, those with most keys first
}

func (s *sequences) set(bounds []int32) {
	s.spans, s.keys, s.queries = s.spans[:0], s.keys[:0], s.queries[:0]
	for i := 1; i < len(bounds); i++ {
		n := int(bounds[i] - bounds[i-1])
		if n == 0 {
			continue
		}
		at := int32(len(s.spans))
		s.spans = append(s.spans, span{int(bounds[i-1]), n, len(s.keys)})
		for k := 0; k < n; k += tileCols {
			s.keys = append(s.keys, block{at, int32(k), int32(min(tileCols, n-k))})
		}
	}
	for i, sp := range s.spans {
		for q := (sp.len - 1) / blockQueries * blockQueries; q >= 0; q -= blockQueries {
			s.queries = append(s.queries, block{int32(i), int32(q), int32(min(blockQueries, sp.len-q))})
		}
	}
}

// mostPanels bounds the panels of keys that sequences take.
func mostPanels(bounds *kernels.Tensor, rows int) int {
	return (rows + (tileCols-1)*max(0, bounds.Rows-1)) / tileCols
}

// heads is the layout of attention's operands.
type heads struct {
	dim, padded   int // of a head; padded to whole panels
	query, shared int // query heads, key and value heads
	shape         kernels.AttentionShape
	seq           sequences
}

func (h *heads) set(q, k, bounds *kernels.Tensor, s kernels.AttentionShape) {
	h.dim, h.shape = s.HeadDim, s
	h.padded = ceil(h.dim, tileCols) * tileCols
	h.query, h.shared = q.Cols/h.dim, k.Cols/h.dim
	h.seq.set(indices(bounds))
}

// reach returns the first key that query q of a sequence looks at.
func (h *heads) reach(q int) int {
	if h.shape.Window > 0 {
		return max(0, q-h.shape.Window+1)
	}
	return 0
}

// across packs a panel of keys, as the right factor of scores: [head][panel][dim][16].
func (h *heads) across(w *worker, v *vectors, dst []float32, x matrix, head, panel int) {
	p := h.seq.keys[panel]
	row := h.seq.spans[p.span].start + int(p.first)
	packPanel(w, v, dst[(head*len(h.seq.keys)+panel)*h.dim*tileCols:], factor{weights: bytesOf(x), scale: 1}, row, int(p.n), head*h.dim, h.dim)
}

// apart copies a row of one head, [head][row][padded]: where they lie, rows may be a
// power of two apart, and all in the same few places of a cache.
func (h *heads) apart(dst []float32, x matrix, head, row int) {
	d := h.rowsOf(dst, x.rows, head, row)[:h.padded]
	clear(d[copy(d, x.row(row)[head*h.dim:][:h.dim]):])
}

// panelApart is apart for the rows of a panel of keys.
func (h *heads) panelApart(dst []float32, x matrix, head, panel int) {
	p := h.seq.keys[panel]
	for i := range int(p.n) {
		h.apart(dst, x, head, h.seq.spans[p.span].start+int(p.first)+i)
	}
}

// rowsOf returns a head's rows from one on, of n that were copied apart.
func (h *heads) rowsOf(x []float32, n, head, row int) []float32 { return x[(head*n+row)*h.padded:] }

// scores computes a block of S = scale·Q·Kᵀ where it is not above the
// diagonal. q holds the queries from q0 on, up to the end of the last tile, k the
// panels of the keys from k0 on.
func (h *heads) scores(v *vectors, s []float32, ld int, scale float32, q, k []float32, q0, nq, k0, nk int) {
	for j := 0; j < nk; {
		panels, at := 1, &k[j*h.dim]
		i := max(0, k0+j-q0) / tileRows * tileRows
		both := nq // from where on the next panel of keys counts too
		if v.tileWide != nil && j+tileCols < nk {
			panels, both = 2, min(nq, max(0, k0+j+tileCols-q0)/tileRows*tileRows)
		}
		for ; i < both; i += tileRows {
			v.tile(h.dim, &q[i*h.padded], h.padded, 1, at, tileCols, &s[i*ld+j], ld, scale, false)
		}
		for ; i < nq; i += tileRows {
			v.tileWide(h.dim, &q[i*h.padded], h.padded, 1, at, tileCols, h.dim*tileCols, &s[i*ld+j], ld, scale, false)
		}
		j += panels * tileCols
	}
}

// sums adds alpha·A·B to a tile's rows of C [tileRows, padded], where B has k
// rows of one head.
func (h *heads) sums(v *vectors, k int, a *float32, arow, astep int, b, c []float32, alpha float32) {
	at := 0
	for ; v.tileWide != nil && at+2*tileCols <= h.padded; at += 2 * tileCols {
		v.tileWide(k, a, arow, astep, &b[at], h.padded, tileCols, &c[at], h.padded, alpha, true)
	}
	for ; at < h.padded; at += tileCols {
		v.tile(k, a, arow, astep, &b[at], h.padded, &c[at], h.padded, alpha, true)
	}
}

// attention is the forward pass; a task is a block of queries of one head.
type attention struct {
	heads
	isa            *vectors
	q, k, v        matrix
	out, lse       matrix
	keys, values   []float32 // packed across, copied apart
	packing        bool
	scale, softCap float32
}

func attentionNeed(o *kernels.Attention) need {
	if o.Q.Len() == 0 {
		return need{}
	}
	padded := ceil(o.HeadDim, tileCols) * tileCols
	shared := o.K.Cols / o.HeadDim
	return need{
		shared:  aligned(shared*mostPanels(o.Bounds, o.K.Rows)*tileCols*o.HeadDim) + aligned(shared*o.K.Rows*padded),
		private: 2*blockQueries*padded + blockQueries*blockKeys + 2*blockQueries,
	}
}

func (b *Backend) attend(o *kernels.Attention, mem []float32) {
	if o.Q.Len() == 0 {
		return
	}
	a := &b.attention
	a.set(o.Q, o.K, o.Bounds, o.AttentionShape)
	a.isa, a.q, a.k, a.v, a.out, a.lse = b.v, view(o.Q), view(o.K), view(o.V), view(o.Out), view(o.LSE)
	a.scale, a.softCap = float32(o.Scale), float32(o.SoftCap)
	a.keys, a.values = take(&mem, a.shared*len(a.seq.keys)*tileCols*a.dim), take(&mem, a.shared*a.v.rows*a.padded)
	small := o.Q.Rows*o.Q.Rows*o.Q.Cols < smallWork
	a.packing = true
	b.either(small, a, a.shared*len(a.seq.keys))
	a.packing = false
	b.either(small, a, a.query*len(a.seq.queries))
}

func (b *Backend) either(small bool, j job, tasks int) {
	if small {
		b.pool.inline(j, tasks)
		return
	}
	b.pool.run(j, tasks)
}

func (a *attention) do(w *worker, task int) {
	if a.packing {
		head, panel := task%a.shared, task/a.shared // the heads of a row lie side by side
		a.across(w, a.isa, a.keys, a.k, head, panel)
		a.panelApart(a.values, a.v, head, panel)
		return
	}
	a.attend(w, a.seq.queries[task/a.query], task%a.query)
}

// softmax is the state of a block of queries.
type softmax struct {
	s, out   []float32 // scores [blockQueries, blockKeys], sums [blockQueries, padded]
	max, sum []float32
}

func (a *attention) attend(w *worker, b block, head int) {
	sp := &a.seq.spans[b.span]
	q0, nq := int(b.first), int(b.n)
	mem := w.private
	q := take(&mem, blockQueries*a.padded)
	for i := range nq {
		copy(q[i*a.padded:], a.q.row(sp.start + q0 + i)[head*a.dim:][:a.dim])
	}
	x := softmax{take(&mem, blockQueries*blockKeys), take(&mem, blockQueries*a.padded), take(&mem, blockQueries), take(&mem, blockQueries)}
	clear(x.out)
	clear(x.sum)
	for i := range x.max {
		x.max[i] = float32(math.Inf(-1))
	}
	kv := head / (a.query / a.shared)
	keys := a.keys[(kv*len(a.seq.keys)+sp.keyPanel)*tileCols*a.dim:]
	values := a.rowsOf(a.values, a.v.rows, kv, sp.start)
	for k0 := a.reach(q0) / tileCols * tileCols; k0 < q0+nq; k0 += blockKeys {
		nk := min(blockKeys, q0+nq-k0)
		a.scores(a.isa, x.s, blockKeys, a.scale, q, keys[k0*a.dim:], q0, nq, k0, nk)
		for i := range nq {
			a.soften(&x, i, q0+i, k0, nk)
		}
		a.mix(&x, values[k0*a.padded:], q0, nq, k0, nk)
	}
	a.finish(&x, sp.start+q0, nq, head)
}

// soften turns a row of scores into e^(score - max), 0 where the query does
// not look, and corrects what was summed under a smaller maximum.
func (a *attention) soften(x *softmax, i, q, k0, nk int) {
	row := x.s[i*blockKeys:][:ceil(nk, tileCols)*tileCols]
	lo, hi := max(0, a.reach(q)-k0), min(nk, q-k0+1)
	if lo >= hi {
		clear(row)
		return
	}
	clear(row[:lo])
	clear(row[hi:])
	row = row[lo:hi]
	if a.softCap > 0 {
		a.isa.cap(row, a.softCap)
	}
	if m := a.isa.maxOf(row); m > x.max[i] {
		if x.sum[i] != 0 {
			shrink := exp32(x.max[i] - m)
			a.isa.scale(x.out[i*a.padded:][:a.padded], shrink)
			x.sum[i] *= shrink
		}
		x.max[i] = m
	}
	x.sum[i] += a.isa.exp(row, row, 1, x.max[i])
}

// mix adds the values, each tile of rows only up to its last query's key.
func (a *attention) mix(x *softmax, values []float32, q0, nq, k0, nk int) {
	for i := 0; i < nq; i += tileRows {
		if k := min(nk, q0+min(i+tileRows, nq)-k0); k > 0 {
			a.sums(a.isa, k, &x.s[i*blockKeys], blockKeys, 1, values, x.out[i*a.padded:], 1)
		}
	}
}

func (a *attention) finish(x *softmax, row, nq, head int) {
	for i := range nq {
		out := a.out.row(row + i)[head*a.dim:][:a.dim]
		copy(out, x.out[i*a.padded:])
		a.isa.scale(out, 1/x.sum[i])
		a.lse.row(row + i)[head] = x.max[i] + log32(x.sum[i])
	}
}
