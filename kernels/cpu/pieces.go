package cpu

import (
	"math"
	"slices"
	"unsafe"

	"graft/kernels"
)

// Products of float32 on a unit that multiplies matrices of bfloat16, sixteen times as fast
// as vectors do float32. Three bfloat16 have the 24 bits of a float32: x = x1 + x2 + x3, each what is
// left, rounded to eight bits. Products of pieces are exact in float32, in which the unit adds them up.
// Of the nine the six largest count: without x2·y3, x3·y2 and x3·y3 less than 2^-24 of a product is
// missing, the most that rounding it would take (Henry, Tang and Heinecke, 2019). A weight that is
// stored in bfloat16 is one piece, so that three products are all.
//
// An adapter's rank is often no more than half of a block. Then two pieces of each factor share
// one, and three products of blocks add up the six:
//
//	[x1 x2]·[y1 y2] + [x2 x1]·[y1 y2] + [x3 x1]·[y1 y3]
//
// Both factors are packed in blocks of blockDepth, piece after piece, of lines of a block of one
// row or of 16 columns: depths p and 16+p side by side. A panel of the right factor
// goes by groups of rows whose pieces stay in the second cache, half of which is another
// thread's where two share a core.

const (
	groupRows   = 32
	panelCols   = 2 * tileCols
	blockDepth  = 32
	lineWords   = blockDepth / 2            // float32 that a line takes
	halfBlock   = blockDepth / 2 * tileCols // elements of half of a block's depths
	pieceWords  = groupRows * lineWords     // of one piece of a block of either factor
	mostPieces  = 3                         // the left factor has them always
	leftBlock   = mostPieces * pieceWords   // of a group of rows
	leftCache   = 740 << 10 / 4             // of what a task packs of the left factor
	spareBlocks = 8                         // of the right factor that are copied at a time, which the first cache holds
	partPanels  = 4                         // of the right factor that are packed together, at most
	partCols    = partPanels * panelCols
	mostBlocks  = 32                          // of the depth at a time, so that few panels are read for each group
	rightCache  = packBudget * mostPieces / 2 // of what is packed of the right factor at a time
)

// pieceLimits is what is computed so at least, as less is not worth to pad and pack: products of
// so many rows, of columns and depth, and of multiply-adds, and sequences of so many rows, with
// heads of half as many columns.
type pieceLimits struct{ rows, side, work, sequence int }

// pieceVectors are an instruction set's loops for it.
type pieceVectors struct {
	least pieceLimits
	// splitRow packs a row of the left factor, of k elements: its line of each piece of each block.
	splitRow func(dst, src *float32, k int)
	// splitHalfRow is splitRow for half a block's elements at most, of which two pieces share a line.
	splitHalfRow func(dst, src *float32, k int)
	// splitColumns packs half of the lines of so many blocks, in as many pieces as the index says. The
	// i-th line has sixteen elements from i·row on, and those that lie later elements behind them, or
	// where there are two pieces, another of the same; blocks lie apart elements behind each other.
	splitColumns [mostPieces + 1]func(dst, src *float32, row, later, blocks, apart int)
	// joinColumns is splitColumns for elements that are bfloat16, and so are one piece.
	joinColumns func(dst *float32, src *byte, row, later, blocks, apart int)
	// splitAcross packs half of the lines of so many blocks, whose depths lie along sixteen rows, stride
	// bytes apart: BF16 in one piece, F32 and F16 in three.
	splitAcross [kernels.BF16 + 1]func(dst *float32, src *byte, stride, blocks int)
	// multiply computes m rows by n columns, plus the old ones where add is set: sums of blocks
	// whose right factors have one piece, then of those that have two, and three. Panels of
	// the right factor lie apart elements behind each other. It takes sumWords of
	// memory. Meanwhile it asks for the next panel.
	multiply func(m, n int, left, right *float32, one, two, three, apart int, sums, c *float32, ldc int, add bool)
}

// takes says whether a product is computed so.
func (x *pieceVectors) takes(m, n, depth int) bool {
	return x != nil && m >= x.least.rows && min(n, depth) >= x.least.side && m*n*depth >= x.least.work
}

// attends says whether attention within a sequence of n rows is computed so.
func (x *pieceVectors) attends(n, dim int) bool {
	return x != nil && n >= x.least.sequence && 2*dim >= x.least.side
}

// pieceBlocks returns how many blocks the depth of a term takes.
func (t *term) pieceBlocks() int { return ceil(t.depth, blockDepth) }

// sharedPieces is how many pieces the right factor of a term counts as whose pieces share blocks.
const sharedPieces = 2

// countPieces finds how many pieces the right factor of a term has.
func (t *term) countPieces() {
	switch {
	case t.right.dtype == kernels.BF16 && t.right.scale == 1:
		t.pieces = 1
	case t.depth <= blockDepth/2 && !t.left.along:
		t.pieces = sharedPieces
	default:
		t.pieces = mostPieces
	}
}

// pieced is a sum of products in pieces: of so many blocks, counted by how many pieces they have, in
// this order.
type pieced struct {
	v      *vectors
	terms  []term
	blocks int
	counts [mostPieces + 1]int
}

// newPieced puts the terms in order.
func newPieced(v *vectors, terms []term) pieced {
	x := pieced{v: v}
	for i := range terms {
		terms[i].countPieces()
	}
	slices.SortStableFunc(terms, func(a, b term) int { return a.pieces - b.pieces })
	for i := range terms {
		x.counts[terms[i].pieces] += terms[i].pieceBlocks()
		x.blocks += terms[i].pieceBlocks()
	}
	x.terms = terms
	return x
}

// at returns how many elements the blocks before the b-th take, of a panel of the right factor.
func (x *pieced) at(b int) (n int) {
	for pieces, blocks := range x.between(0, b) {
		n += pieces * blocks * pieceWords
	}
	return n
}

// between counts blocks b to b+n by how many pieces they have.
func (x *pieced) between(b, n int) (counts [mostPieces + 1]int) {
	for pieces, blocks := range x.counts {
		counts[pieces] = min(max(0, blocks-b), n)
		n -= counts[pieces]
		b = max(0, b-blocks)
	}
	return counts
}

// eachBlocks calls f for every term with a part in blocks b to b+n: n blocks, from its own
// depth `first` on, at the at-th of the range.
func (x *pieced) eachBlocks(b, n int, f func(t *term, first, at, n int)) {
	start := 0
	for i := range x.terms {
		t := &x.terms[i]
		from, to := max(b, start), min(b+n, start+t.pieceBlocks())
		if from < to {
			f(t, (from-start)*blockDepth, from-b, to-from)
		}
		start += t.pieceBlocks()
	}
}

// packLeft packs blocks b to b+n of m rows from i on.
func (x *pieced) packLeft(w *worker, dst []float32, b, n, i, m int) {
	x.eachBlocks(b, n, func(t *term, first, at, part int) {
		k := min(part*blockDepth, t.depth-first)
		if t.left.along {
			for p := 0; p < k; p += blockDepth {
				for r := 0; r < m; r += groupRows {
					packAlong(w, x.v, dst[(r/groupRows*n+at+p/blockDepth)*leftBlock:], &t.left, i+r, min(groupRows, m-r), first+p, min(blockDepth, k-p))
				}
			}
			return
		}
		split := x.v.pieces.splitRow
		if t.pieces == sharedPieces {
			split = x.v.pieces.splitHalfRow
		}
		for r := range m {
			line := dst[(r/groupRows*n+at)*leftBlock+r%groupRows*lineWords:]
			split(&line[0], &floats(t.left.at(i+r, first))[0], k)
		}
	})
}

// packAlong packs a block of a group of m rows that are columns in memory, of k depths from p on.
func packAlong(w *worker, v *vectors, dst []float32, f *factor, i, m, p, k int) {
	mem := w.wide
	turned, copied := take(&mem, groupRows*blockDepth), take(&mem, groupRows*blockDepth)
	depths, stride := f.at(p, i), f.stride
	if m < groupRows || k < blockDepth {
		clear(copied)
		for d := range k {
			copy(copied[d*groupRows:], floats(f.at(p+d, i))[:m])
		}
		depths, stride = bytesOf(matrix{copied, blockDepth, groupRows, groupRows}).data, groupRows
	}
	const half = groupRows * tileCols // of the depths
	for h := range 2 {
		v.across[kernels.F32](&turned[h*half], &depths[4*h*tileCols*stride], 4*stride, groupRows, 1)
	}
	for rows := range 2 {
		v.pieces.splitColumns[mostPieces](&dst[rows*pieceWords/2], &turned[rows*halfBlock], tileCols, half, 1, 0)
	}
}

// packRight packs blocks b to b+n of columns j to j+count into panels that lie apart elements behind each
// other, by way of pieceSpare. Where a depth is a row in memory, all panels of a block come before the
// next block: rows lie in different pages, and the processor reads ahead only within one.
func (x *pieced) packRight(w *worker, dst []float32, apart int, spare []float32, b, n, j, count int) {
	x.eachBlocks(b, n, func(t *term, first, at, part int) {
		d, step := dst[x.at(b+at)-x.at(b):], part
		if t.right.along {
			step = 1
		}
		for i := 0; i < part; i += step {
			for c := 0; c < count; c += panelCols {
				x.packBlocks(w, d[c/panelCols*apart+i*t.pieces*pieceWords:], spare, t, first+i*blockDepth, step, j+c, min(panelCols, count-c))
			}
		}
	})
}

// packBlocks packs n blocks of a panel, from depth p on.
func (x *pieced) packBlocks(w *worker, dst, spare []float32, t *term, p, n, j, count int) {
	for end := p + n*blockDepth; p < end; p += spareBlocks * blockDepth {
		blocks := min(spareBlocks, (end-p)/blockDepth)
		k, panel := min(blocks*blockDepth, t.depth-p), blocks*blockDepth*tileCols
		whole := count == panelCols && k == blocks*blockDepth
		if !whole || !x.splitStored(dst, &t.right, j, p, blocks) {
			packRight(w, x.v, spare, panel, t.right, j, count, p, k)
			for half := range panelCols / tileCols {
				s := spare[half*panel:][:panel]
				if half*tileCols >= count {
					clear(s)
				}
				clear(s[k*tileCols:])
				x.v.pieces.splitColumns[t.pieces](&dst[half*pieceWords/2], &s[0], tileCols, halfBlock, blocks, halfBlock)
			}
		}
		dst = dst[blocks*t.pieces*pieceWords:]
	}
}

// splitStored is packBlocks for whole blocks of weights that need no copy, and says whether these are
// such. They may be at any address: only assembly takes them for float32.
func (x *pieced) splitStored(dst []float32, f *factor, j, p, blocks int) bool {
	v := x.v.pieces
	if f.scale != 1 || f.dtype > kernels.BF16 || v.splitAcross[f.dtype] == nil || f.along && f.dtype == kernels.F16 {
		return false
	}
	for half := range panelCols / tileCols {
		lines, i, later := &dst[half*pieceWords/2], j+half*tileCols, tileCols*f.stride
		switch {
		case !f.along:
			v.splitAcross[f.dtype](lines, &f.at(i, p)[0], f.stride*f.dtype.Size(), blocks)
		case f.dtype == kernels.BF16:
			v.joinColumns(lines, &f.at(p, i)[0], f.stride, later, blocks, later)
		default:
			v.splitColumns[mostPieces](lines, (*float32)(unsafe.Pointer(&f.at(p, i)[0])), f.stride, later, blocks, later)
		}
	}
	return true
}

// multiply computes m rows by n columns: blocks b to b+k of panels that lie apart elements
// behind each other.
func (x *pieced) multiply(m, n, b, k int, left, right []float32, apart int, sums, c []float32, ldc int, add bool) {
	blocks := x.between(b, k)
	x.v.pieces.multiply(m, n, &left[0], &right[0], blocks[1], blocks[2], blocks[3], apart, &sums[0], &c[0], ldc, add)
}

// inPieces is a gemm in pieces.
type inPieces gemm

// pieceDepth returns how many blocks are multiplied at a time.
func pieceDepth(blocks int) int { return ceil(blocks, max(1, ceil(blocks, mostBlocks))) }

// pieceGroups returns how many groups of rows a task has, at most.
func pieceGroups(blocks int) int { return max(2, leftCache/leftBlock/pieceDepth(blocks)) }

// pieceCols returns how many columns are packed at a time.
func pieceCols(n, blocks int) int {
	return min(ceil(n, panelCols), max(8, rightCache/(mostPieces*pieceWords)/blocks)) * panelCols
}

// pieceSpare is what packRight takes for so many blocks.
func pieceSpare(blocks int) int { return min(blocks, spareBlocks) * blockDepth * panelCols }

// sumWords is what multiply takes.
const sumWords = groupRows * panelCols

// piecesNeed is the memory of a product with so many blocks.
func piecesNeed(m, n, blocks int) need {
	depth := pieceDepth(blocks)
	return need{
		shared:  pieceCols(n, blocks) * blocks * mostPieces * pieceWords / panelCols,
		private: max(sumWords+min(ceil(m, groupRows), pieceGroups(blocks))*depth*leftBlock, pieceSpare(depth)),
	}
}

// run computes all columns, with working memory of piecesNeed.
func (g *inPieces) run(p *pool, mem []float32) {
	for i := range g.terms {
		g.terms[i].right.scale *= g.alpha
	}
	g.pieced = newPieced(g.v, g.terms)
	x := &g.pieced
	g.packB = mem
	cols := pieceCols(g.n, x.blocks)
	for g.j0 = 0; g.j0 < g.n; g.j0 += cols {
		g.nb = min(cols, g.n-g.j0)
		g.split(x.blocks, len(p.workers))
		tasks := g.packParts * ceil(x.blocks, pieceDepth(x.blocks))
		if g.m*g.nb*g.depth < smallWork {
			p.inline((*piecesPack)(g), tasks)
			p.inline((*piecesMultiply)(g), (*gemm)(g).tasks())
			continue
		}
		p.run((*piecesPack)(g), tasks)
		p.run((*piecesMultiply)(g), (*gemm)(g).tasks())
	}
}

// split cuts the columns in work into tasks, as many for each thread. Threads that share rows each pack
// them, and those that share columns each read what is packed of them: here both take least, where an
// element of a row costs a third more than one of a column, of three pieces.
func (g *inPieces) split(blocks, threads int) {
	x := &g.pieced
	rows, cols := g.m*blocks*leftBlock, g.nb*x.at(blocks)
	g.over = int(0.5 + math.Sqrt(0.75*float64(cols)*float64(threads)/float64(rows)))
	panels := ceil(g.nb, panelCols)
	g.over = max(1, min(g.over, threads, panels))
	g.cuts = equal(g.cuts[:0], ceil(g.m, groupRows), pieceGroups(blocks), ceil(threads, g.over))
	g.packParts = evenParts(panels, partPanels, threads)
}

// equal cuts n into nearly equal ranges of at most `most`, as many for each thread.
func equal(cuts []int, n, most, threads int) []int {
	count := evenParts(n, most, threads)
	for i := range count {
		from, _ := portion(n, count, i)
		cuts = append(cuts, from)
	}
	return append(cuts, n)
}

// panels returns blocks b to b+n of packed panels, from one on, and how far they lie apart. What is
// multiplied together lies together.
func (g *inPieces) panels(first, b, n int) (at []float32, apart int) {
	x := &g.pieced
	apart = x.at(b+n) - x.at(b)
	return g.packB[ceil(g.nb, panelCols)*x.at(b)+first*apart:], apart
}

// piecesPack packs some blocks of some panels of the right factor.
type piecesPack inPieces

func (g *piecesPack) do(w *worker, task int) {
	x := &g.pieced
	depth := pieceDepth(x.blocks)
	first, end := portion(ceil(g.nb, panelCols), g.packParts, task%g.packParts)
	b := task / g.packParts * depth
	n := min(depth, x.blocks-b)
	at, apart := (*inPieces)(g).panels(first, b, n)
	x.packRight(w, at, apart, w.private, b, n, g.j0+first*panelCols, min(end*panelCols, g.nb)-first*panelCols)
}

// piecesMultiply computes one rectangle of C.
type piecesMultiply inPieces

func (g *piecesMultiply) do(w *worker, task int) {
	x := &g.pieced
	i, j := task%(len(g.cuts)-1), task/(len(g.cuts)-1)
	p0, p1 := portion(ceil(g.nb, panelCols), g.over, j)
	row, col := g.cuts[i]*groupRows, p0*panelCols
	m, n := min(g.cuts[i+1]*groupRows, g.m)-row, min(p1*panelCols, g.nb)-col
	add := g.add
	if g.base.present() || g.bias != nil {
		(*gemmMultiply)(g).start(row, m, g.j0+col, n)
		add = true
	}
	mem := w.private
	sums, depth := take(&mem, sumWords), pieceDepth(x.blocks)
	for b := 0; b < x.blocks; b += depth {
		k := min(depth, x.blocks-b)
		x.packLeft(w, mem, b, k, row, m)
		right, apart := (*inPieces)(g).panels(p0, b, k)
		x.multiply(m, n, b, k, mem, right, apart, sums, g.c[row*g.ldc+g.j0+col:], g.ldc, add || b > 0)
	}
}
