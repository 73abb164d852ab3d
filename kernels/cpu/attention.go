package cpu

import (
	"math"

	"graft/kernels"
)

// Attention goes block by block over queries and keys with the running
// maximum and sum of Milakov and Gimelshein (2018) and Dao et al. (2022), so
// that no more than a block of scores exists at a time. Both products of a
// block go through the micro-kernel; tiles above the diagonal are left out. Of long
// sequences they are in pieces, where there are such products (piecesattention.go).
const (
	blockQueries = 16 * tileRows // a multiple of tileRows
	blockKeys    = 16 * tileCols // a multiple of tileCols
	scoreLine    = blockKeys + rowSpare
)

// span is a sequence: rows start to start+len, and its first panel of keys
// (tileCols rows each), or in pieces its first group.
type span struct {
	start, len, keyPanel int
	inPieces             bool
}

// block is a range of rows of a sequence: queries of a task, or a panel.
type block struct {
	span     int32
	first, n int32 // within the sequence
}

// sequences is how the rows fall into sequences, panels and blocks. Panels
// start anew with each sequence, so what is computed for one does not depend on what lies
// beside it, but for the parts that gradients are summed in (attentiongrad.go).
type sequences struct {
	spans   []span
	keys    []block // panels of tileCols
	groups  []block // of groupRows, of sequences in pieces
	queries []block // blocks of blockQueries, those with most keys first
}

func (s *sequences) set(bounds []int32, inPieces func(n int) bool) {
	s.spans, s.keys, s.groups, s.queries = s.spans[:0], s.keys[:0], s.groups[:0], s.queries[:0]
	for i := 1; i < len(bounds); i++ {
		n := int(bounds[i] - bounds[i-1])
		if n == 0 {
			continue
		}
		at := int32(len(s.spans))
		if inPieces(n) {
			s.spans = append(s.spans, span{int(bounds[i-1]), n, len(s.groups), true})
			for k := 0; k < n; k += groupRows {
				s.groups = append(s.groups, block{at, int32(k), int32(min(groupRows, n-k))})
			}
			continue
		}
		s.spans = append(s.spans, span{int(bounds[i-1]), n, len(s.keys), false})
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
	dim, padded   int  // of a head; padded to whole panels
	query, shared int  // query heads, key and value heads
	apart         bool // rows are copied apart wherever they lie
	shape         kernels.AttentionShape
	seq           sequences
}

func headsOf(q, k *kernels.Tensor, s kernels.AttentionShape) heads {
	return heads{dim: s.HeadDim, padded: ceil(s.HeadDim, tileCols) * tileCols, query: q.Cols / s.HeadDim, shared: k.Cols / s.HeadDim, shape: s}
}

// set keeps the lists of sequences, which are used again.
func (h *heads) set(v *vectors, q, k, bounds *kernels.Tensor, s kernels.AttentionShape) {
	seq := h.seq
	*h = headsOf(q, k, s)
	h.seq = seq
	h.seq.set(indices(bounds), func(n int) bool { return v.pieces.attends(n, h.dim) })
}

// packed bounds what the keys of so many rows take when they are packed across.
func (h *heads) packed(bounds *kernels.Tensor, rows int) int {
	return h.shared * mostPanels(bounds, rows) * tileCols * h.dim
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

// look finds the keys, of nk from k0 on, that the queries from q0 on look at. It clears scores
// before these, and caps the others where they are capped.
func (h *heads) look(v *vectors, s []float32, ld int, extents []extent, q0, k0, nk int, softCap float32) {
	for i := range extents {
		lo := min(nk, max(0, h.reach(q0+i)-k0))
		hi := max(lo, min(nk, q0+i-k0+1))
		extents[i] = extent{int32(lo), int32(hi)}
		row := s[i*ld:]
		if lo > 0 {
			clear(row[:lo])
		}
		if softCap > 0 {
			v.cap(row[lo:hi], softCap)
		}
	}
}

// headRows are a matrix whose products read the rows of one head: in place, or where
// that would be slow, copied apart.
type headRows struct {
	matrix
	copies []float32 // [head][row][padded], or nil
}

// copied says whether rows are copied apart: where they are no whole panels, or where they
// are a multiple of a power of two apart, and so all in the same few places of a cache.
func (h *heads) copied(stride int) bool { return h.apart || h.dim%tileCols > 0 || stride%256 == 0 }

// copies returns how many elements the copies of a matrix take.
func (h *heads) copies(x *kernels.Tensor) int {
	if !h.copied(x.Stride) {
		return 0
	}
	return x.Cols / h.dim * x.Rows * h.padded
}

// place returns a matrix with memory for its copies.
func (h *heads) place(x *kernels.Tensor, mem *[]float32) headRows {
	r := headRows{matrix: view(x)}
	if n := h.copies(x); n > 0 {
		r.copies = take(mem, n)
	}
	return r
}

// copy copies a row of one head apart, if rows are.
func (h *heads) copy(x *headRows, head, row int) {
	if x.copies != nil {
		d := x.copies[(head*x.rows+row)*h.padded:][:h.padded]
		clear(d[copy(d, x.row(row)[head*h.dim:][:h.dim]):])
	}
}

// copyPanel is copy for the rows of a panel of keys.
func (h *heads) copyPanel(x *headRows, head, panel int) {
	p := h.seq.keys[panel]
	for i := range int(p.n) {
		h.copy(x, head, h.seq.spans[p.span].start+int(p.first)+i)
	}
}

// rowsOf returns n rows of a head.
func (h *heads) rowsOf(x *headRows, head, row, n int) matrix {
	if x.copies == nil {
		return x.part(row, n, head*h.dim, h.dim)
	}
	return matrix{x.copies[(head*x.rows+row)*h.padded:], n, h.dim, h.padded}
}

// scores computes a block of S = scale·Q·Kᵀ where it is not above the
// diagonal. q holds the queries from q0 on, k the panels of the keys from k0 on; last is
// room for a tile of queries.
func (h *heads) scores(v *vectors, s []float32, ld int, scale float32, q matrix, k []float32, q0, k0, nk int, last []float32) {
	whole := q.rows / tileRows * tileRows
	for i := whole; i < q.rows; i++ { // a tile reads on, where there may be nothing
		copy(last[(i-whole)*h.dim:], q.row(i))
	}
	at := func(i int) (*float32, int) {
		if i == whole {
			return &last[0], h.dim
		}
		return &q.data[i*q.stride], q.stride
	}
	for j := 0; j < nk; {
		panels, keys := 1, &k[j*h.dim]
		i := max(0, k0+j-q0) / tileRows * tileRows
		both := q.rows // from where on the next panel of keys counts too
		if v.tileWide != nil && j+tileCols < nk {
			panels, both = 2, min(q.rows, max(0, k0+j+tileCols-q0)/tileRows*tileRows)
		}
		for ; v.tileTall != nil && i+2*tileRows <= min(both, whole); i += 2 * tileRows {
			v.tileTall(h.dim, &q.data[i*q.stride], q.stride, 1, tileRows*q.stride, keys, tileCols, &s[i*ld+j], ld, scale, false)
		}
		for ; i < both; i += tileRows {
			a, stride := at(i)
			v.tile(h.dim, a, stride, 1, keys, tileCols, &s[i*ld+j], ld, scale, false)
		}
		for ; i < q.rows; i += tileRows {
			a, stride := at(i)
			v.tileWide(h.dim, a, stride, 1, keys, tileCols, h.dim*tileCols, &s[i*ld+j], ld, scale, false)
		}
		j += panels * tileCols
	}
}

// sums adds alpha·A·B to a tile's rows of C [tileRows, padded], where B are rows of one
// head.
func (h *heads) sums(v *vectors, a *float32, arow, astep int, b matrix, c []float32, alpha float32) {
	at := 0
	for ; v.tileWide != nil && at+2*tileCols <= h.padded; at += 2 * tileCols {
		v.tileWide(b.rows, a, arow, astep, &b.data[at], b.stride, tileCols, &c[at], h.padded, alpha, true)
	}
	for ; at < h.padded; at += tileCols {
		v.tile(b.rows, a, arow, astep, &b.data[at], b.stride, &c[at], h.padded, alpha, true)
	}
}

// attention is the forward pass; a task is a block of queries of one head.
type attention struct {
	heads
	isa            *vectors
	q, k           matrix
	v              headRows
	out, lse       matrix
	keys           []float32 // packed across
	phase          int
	scale, softCap float32

	keyPieces, valuePieces headPieces
}

// The phases of the forward pass.
const (
	attentionPanels = iota // packs keys
	attentionGroups        // packs keys and values in pieces
	attentionBlocks
)

func attentionNeed(v *vectors, o *kernels.Attention) need {
	if o.Q.Len() == 0 {
		return need{}
	}
	h := headsOf(o.Q, o.K, o.AttentionShape)
	n := need{
		shared:  aligned(h.packed(o.Bounds, o.K.Rows)) + aligned(h.copies(o.V)) + 2*h.piecesOf(v, h.shared, o.K.Rows, o.Bounds.Rows),
		private: 2*blockQueries*h.padded + blockQueries*scoreLine + 4*blockQueries + aligned(tileRows*h.dim),
	}
	if v.pieces != nil {
		n.private += sumWords + (queryGroups*h.headBlocks()+blockKeys/blockDepth)*leftBlock
	}
	return n
}

func (b *Backend) attend(o *kernels.Attention, mem []float32) {
	if o.Q.Len() == 0 {
		return
	}
	a := &b.attention
	a.set(b.v, o.Q, o.K, o.Bounds, o.AttentionShape)
	a.isa, a.q, a.k, a.out, a.lse = b.v, view(o.Q), view(o.K), view(o.Out), view(o.LSE)
	a.scale, a.softCap = float32(o.Scale), float32(o.SoftCap)
	a.keys = take(&mem, a.shared*len(a.seq.keys)*tileCols*a.dim)
	a.v = a.place(o.V, &mem)
	a.keyPieces, a.valuePieces = a.placePieces(a.shared, &mem), a.placePieces(a.shared, &mem)
	small := o.Q.Rows*o.Q.Rows*o.Q.Cols < smallWork
	for phase, tasks := range [...]int{
		attentionPanels: a.shared * len(a.seq.keys),
		attentionGroups: a.shared * len(a.seq.groups),
		attentionBlocks: a.query * len(a.seq.queries),
	} {
		a.phase = phase
		b.pool.either(small, a, tasks)
	}
}

func (a *attention) do(w *worker, task int) {
	switch a.phase {
	case attentionPanels:
		head, panel := task%a.shared, task/a.shared // the heads of a row lie side by side
		a.across(w, a.isa, a.keys, a.k, head, panel)
		a.copyPanel(&a.v, head, panel)
	case attentionGroups:
		head, group := task%a.shared, task/a.shared
		a.packKeys(w, a.isa, &a.keyPieces, a.k, head, group, a.scale)
		a.packSummed(w, a.isa, &a.valuePieces, a.v.matrix, head, group, 1)
	case attentionBlocks:
		a.attend(w, a.seq.queries[task/a.query], task%a.query)
	}
}

// softmax is the state of a block of queries.
type softmax struct {
	s, out   []float32 // scores [blockQueries, scoreLine], sums [blockQueries, padded]
	max, sum []float32
	next     []float32 // max with a block of keys more
	part     []float32 // Σ e^(score - next) of that block; in the end 1/sum
}

func (a *attention) attend(w *worker, b block, head int) {
	sp := &a.seq.spans[b.span]
	q0, nq := int(b.first), int(b.n)
	mem := w.private
	q := a.q.part(sp.start+q0, nq, head*a.dim, a.dim)
	x := softmax{s: take(&mem, blockQueries*scoreLine), out: take(&mem, blockQueries*a.padded),
		max: take(&mem, blockQueries), sum: take(&mem, blockQueries), next: take(&mem, blockQueries), part: take(&mem, blockQueries)}
	clear(x.out)
	clear(x.sum)
	for i := range x.max {
		x.max[i] = float32(math.Inf(-1))
	}
	kv := head / (a.query / a.shared)
	if sp.inPieces {
		a.attendInPieces(w, &x, sp, q, q0, kv, mem)
	} else {
		a.attendInTiles(w, &x, sp, q, q0, kv, mem)
	}
	a.finish(&x, sp.start+q0, nq, head)
}

func (a *attention) attendInTiles(w *worker, x *softmax, sp *span, q matrix, q0, kv int, mem []float32) {
	nq := q.rows
	if a.copied(q.stride) {
		apart := matrix{take(&mem, blockQueries*a.padded), nq, a.dim, a.padded}
		for i := range nq {
			copy(apart.row(i), q.row(i))
		}
		q = apart
	}
	last := take(&mem, aligned(tileRows*a.dim))
	keys := a.keys[(kv*len(a.seq.keys)+sp.keyPanel)*tileCols*a.dim:]
	for k0 := a.reach(q0) / tileCols * tileCols; k0 < q0+nq; k0 += blockKeys {
		nk := min(blockKeys, q0+nq-k0)
		a.scores(a.isa, x.s, scoreLine, a.scale, q, keys[k0*a.dim:], q0, k0, nk, last)
		a.soften(x, w.extents[:nq], q0, k0, nk)
		a.mix(x, a.rowsOf(&a.v, kv, sp.start+k0, nk), q0, nq, k0)
	}
}

func (a *attention) attendInPieces(w *worker, x *softmax, sp *span, q matrix, q0, kv int, mem []float32) {
	nq, blocks := q.rows, a.headBlocks()
	sums, queries := take(&mem, sumWords), take(&mem, queryGroups*blocks*leftBlock)
	splitRows(a.isa, queries, q, blocks)
	for k0 := a.reach(q0) / groupRows * groupRows; k0 < q0+nq; k0 += blockKeys {
		nk, group := min(blockKeys, q0+nq-k0), sp.keyPanel+k0/groupRows
		a.scoresInPieces(a.isa, x.s, scoreLine, queries, a.keyPieces.across(kv, group), sums, q0, nq, k0, nk)
		a.soften(x, w.extents[:nq], q0, k0, nk)
		a.sumKeys(a.isa, matrix{x.out, nq, a.dim, a.padded}, x.s, scoreLine, w.extents[:nq], &a.valuePieces, kv, group, mem, sums, q0, k0, nk)
	}
}

// soften turns scores into e^(score - max), 0 where a query does not look, and
// corrects what was summed under a smaller maximum.
func (a *attention) soften(x *softmax, extents []extent, q0, k0, nk int) {
	a.look(a.isa, x.s, scoreLine, extents, q0, k0, nk, a.softCap)
	a.isa.softmaxRows(len(extents), &x.s[0], scoreLine, &extents[0], &x.max[0], &x.next[0], &x.part[0])
	for i := range extents {
		if m := x.next[i]; m > x.max[i] {
			if x.sum[i] != 0 {
				shrink := exp32(x.max[i] - m)
				a.isa.scale(x.out[i*a.padded:][:a.padded], shrink)
				x.sum[i] *= shrink
			}
			x.max[i] = m
		}
		x.sum[i] += x.part[i]
	}
}

// mix adds the values, each tile of rows only up to its last query's key.
func (a *attention) mix(x *softmax, values matrix, q0, nq, k0 int) {
	nk := values.rows
	for i := 0; i < nq; i += tileRows {
		values.rows = min(nk, q0+min(i+tileRows, nq)-k0)
		if values.rows > 0 {
			a.sums(a.isa, &x.s[i*scoreLine], scoreLine, 1, values, x.out[i*a.padded:], 1)
		}
	}
}

func (a *attention) finish(x *softmax, row, nq, head int) {
	for i := range nq {
		a.lse.row(row + i)[head] = x.max[i] + log32(x.sum[i])
		x.part[i] = 1 / x.sum[i]
	}
	a.isa.scaleRows(nq, &a.out.row(row)[head*a.dim], a.out.stride, &x.out[0], a.padded, a.dim, &x.part[0])
}
