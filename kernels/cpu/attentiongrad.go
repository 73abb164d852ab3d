package cpu

import "graft/kernels"

// The backward pass computes the scores of a block again. A task is a chunk
// of the keys of one sequence for one key and value head: it owns their
// gradients, summed over the query heads that share them and over all later
// queries. Gradients of the queries are summed over chunks; each chunk but
// the first has a buffer of its own for them, and they are added in order at
// the end. A sequence is cut no further than gives wantedTasks in all, and into
// at most mostChunks, so memory stays linear in T.
const (
	wantedTasks = 12
	mostChunks  = 4
	gradKeys    = 6 * tileCols                   // keys per block: whole panels of either kind
	gradLine    = gradKeys + rowSpare + tileCols // no power of two, at which columns get into each other's way in the cache
)

type attentionGrad struct {
	heads
	isa                 *vectors
	q, k, dout          headRows
	v, out, lse         matrix
	dq, dk, dv          matrix
	keys, values        []float32 // packed across
	dot                 []float32 // [T, heads]: Σ dout·out
	partial             []float32 // [chunk-1][T, heads·dim]
	phase               int
	scale, softCap, ic2 float32
	tasks               []chunkOf

	// In pieces: what scores are products of, and what is summed.
	scoreKeys, scoreValues, sumsKeys headPieces
}

type chunkOf struct{ span, chunk int32 }

// The phases of the backward pass.
const (
	packKeyPanels = iota
	packKeyGroups
	prepareRows
	gradients
	addChunks
)

// parts returns how many chunks n keys of a sequence are cut into, of rows in
// all sequences and so many key heads.
func parts(n, rows, shared int) int {
	return min(mostChunks, ceil(n, max(gradKeys, rows*shared/wantedTasks)))
}

func (a *attentionGrad) parts(n int) int { return parts(n, a.q.rows, a.shared) }

// chunkStart returns the first key of a chunk. Chunks are whole blocks, and about as many pairs of
// a key and a query each.
func (a *attentionGrad) chunkStart(n, chunk int) int {
	all, parts := pairsBefore(n, n, a.shape.Window), a.parts(n)
	for k := 0; k < n; k += gradKeys {
		if pairsBefore(min(n, k+gradKeys/2), n, a.shape.Window)*parts > chunk*all {
			return k
		}
	}
	return n
}

// pairsBefore counts the queries of a sequence of n that look at each of its first k keys.
func pairsBefore(k, n, window int) int {
	if window == 0 || window > n {
		window = n
	}
	whole := min(k, n-window) // keys that a whole window looks at
	rest := k - whole
	return whole*window + rest*window - rest*(rest-1)/2
}

// longRows says whether sequences are so long that rows are read often enough, a block at a time,
// to be copied apart first: then all of a block follow each other. Pieces do anyway.
func longRows(v *vectors, o *kernels.AttentionGrad) bool {
	return v.pieces == nil && o.Q.Rows >= 1024*(o.Bounds.Rows-1)
}

func attentionGradNeed(v *vectors, o *kernels.AttentionGrad) need {
	if o.Q.Len() == 0 {
		return need{}
	}
	h := headsOf(o.Q, o.K, o.AttentionShape)
	h.apart = longRows(v, o)
	n := need{
		shared: 2*aligned(h.packed(o.Bounds, o.K.Rows)) + aligned(h.copies(o.K)) + aligned(h.copies(o.Q)) + aligned(h.copies(o.DOut)) +
			aligned(o.Q.Rows*h.query) + aligned((parts(o.Q.Rows, o.Q.Rows, h.shared)-1)*o.Q.Len()),
		private: 2*blockQueries*gradLine + 2*gradKeys*h.padded + aligned(tileRows*h.dim),
	}
	if v.pieces != nil {
		n.shared += 3 * h.piecesOf(v, h.shared, o.K.Rows, o.Bounds.Rows)
		n.private += sumWords + pieceSpare(h.headBlocks()) + 2*(pieceKeys-gradKeys)*h.padded + (gradKeys/blockDepth+4*queryGroups*h.headBlocks())*leftBlock
	}
	return n
}

func (b *Backend) attendGrad(o *kernels.AttentionGrad, mem []float32) {
	if o.Q.Len() == 0 {
		return
	}
	a := &b.backward
	a.set(b.v, o.Q, o.K, o.Bounds, o.AttentionShape)
	a.apart = longRows(b.v, o)
	a.isa, a.v, a.out, a.lse = b.v, view(o.V), view(o.Out), view(o.LSE)
	a.dq, a.dk, a.dv = view(o.DQ), view(o.DK), view(o.DV)
	a.scale, a.softCap, a.ic2 = float32(o.Scale), float32(o.SoftCap), 0
	if o.SoftCap > 0 {
		a.ic2 = float32(1 / (o.SoftCap * o.SoftCap))
	}
	a.layout(o, mem)
	a.cut()
	small := o.Q.Rows*o.Q.Rows*o.Q.Cols < smallWork
	for phase, tasks := range [...]int{
		packKeyPanels: a.shared * len(a.seq.keys),
		packKeyGroups: a.shared * len(a.seq.groups),
		prepareRows:   ceil(a.q.rows, rowsAtOnce),
		gradients:     a.shared * len(a.tasks),
		addChunks:     len(a.seq.queries),
	} {
		a.phase = phase
		b.pool.either(small, a, tasks)
	}
}

func (a *attentionGrad) layout(o *kernels.AttentionGrad, mem []float32) {
	across := a.shared * len(a.seq.keys) * tileCols * a.dim
	a.keys, a.values = take(&mem, across), take(&mem, across)
	a.k, a.q, a.dout = a.place(o.K, &mem), a.place(o.Q, &mem), a.place(o.DOut, &mem)
	a.dot = take(&mem, a.q.rows*a.query)
	for _, p := range []*headPieces{&a.scoreKeys, &a.scoreValues, &a.sumsKeys} {
		*p = a.placePieces(a.shared, &mem)
	}
	a.partial = mem
}

// cut lists the chunks, from both ends inwards: what is too much in one is missing in others, and
// threads begin with equal parts of the list.
func (a *attentionGrad) cut() {
	a.tasks = a.tasks[:0]
	for n := range mostChunks {
		chunk := n / 2
		if n%2 > 0 {
			chunk = mostChunks - 1 - chunk
		}
		for i, sp := range a.seq.spans {
			if chunk < a.parts(sp.len) {
				a.tasks = append(a.tasks, chunkOf{int32(i), int32(chunk)})
			}
		}
	}
}

func (a *attentionGrad) do(w *worker, task int) {
	switch a.phase {
	case packKeyPanels:
		head, panel := task%a.shared, task/a.shared
		a.across(w, a.isa, a.keys, a.k.matrix, head, panel)
		a.across(w, a.isa, a.values, a.v, head, panel)
		a.copyPanel(&a.k, head, panel)
	case packKeyGroups:
		head, group := task%a.shared, task/a.shared
		a.packKeys(w, a.isa, &a.scoreKeys, a.k.matrix, head, group, a.scale)
		a.packKeys(w, a.isa, &a.scoreValues, a.v, head, group, 1)
		a.packSummed(w, a.isa, &a.sumsKeys, a.k.matrix, head, group, a.scale)
	case prepareRows:
		for t := task * rowsAtOnce; t < min((task+1)*rowsAtOnce, a.q.rows); t++ {
			a.prepare(t)
		}
	case gradients:
		t := a.tasks[task/a.shared]
		a.chunk(w, &a.seq.spans[t.span], int(t.chunk), task%a.shared)
	case addChunks:
		a.reduce(a.seq.queries[task])
	}
}

// rowsAtOnce is how many rows a task prepares.
const rowsAtOnce = 8

// prepare computes Σ dout·out of each head of a row.
func (a *attentionGrad) prepare(t int) {
	a.isa.dotRows(a.query, &a.out.row(t)[0], a.dim, &a.dout.row(t)[0], a.dim, a.dim, &a.dot[t*a.query])
	for head := range a.query {
		a.copy(&a.q, head, t)
		a.copy(&a.dout, head, t)
	}
}

// chunk computes the gradients of a chunk of keys and values of one head.
func (a *attentionGrad) chunk(w *worker, sp *span, chunk, kv int) {
	group := a.query / a.shared
	first, last := a.chunkStart(sp.len, chunk), min(sp.len, a.chunkStart(sp.len, chunk+1))
	dq := a.queryGrad(chunk)
	for t := sp.start + first; t < sp.start+sp.len; t++ {
		clear(dq.row(t)[kv*group*a.dim:][:group*a.dim])
	}
	mem := w.private
	g := gradBlock{s: take(&mem, blockQueries*gradLine), ds: take(&mem, blockQueries*gradLine)}
	if sp.inPieces {
		a.chunkInPieces(w, &g, sp, first, last, kv, dq, mem)
		return
	}
	g.dk, g.dv, g.last = take(&mem, gradKeys*a.padded), take(&mem, gradKeys*a.padded), take(&mem, aligned(tileRows*a.dim))
	for k0 := first; k0 < last; k0 += gradKeys {
		g.k0, g.nk = k0, min(gradKeys, sp.len-k0)
		clear(g.dk)
		clear(g.dv)
		end := sp.len
		if a.shape.Window > 0 {
			end = min(end, k0+g.nk-1+a.shape.Window)
		}
		for head := kv * group; head < (kv+1)*group; head++ {
			for q0 := k0 / blockQueries * blockQueries; q0 < end; q0 += blockQueries {
				g.q0, g.nq = q0, min(blockQueries, sp.len-q0)
				a.block(w, &g, sp, kv, head, dq)
			}
		}
		for i := range g.nk {
			copy(a.dk.row(sp.start + k0 + i)[kv*a.dim:][:a.dim], g.dk[i*a.padded:])
			copy(a.dv.row(sp.start + k0 + i)[kv*a.dim:][:a.dim], g.dv[i*a.padded:])
		}
	}
}

// queryGrad returns where a chunk sums the gradients of queries.
func (a *attentionGrad) queryGrad(chunk int) matrix {
	if chunk == 0 {
		return a.dq
	}
	n := a.dq.rows * a.dq.cols
	return matrix{a.partial[(chunk-1)*n:][:n], a.dq.rows, a.dq.cols, a.dq.cols}
}

// gradBlock is a block of nq queries by nk keys: probabilities s, gradients
// ds of the scores, and the sums of its keys.
type gradBlock struct {
	s, ds          []float32 // [blockQueries, gradLine]
	dk, dv         []float32 // [gradKeys, padded]
	last           []float32 // [tileRows, dim]
	q0, nq, k0, nk int
}

func (a *attentionGrad) block(w *worker, g *gradBlock, sp *span, kv, head int, dq matrix) {
	at := ((kv*len(a.seq.keys)+sp.keyPanel)*tileCols + g.k0) * a.dim
	queries := a.rowsOf(&a.q, head, sp.start+g.q0, g.nq)
	douts := a.rowsOf(&a.dout, head, sp.start+g.q0, g.nq)
	a.scores(a.isa, g.s, gradLine, a.scale, queries, a.keys[at:], g.q0, g.k0, g.nk, g.last)
	a.scores(a.isa, g.ds, gradLine, 1, douts, a.values[at:], g.q0, g.k0, g.nk, g.last)
	a.score(g, w.extents[:g.nq], sp.start+g.q0, head)
	// dq += scale·ds·K
	keys := a.rowsOf(&a.k, kv, sp.start+g.k0, g.nk)
	k := right{keys.data, tileCols, keys.stride}
	for i := 0; i < g.nq; i += tileRows {
		m := min(tileRows, g.nq-i)
		if depth := min(g.nk, g.q0+i+m-g.k0); depth > 0 {
			s := left{g.ds[i*gradLine:], 0, gradLine, 1}
			w.tiles(a.isa, m, a.dim, depth, s, k, dq.data[(sp.start+g.q0+i)*dq.stride+head*a.dim:], dq.stride, a.scale, true)
		}
	}
	// dv += sᵀ·dout, dk += scale·dsᵀ·Q
	a.sumQueries(g.dv, g.s, douts, 1, g)
	a.sumQueries(g.dk, g.ds, queries, a.scale, g)
}

// pieceKeys is how many keys go together in pieces: for each block of queries, which is packed for
// them, all of their blocks.
const pieceKeys = 4 * gradKeys

// chunkInPieces is chunk, where a block of queries goes by several blocks of keys.
func (a *attentionGrad) chunkInPieces(w *worker, g *gradBlock, sp *span, first, last, kv int, dq matrix, mem []float32) {
	group, blocks := a.query/a.shared, a.headBlocks()
	dk, dv := take(&mem, pieceKeys*a.padded), take(&mem, pieceKeys*a.padded)
	p := gradPieces{queries: a.placeQueries(&mem), douts: a.placeQueries(&mem), sums: take(&mem, sumWords),
		scores: take(&mem, gradKeys/blockDepth*leftBlock)}
	for k := first; k < last; k += pieceKeys {
		n := min(pieceKeys, last-k)
		clear(dk[:n*a.padded])
		clear(dv[:n*a.padded])
		end := sp.len
		if a.shape.Window > 0 {
			end = min(end, k+n-1+a.shape.Window)
		}
		for head := kv * group; head < (kv+1)*group; head++ {
			for g.q0 = k / blockQueries * blockQueries; g.q0 < end; g.q0 += blockQueries {
				g.nq = min(blockQueries, sp.len-g.q0)
				p.queries.pack(w, a.isa, a.q.part(sp.start+g.q0, g.nq, head*a.dim, a.dim), blocks, mem)
				p.douts.pack(w, a.isa, a.dout.part(sp.start+g.q0, g.nq, head*a.dim, a.dim), blocks, mem)
				for g.k0 = k; g.k0 < min(k+n, g.q0+g.nq); g.k0 += gradKeys {
					g.nk = min(gradKeys, k+n-g.k0)
					if a.reach(g.q0) < g.k0+g.nk {
						g.dk, g.dv = dk[(g.k0-k)*a.padded:], dv[(g.k0-k)*a.padded:]
						a.blockInPieces(w, g, &p, sp, kv, head, dq)
					}
				}
			}
		}
		for i := range n {
			a.isa.scale(dk[i*a.padded:][:a.dim], a.scale)
			copy(a.dk.row(sp.start + k + i)[kv*a.dim:][:a.dim], dk[i*a.padded:])
			copy(a.dv.row(sp.start + k + i)[kv*a.dim:][:a.dim], dv[i*a.padded:])
		}
	}
}

// gradPieces are the pieces of a block of queries, and room for those of scores.
type gradPieces struct {
	queries, douts queryPieces
	sums, scores   []float32
}

func (a *attentionGrad) blockInPieces(w *worker, g *gradBlock, p *gradPieces, sp *span, kv, head int, dq matrix) {
	keys := sp.keyPanel + g.k0/groupRows
	a.scoresInPieces(a.isa, g.s, gradLine, p.queries.across, a.scoreKeys.across(kv, keys), p.sums, g.q0, g.nq, g.k0, g.nk)
	a.scoresInPieces(a.isa, g.ds, gradLine, p.douts.across, a.scoreValues.across(kv, keys), p.sums, g.q0, g.nq, g.k0, g.nk)
	extents := w.extents[:g.nq]
	a.score(g, extents, sp.start+g.q0, head)
	for i, e := range extents {
		clear(g.s[i*gradLine:][e[1] : ceil(int(e[1]), groupRows)*groupRows])
	}
	out := dq.part(sp.start+g.q0, g.nq, head*a.dim, a.dim)
	a.sumKeys(a.isa, out, g.ds, gradLine, extents, &a.sumsKeys, kv, keys, p.scores, p.sums, g.q0, g.k0, g.nk)
	a.sumQueriesInPieces(w, a.isa, g.dv, g.s, gradLine, &p.douts, p.scores, p.sums, g.q0, g.nq, g.k0, g.nk)
	a.sumQueriesInPieces(w, a.isa, g.dk, g.ds, gradLine, &p.queries, p.scores, p.sums, g.q0, g.nq, g.k0, g.nk)
}

// score turns scores and ∂/∂p into p and ∂/∂score, for queries from row t on.
func (a *attentionGrad) score(g *gradBlock, extents []extent, t, head int) {
	a.look(a.isa, g.s, gradLine, extents, g.q0, g.k0, g.nk, a.softCap)
	a.isa.scoreRows(len(extents), &g.s[0], &g.ds[0], gradLine, &extents[0], &a.lse.row(t)[head], a.lse.stride, &a.dot[t*a.query+head], a.query, a.ic2)
	for i, e := range extents {
		ds := g.ds[i*gradLine:]
		if e[0] > 0 {
			clear(ds[:e[0]])
		}
		if q := g.q0 + i; a.reach(q) == q { // one key has all the weight, whatever its score
			clear(ds[e[0]:e[1]])
		}
	}
}

// sumQueries adds sᵀ·x for the rows x of a head; queries before a tile's first key
// are left out.
func (a *attentionGrad) sumQueries(out, s []float32, x matrix, alpha float32, g *gradBlock) {
	for i := 0; i < g.nk; i += tileRows {
		if q := max(0, g.k0+i-g.q0); q < g.nq {
			a.sums(a.isa, &s[q*gradLine+i], 1, gradLine, x.part(q, g.nq-q, 0, a.dim), out[i*a.padded:], alpha)
		}
	}
}

// reduce adds the chunks' gradients of a block of queries.
func (a *attentionGrad) reduce(b block) {
	sp := &a.seq.spans[b.span]
	for chunk := 1; chunk < a.parts(sp.len); chunk++ {
		part := a.queryGrad(chunk)
		for q := max(int(b.first), a.chunkStart(sp.len, chunk)); q < int(b.first+b.n); q++ {
			out := a.dq.row(sp.start + q)
			a.isa.add(out, out, part.row(sp.start+q))
		}
	}
}
