package cpu

import (
	"math"
	"unsafe"
)

// Strassen's product (1969): with both factors and the result cut into halves each
// way, seven products of halves do what eight do otherwise.
//
//	M1 = (A11 + A22)·(B11 + B22)    C11 = M1 + M4 - M5 + M7
//	M2 = (A21 + A22)·B11            C12 = M3 + M5
//	M3 = A11·(B12 - B22)            C21 = M2 + M4
//	M4 = A22·(B21 - B11)            C22 = M1 - M2 + M3 + M6
//	M5 = (A11 + A12)·B22
//	M6 = (A21 - A11)·(B11 + B12)
//	M7 = (A12 - A22)·(B21 + B22)
//
// As in Huang, Smith, Henry and van de Geijn (2016) sums exist only as packed
// panels, and the micro-kernel adds its tile to both places; those are in a block
// of C that stays in the cache, and is moved to C when it is finished. The halves lie
// as suits the panels: of rows, every other panel; of columns, every other two; of the
// depth, the first and the second half of a block. There is one level: two would
// multiply the rounding errors of one, which are those of a plain sum about twice as long.
//
// A row's elements are differences of sums in which another row takes part, so what
// is large there would leave its rounding errors here. Rows are therefore scaled to
// one size, by powers of two, which is exact: errors are small beside the row's own
// elements, as they are otherwise.

const (
	halfCols  = 2 * tileCols
	blockCols = 2 * halfCols // of a block of C
	pairRows  = 2 * tileRows // two panels, one of either half

	strassenDepth = 1040 // of both halves of a block together, at most
)

// strassenVectors are an instruction set's loops for it.
type strassenVectors struct {
	// worth says for which sizes less time is taken by the eighth product than by
	// what is done in its stead.
	worth func(m, n, depth int) bool
	// cache is how many bytes of the second cache a task's packed pairs may take. What is
	// packed of the right factor, more than that cache holds, is read once for each task.
	cache int
	// across6 is vectors.across6 with a factor for each row.
	across6 func(dst *float32, src *byte, stride, k int, scales *float32)
	// stream writes the packedSums of a panel of each quarter, k deep, so many elements
	// apart, past the caches. That memory's last content has been read by all
	// threads; to call it in from the caches of other cores takes longer than to pack,
	// unless they have one in common. Meanwhile it asks for what is packed later: for each
	// depth for four places, a step apart; the next four are so far on as advance says, and
	// after tileCols depths by turn more.
	stream func(k int, x, y, u, v, sums *float32, apart int, ahead *byte, step, advance, turn int)
	// sums is xy = x + y, ux = u + x, vy = v + y, then u -= y, v -= x.
	sums func(x, y, u, v, xy, ux, vy []float32)
	// addTo adds tiles of A·B, packed and k deep, to a block: one for each panel of A,
	// in every other six rows from c on. addToBoth adds them at c, and times sign at d.
	// Tiles have halfCols columns, or tileCols where narrow is set. Both ask for what is
	// ahead, in order, and for each panel for blockCols columns of so many rows from far on.
	addTo     func(panels, k int, a, b, c, ahead, far *float32, ldfar, rows int)
	addToBoth func(panels, k int, a, b, c, d *float32, sign float32, ahead, far *float32, ldfar, rows int)
	narrow    bool
	// unload moves rows > 0 of a block to C: each times a factor, plus C's old value
	// where add is set. It leaves zeros in the block.
	unload func(c *float32, ldc int, block *float32, rows int, factors *float32, add bool)
}

// What is packed of a factor: X, Y, U and V are its quarters 11, 22, 12 and 21.
const (
	sumXY = iota // X + Y
	onlyX
	lessUY // U - Y
	lessVX // V - X
	onlyY
	sumUX // U + X
	sumVY // V + Y
	packedSums
)

// seven are the products, in the order in which the right factor is packed. c and
// d are quarters of a block, row by row; d is -1 where there is none.
var seven = [packedSums]struct {
	a, c, d int
	sign    float32
}{
	sumXY:  {sumXY, 0, 3, 1},
	onlyX:  {sumVY, 2, 3, -1},
	lessUY: {onlyX, 1, 3, 1},
	lessVX: {onlyY, 0, 2, 1},
	onlyY:  {sumUX, 1, 0, -1},
	sumUX:  {lessVX, 3, -1, 0},
	sumVY:  {lessUY, 0, -1, 0},
}

// halves is a product of sums of halves: of m rows, in depths p to p+2·h of a sum of
// terms. Beyond the last row and depth are zeros.
type halves struct {
	v        *vectors
	terms    []term
	m, depth int
	p, h     int
}

// useful says whether a product has whole blocks, and is large enough.
func useful(v *vectors, m, n, depth int) bool {
	return v.strassen != nil && n >= blockCols && depth > 0 && v.strassen.worth(m, n, depth)
}

// worthHalves is strassenVectors.worth where memory is outside of a core's own caches,
// as fitted to measurements: what is saved for a multiply-add of a product is 1; it takes
// 280 more for an element of the right factor, since 7 quarters are packed of 4, and
// 170 for one of the left, and 180 to move one of C, for each block of the depth. Few
// rows are too few for many threads, each of which reads all of the right factor.
func worthHalves(m, n, depth int) bool {
	block := min(depth, 2*half(depth))
	return m >= 768 && 280/float64(m)+170/float64(n)+180/float64(block) < 0.9
}

// half returns half of the length of the blocks that a depth is cut into.
func half(depth int) int {
	return (ceil(depth, 2*ceil(depth, strassenDepth)) + 7) &^ 7
}

// rightSize and leftSize are the elements of a packed block of columns and of a packed pair.
func rightSize(h int) int { return packedSums * halfCols * h }
func leftSize(h int) int  { return packedSums * tileRows * h }

// packRight packs columns j to j+blockCols: sum after sum, two panels each. Of each half of
// the depth it packs so many from one on, multiples of 8.
func (x *halves) packRight(w *worker, dst []float32, j, from, depths int) {
	mem, panel := w.private, depths*tileCols
	quarter := func(p, j int) []float32 {
		to, n := take(&mem, 2*panel), min(depths, max(0, x.depths(p)-from))
		eachTerm(x.terms, p+from, n, func(t *term, first, at, part int) {
			packRight(w, x.v, to[at*tileCols:], panel, t.right, j, halfCols, first, part)
		})
		clear(to[n*tileCols : panel])
		clear(to[panel+n*tileCols:])
		return to
	}
	// In this order what is packed asks for what is packed next.
	b11 := quarter(x.p, j)
	b12 := quarter(x.p, j+halfCols)
	b21 := quarter(x.p+x.h, j)
	b22 := quarter(x.p+x.h, j+halfCols)
	for at := 0; at < 2*panel; at += panel {
		ahead, step, advance, turn := x.rightAhead(x.p+at/panel*x.h+from, j+blockCols)
		if ahead == nil {
			ahead = (*byte)(unsafe.Pointer(&b11[at])) // is there: to look for what is not takes time
		}
		x.v.strassen.stream(depths, &b11[at], &b22[at], &b12[at], &b21[at], &dst[from*tileCols], halfCols*x.h, ahead, step, advance, turn)
		dst = dst[x.h*tileCols:]
	}
}

// rightAhead says how to ask for blockCols columns from j on of the right factor, of depths
// from p on: line by line, or where depths lie in lines, for as many rows, and then for
// their next lines. There may be fewer columns, or depths: what is asked for in vain does no
// harm. ahead is nil where there are none.
func (x *halves) rightAhead(p, j int) (ahead *byte, step, advance, turn int) {
	eachTerm(x.terms, p, 1, func(t *term, first, _, _ int) {
		f := &t.right
		if !direct(f.dtype) {
			return
		}
		line, row := f.dtype.Bytes(tileCols), f.dtype.Bytes(f.stride)
		switch {
		case f.along && j < f.cols:
			ahead, step, advance = &f.at(first, j)[0], line, row
		case !f.along && j < f.rows:
			ahead, step, advance, turn = &f.at(j, first)[0], row, 4*row, line-blockCols*row
		}
	})
	return ahead, step, advance, turn
}

// rightPrivate is what packRight takes of a worker's memory.
func rightPrivate(h int) int { return 4 * halfCols * h }

// packLeft packs the pair of panels from row i on: sum after sum, so many elements
// apart. scales is room for those of the rows, factors is what undoes them.
func (x *halves) packLeft(dst []float32, apart, i int, scales, factors []float32) {
	for r := range scales {
		if i+r < x.m {
			scales[r], factors[r] = x.scale(i + r)
		}
	}
	size := tileRows * x.h
	quarter := func(sum, p, panel int) {
		to, n := dst[sum*apart:][:size], x.depths(p)
		first := i + panel*tileRows
		count := min(tileRows, x.m-first)
		if count <= 0 {
			n = 0
		}
		eachTerm(x.terms, p, n, func(t *term, from, at, part int) {
			packLeft(x.v, to[at*tileRows:], t.left, first, count, from, part, scales[panel*tileRows:])
		})
		clear(to[n*tileRows:])
	}
	quarter(onlyX, x.p, 0)
	quarter(lessUY, x.p+x.h, 0)
	quarter(lessVX, x.p, 1)
	quarter(onlyY, x.p+x.h, 1)
	at := func(sum int) []float32 { return dst[sum*apart:][:size] }
	x.v.strassen.sums(at(onlyX), at(onlyY), at(lessUY), at(lessVX), at(sumXY), at(sumUX), at(sumVY))
}

// depths returns how many depths there are of a half that starts at p.
func (x *halves) depths(p int) int { return min(x.h, max(0, x.depth-p)) }

// scale returns powers of two: what makes a row's elements about 1, and what undoes
// it: 0 for a row of zeros, which has to give just that.
func (x *halves) scale(i int) (scale, factor float32) {
	n := min(2*x.h, x.depth-x.p)
	var sum float32
	eachTerm(x.terms, x.p, n, func(t *term, first, _, part int) {
		sum += x.v.sumSquares(floats(t.left.at(i, first))[:part])
	})
	size := math.Sqrt(float64(sum) / float64(n))
	if !(sum > 1e-30 && sum < 1e30) { // squares may have been too large or too small
		size = 0
		eachTerm(x.terms, x.p, n, func(t *term, first, _, part int) {
			for _, y := range floats(t.left.at(i, first))[:part] {
				size = max(size, math.Abs(float64(y)))
			}
		})
		if size == 0 {
			return 1, 0
		}
	}
	if !(size <= math.MaxFloat32) {
		return 1, 1
	}
	_, e := math.Frexp(size)
	e = min(max(e, -120), 120) // more or less has no inverse that is a normal number
	return float32(math.Ldexp(1, -e)), float32(math.Ldexp(1, e))
}

// rowsAhead are rows of blockCols columns that will be needed: so many for each pair of
// panels of the product that asks for them. Elsewhere than beside arithmetic, asking takes
// as long as waiting.
type rowsAhead struct {
	at           *float32
	stride, each int
}

// multiply adds a product to a block of zeros, for so many pairs, which lie in left as
// packLeft leaves them; a block of columns lies in right, before what is needed next.
// ahead says what the n-th product asks for; it may be nil.
func (x *halves) multiply(pairs int, left []float32, apart int, right, block []float32, ahead func(n int) rowsAhead) {
	for n := range seven {
		next := right[min(halfCols*x.h, len(right)-1):]
		var far rowsAhead
		if ahead != nil {
			far = ahead(n)
		}
		x.product(n, pairs, left[seven[n].a*apart:], right, block, next, far)
		right = next
	}
}

func (x *halves) product(n, pairs int, left, right, block, next []float32, far rowsAhead) {
	s, v := &seven[n], x.v.strassen
	quarter := func(q int) []float32 { return block[q/2*tileRows*blockCols+q%2*halfCols:] }
	c, width := quarter(s.c), halfCols
	if v.narrow {
		width = tileCols
	}
	for at := 0; at < halfCols; at += width {
		b, ahead := &right[at*x.h], &next[min(at*x.h, len(next)-1)]
		if s.d < 0 {
			v.addTo(pairs, x.h, &left[0], b, &c[at], ahead, far.at, far.stride, far.each)
		} else {
			v.addToBoth(pairs, x.h, &left[0], b, &c[at], &quarter(s.d)[at], s.sign, ahead, far.at, far.stride, far.each)
		}
		far.each = 0
	}
}

// strassen is a gemm by products of halves.
type strassen gemm

// pairsAtOnce returns how many pairs a task packs, at most.
func (s *strassenVectors) pairsAtOnce(depth int) int { return max(2, s.cache/4/leftSize(half(depth))) }

// strassenCols returns how many columns are packed at a time.
func strassenCols(n, depth int) int {
	return min(n/blockCols, max(1, packBudget/rightSize(half(depth)))) * blockCols
}

func strassenNeed(v *vectors, n, depth int) need {
	h, pairs := half(depth), v.strassen.pairsAtOnce(depth)
	return need{
		shared:  strassenCols(n, depth) / blockCols * rightSize(h),
		private: max(aligned(pairRows)+pairs*(pairRows*blockCols+aligned(pairRows)+leftSize(h)), rightPrivate(h)),
	}
}

// run computes the columns that are whole blocks, and returns their number.
func (g *strassen) run(p *pool, mem []float32) int {
	cols, end := strassenCols(g.n, g.depth), g.n/blockCols*blockCols
	g.packB = mem
	g.halves = halves{v: g.v, terms: g.terms, m: g.m, depth: g.depth, h: half(g.depth)}
	for g.j0 = 0; g.j0 < end; g.j0 += cols {
		g.nb = min(cols, end-g.j0)
		g.cuts = guided(g.cuts[:0], ceil(g.m, pairRows), g.v.strassen.pairsAtOnce(g.depth), len(p.workers))
		g.over = min(ceil(len(p.workers), len(g.cuts)-1), g.nb/blockCols)
		for g.halves.p = 0; g.halves.p < g.depth; g.halves.p += 2 * g.halves.h {
			p.run((*strassenPack)(g), packParts*g.nb/blockCols)
			p.run((*strassenMultiply)(g), (*gemm)(g).tasks())
		}
	}
	return end
}

// strassenPack packs a part of a block of columns of the right factor.
type strassenPack gemm

// packParts are what a block of columns is cut into: an odd number of blocks is shared
// out evenly.
const packParts = 2

func (g *strassenPack) do(w *worker, task int) {
	h, block, part := g.halves.h, task/packParts, task%packParts
	from, to := part*h/8/packParts*8, (part+1)*h/8/packParts*8
	g.halves.packRight(w, g.packB[block*rightSize(h):], g.j0+block*blockCols, from, to-from)
}

// strassenMultiply computes one rectangle of C, for a block of the depth.
type strassenMultiply gemm

func (g *strassenMultiply) do(w *worker, task int) {
	i, j := task/g.over, task%g.over
	blocks := g.nb / blockCols
	b0, b1 := j*blocks/g.over, (j+1)*blocks/g.over
	pairs, row := g.cuts[i+1]-g.cuts[i], g.cuts[i]*pairRows
	m := min(pairs*pairRows, g.m-row)

	x := &g.halves
	add := g.add || x.p > 0
	if x.p == 0 && (g.base.present() || g.bias != nil) {
		(*gemmMultiply)(g).start(row, m, g.j0+b0*blockCols, (b1-b0)*blockCols)
		add = true
	}
	mem := w.private
	block, factors, scales := take(&mem, pairs*pairRows*blockCols), take(&mem, pairs*pairRows), take(&mem, pairRows)
	clear(block)
	apart := pairs * tileRows * x.h
	for pair := range pairs {
		x.packLeft(mem[pair*tileRows*x.h:], apart, row+pair*pairRows, scales, factors[pair*pairRows:][:pairRows])
	}
	for b := b0; b < b1; b++ {
		c := g.c[row*g.ldc+g.j0+b*blockCols:]
		x.multiply(pairs, mem, apart, g.packB[b*rightSize(x.h):], block, func(n int) rowsAhead {
			if n < leftAhead {
				return g.nextLeft(row+m, pairs, (b-b0)*leftAhead+n, (b1-b0)*leftAhead)
			}
			return rowsOfC(c, g.ldc, pairs, n)
		})
		g.v.strassen.unload(&c[0], g.ldc, &block[0], m, &factors[0], add)
	}
}

// leftAhead products ask for the left factor's next rows, the others for those of C, to
// which the block is moved after them.
const leftAhead = 3

func rowsOfC(c []float32, ldc, pairs, n int) rowsAhead {
	const each = pairRows / (packedSums - leftAhead)
	return rowsAhead{&c[min((n-leftAhead)*each*pairs*ldc, len(c)-1)], ldc, each}
}

// nextLeft are part n of so many of the rows from one on, which the next task packs, all
// of them where there are enough parts. There may be fewer rows than it takes for granted,
// and less to a row in its last columns: what is asked for in vain does no harm.
func (g *strassenMultiply) nextLeft(row, pairs, n, parts int) (ahead rowsAhead) {
	x, units := &g.halves, 0 // of blockCols columns
	each := func(f func(t *term, from, n int)) {
		eachTerm(x.terms, x.p, min(2*x.h, x.depth-x.p), func(t *term, from, _, part int) { f(t, from, ceil(part, blockCols)) })
	}
	each(func(_ *term, _, n int) { units += n })
	cuts := max(1, parts/units) // of a unit's rows
	count := ceil(pairRows, cuts)
	unit, at := n/cuts, row+n%cuts*count*pairs
	each(func(t *term, from, n int) {
		if 0 <= unit && unit < n && at < g.m {
			ahead = rowsAhead{&floats(t.left.at(at, from+unit*blockCols))[0], t.left.stride, count}
		}
		unit -= n
	})
	return ahead
}
