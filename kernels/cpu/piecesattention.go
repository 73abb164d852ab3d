package cpu

// Attention with products in pieces (pieces.go): of sequences that are long enough, whatever lies
// beside them. Rows of a head are packed by groups, which start anew with each sequence, in three ways:
// as rows and as columns of scores, and, along, as what is summed. Groups and panels are alike, so
// that a product is left out where all of one is above the diagonal.

// headPieces are the packed rows of all heads of a matrix.
type headPieces struct {
	data   []float32
	groups int // of rows, in all sequences
	blocks int // of a head's dimension
}

// headBlocks returns how many blocks a head's dimension takes.
func (h *heads) headBlocks() int { return ceil(h.dim, blockDepth) }

// piecesOf bounds what the rows of so many heads take, packed in one way.
func (h *heads) piecesOf(v *vectors, heads, rows, sequences int) int {
	if v.pieces == nil {
		return 0
	}
	return heads * (rows/groupRows + sequences) * h.headBlocks() * leftBlock
}

// placePieces gives packed rows of so many heads their place.
func (h *heads) placePieces(heads int, mem *[]float32) headPieces {
	p := headPieces{groups: len(h.seq.groups), blocks: h.headBlocks()}
	p.data = take(mem, heads*p.groups*p.blocks*leftBlock)
	return p
}

// across returns what is packed of a head from a group on, to be multiplied by heads.
func (p *headPieces) across(head, group int) []float32 {
	return p.data[(head*p.groups+group)*p.blocks*leftBlock:]
}

// along returns what is packed of a panel of a head's dimension from a group on, to be summed.
func (p *headPieces) along(head, panel, group int) []float32 {
	return p.data[((head*p.blocks+panel)*p.groups+group)*leftBlock:]
}

// groupOf returns the rows of a group, of one head.
func (h *heads) groupOf(x matrix, head, group int) matrix {
	g := h.seq.groups[group]
	return x.part(h.seq.spans[g.span].start+int(g.first), int(g.n), head*h.dim, h.dim)
}

// splitRows packs rows as a left factor of so many blocks.
func splitRows(v *vectors, dst []float32, x matrix, blocks int) {
	for i := range x.rows {
		v.pieces.splitRow(&dst[i/groupRows*blocks*leftBlock+i%groupRows*lineWords], &x.data[i*x.stride], x.cols)
	}
}

// packKeys packs a group, times scale, as the right factor of scores.
func (h *heads) packKeys(w *worker, v *vectors, p *headPieces, x matrix, head, group int, scale float32) {
	rows := h.groupOf(x, head, group)
	packTerm(w, v, p.across(head, group), 0, factor{weights: bytesOf(rows), scale: scale}, h.dim, rows.rows, w.private)
}

// packSummed packs a group, times scale, as the right factor of sums over rows.
func (h *heads) packSummed(w *worker, v *vectors, p *headPieces, x matrix, head, group int, scale float32) {
	rows := h.groupOf(x, head, group)
	packTerm(w, v, p.along(head, 0, group), p.groups*leftBlock, factor{weights: bytesOf(rows), along: true, scale: scale}, rows.rows, h.dim, w.private)
}

// packTerm packs a right factor, with all of its depth, into panels that lie apart elements behind each
// other, by way of spare memory.
func packTerm(w *worker, v *vectors, dst []float32, apart int, f factor, depth, cols int, spare []float32) {
	w.term[0] = term{right: f, depth: depth, pieces: mostPieces}
	x := pieced{v: v, terms: w.term[:], blocks: ceil(depth, blockDepth)}
	x.counts[mostPieces] = x.blocks
	x.packRight(w, dst, apart, spare, 0, x.blocks, 0, cols)
}

// scoresInPieces computes a block of scores where it is not above the diagonal: q are packed
// groups of nq queries from q0 on, k those of the keys from k0 on.
func (h *heads) scoresInPieces(v *vectors, s []float32, ld int, q, k, sums []float32, q0, nq, k0, nk int) {
	blocks := h.headBlocks()
	for j := 0; j < nk; j += panelCols {
		if i := max(0, k0+j-q0) / groupRows * groupRows; i < nq {
			v.pieces.multiply(nq-i, min(panelCols, nk-j), &q[i*lineWords*mostPieces*blocks], &k[j*lineWords*mostPieces*blocks], 0, 0, blocks, blocks*leftBlock,
				&sums[0], &s[i*ld+j], ld, false)
		}
	}
}

// sumKeys adds the products of scores, up to each group's last key, and the rows of keys, of one
// head from a group on. Scores beyond a row's extent are cleared; pieces is room for theirs.
func (h *heads) sumKeys(v *vectors, out matrix, s []float32, ld int, extents []extent, keys *headPieces, head, group int, pieces, sums []float32, q0, k0, nk int) {
	nq := len(extents)
	for i := 0; i < nq; i += groupRows {
		n := min(groupRows, nq-i)
		k := min(nk, q0+i+n-k0)
		if k <= 0 {
			continue
		}
		blocks := ceil(k, blockDepth)
		for r := range n {
			clear(s[(i+r)*ld:][extents[i+r][1] : blocks*blockDepth])
		}
		splitRows(v, pieces, matrix{s[i*ld:], n, blocks * blockDepth, ld}, blocks)
		v.pieces.multiply(n, h.dim, &pieces[0], &keys.along(head, 0, group)[0], 0, 0, blocks, keys.groups*leftBlock,
			&sums[0], &out.data[i*out.stride], out.stride, true)
	}
}

// queryPieces are a block of rows of one head: packed as rows of scores, and to be summed.
type queryPieces struct {
	across []float32 // [groups][blocks]
	along  []float32 // [panels][groups]
}

// queryGroups is how many groups a block of queries has.
const queryGroups = blockQueries / groupRows

func (h *heads) placeQueries(mem *[]float32) queryPieces {
	n := queryGroups * h.headBlocks() * leftBlock
	return queryPieces{take(mem, n), take(mem, n)}
}

// pack packs rows both ways.
func (p *queryPieces) pack(w *worker, v *vectors, x matrix, blocks int, spare []float32) {
	splitRows(v, p.across, x, blocks)
	for i := 0; i < x.rows; i += groupRows {
		rows := matrix{x.data[i*x.stride:], min(groupRows, x.rows-i), x.cols, x.stride}
		packTerm(w, v, p.along[i/groupRows*leftBlock:], queryGroups*leftBlock, factor{weights: bytesOf(rows), along: true, scale: 1}, rows.rows, x.cols, spare)
	}
}

// sumQueriesInPieces adds sᵀ·x for packed rows x, into out [keys, padded]; groups of queries before a
// group's first key are left out.
func (h *heads) sumQueriesInPieces(w *worker, v *vectors, out, s []float32, ld int, x *queryPieces, pieces, sums []float32, q0, nq, k0, nk int) {
	turned := factor{weights: bytesOf(matrix{s, nq, nk, ld}), along: true}
	for i := 0; i < nk; i += groupRows {
		from := max(0, k0+i-q0) / groupRows * groupRows
		if from >= nq {
			continue
		}
		n, blocks := min(groupRows, nk-i), ceil(nq-from, blockDepth)
		for b := range blocks {
			q := from + b*blockDepth
			packAlong(w, v, pieces[b*leftBlock:], &turned, i, n, q, min(blockDepth, nq-q))
		}
		v.pieces.multiply(n, h.dim, &pieces[0], &x.along[from/groupRows*leftBlock], 0, 0, blocks, queryGroups*leftBlock,
			&sums[0], &out[i*h.padded], h.padded, true)
	}
}
