package cpu

import (
	"math"
	"unsafe"

	"graft/kernels"
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
// that stays in the cache, but for the last product of each, which goes to C. The halves lie
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
	// rows is from how many on a product is computed so, and saved what the eighth product
	// takes, as worth counts it.
	rows  int
	saved float64
	// cache is how many bytes of the second cache a task's packed pairs may take. What is
	// packed of the right factor, more than that cache holds, is read once for each task.
	cache int
	// rowSquares adds to each of pairRows sums the squares of so many elements of a row, whole
	// vectors of sixteen.
	rowSquares func(sums *float32, src *byte, stride, k int)
	// packPair packs the packedSums of a pair, so many elements apart: k depths, a multiple of
	// 8, of the first half and of the second, rows times their scales.
	packPair func(dst *float32, apart, k int, first *byte, firstStride int, second *byte, secondStride int, scales *float32)
	// stream writes the packedSums of a panel of each quarter, whose rows are row elements
	// apart: k deep, so many elements apart, past the caches. That memory's last content has been
	// read by all threads; to call it in from the caches of other cores takes longer than to pack,
	// unless they have one in common. Meanwhile it asks for what is packed later: for each
	// depth for four places, a step apart; the next four are so far on as advance says, and
	// after tileCols depths by turn more.
	stream func(k int, x, y, u, v *float32, row int, sums *float32, apart int, ahead *byte, step, advance, turn int)
	// multiply computes so many pairs of panels by blockCols columns of the result, c: each row
	// times its factor, plus c's old value where add is set. It takes n products, strassenProduct
	// after strassenProduct, of sums of the left factor, packed and k deep, so many
	// elements apart, with those of the right factor, which follow each other, and asks for
	// what comes after. For each pair it also asks for what far, rowsAhead for each product,
	// says, which it moves on. block has blockCols for each row.
	multiply func(products *byte, n, pairs, k int, left *float32, apart int, right, block, c *float32, ldc int, factors *float32, add bool, far *byte)
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

// strassenProduct is one of the seven: of a sum of the left factor, added to the places c
// and, times sign, d of a block, as way says. What is finished then goes to the
// quarter of the result from (row, col) on. Assembly knows the layout (gen/strassen.go).
type strassenProduct struct {
	sum, c, d int
	sign      float32
	way       int
	row, col  int
}

// The ways: what a product does at its two places. Assembly has them in this order.
const (
	startBoth = iota // it is the first there
	startC           // it is the first at c
	finishD          // it is the last at d
	finishC          // it is the last at c
	onlyC            // and has no other place
)

// Quarters of a block, row by row.
const (
	block11 = 0
	block12 = halfCols
	block21 = tileRows * blockCols
	block22 = block21 + block12
)

// seven are the products, in the order in which the right factor is packed.
var seven = [packedSums]strassenProduct{
	sumXY:  {sum: sumXY, way: startBoth, c: block11, d: block22, sign: 1},
	onlyX:  {sum: sumVY, way: startC, c: block21, d: block22, sign: -1},
	lessUY: {sum: onlyX, way: startC, c: block12, d: block22, sign: 1},
	lessVX: {sum: onlyY, way: finishD, c: block11, d: block21, sign: 1, row: tileRows},
	onlyY:  {sum: sumUX, way: finishC, c: block12, d: block11, sign: -1, col: halfCols},
	sumUX:  {sum: lessVX, way: onlyC, c: block22, row: tileRows, col: halfCols},
	sumVY:  {sum: lessUY, way: onlyC, c: block11},
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

// worth says for which sizes less time is taken by the eighth product than by what is done in its
// stead where memory is outside of a core's own caches, as fitted to measurements. It adds up
// what is paid for, and compares it with the eighth that is saved, in which arithmetic takes twice
// as long in AVX2: the elements of the right factor, of which 7 quarters are packed for 4, those of
// the left one, and those of C, for each block of the depth.
func (s *strassenVectors) worth(m, n, depth int) bool {
	block := min(depth, 2*half(depth))
	return m >= s.rows && 264/float64(m)+120/float64(n)+64/float64(block) < s.saved
}

// leastHalved is the least of rows anywhere. With fewer two threads would save 2 to 6 %, for
// which results are not to depend on what a row is paired with; many threads, each of which
// reads all of the right factor, less.
const leastHalved = 768

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
	for depths > 0 {
		n := x.streamInPlace(dst, j, from, depths)
		if n == 0 {
			x.streamCopies(w, dst, j, from, depths)
			return
		}
		from, depths = from+n, depths-n
	}
}

// streamInPlace packs depths whose sums can be made of weights as they lie, up to where a term
// ends, and returns how many.
func (x *halves) streamInPlace(dst []float32, j, from, depths int) int {
	first, p, n := termAt(x.terms, x.p+from)
	second, q, m := termAt(x.terms, x.p+x.h+from)
	if first == nil || second == nil || first.right.stride != second.right.stride || !first.right.alongAsStored() || !second.right.alongAsStored() {
		return 0
	}
	n = min(n, m, depths)
	quarter := func(t *term, p, j int) *float32 { // at any alignment, for assembly alone
		return (*float32)(unsafe.Pointer(&t.right.at(p, j)[0]))
	}
	quarters := [4]*float32{quarter(first, p, j), quarter(first, p, j+halfCols), quarter(second, q, j), quarter(second, q, j+halfCols)}
	x.stream(dst, j, from, n, quarters, first.right.stride, tileCols)
	return n
}

// alongAsStored says whether the rows of weights are, unchanged, those of panels.
func (f *factor) alongAsStored() bool { return f.along && f.dtype == kernels.F32 && f.scale == 1 }

// streamCopies packs depths by way of copies of the quarters.
func (x *halves) streamCopies(w *worker, dst []float32, j, from, depths int) {
	mem, panel := w.private, depths*tileCols
	quarter := func(p, j int) *float32 {
		to, n := take(&mem, 2*panel), min(depths, max(0, x.depths(p)-from))
		eachTerm(x.terms, p+from, n, func(t *term, first, at, part int) {
			packRight(w, x.v, to[at*tileCols:], panel, t.right, j, halfCols, first, part)
		})
		clear(to[n*tileCols : panel])
		clear(to[panel+n*tileCols:])
		return &to[0]
	}
	// In this order what is packed asks for what is packed next.
	b11 := quarter(x.p, j)
	b12 := quarter(x.p, j+halfCols)
	b21 := quarter(x.p+x.h, j)
	b22 := quarter(x.p+x.h, j+halfCols)
	x.stream(dst, j, from, depths, [4]*float32{b11, b12, b21, b22}, tileCols, panel)
}

// stream makes the sums of depths of the quarters 11, 12, 21 and 22, whose rows are so many
// elements apart, as are their two panels.
func (x *halves) stream(dst []float32, j, from, depths int, quarters [4]*float32, row, panel int) {
	for i := range 2 {
		at := func(quarter int) *float32 {
			return (*float32)(unsafe.Add(unsafe.Pointer(quarters[quarter]), 4*panel*i))
		}
		ahead, step, advance, turn := x.rightAhead(x.p+i*x.h+from, j+blockCols)
		if ahead == nil {
			ahead = (*byte)(unsafe.Pointer(quarters[0])) // is there: to look for what is not takes time
		}
		x.v.strassen.stream(depths, at(0), at(3), at(1), at(2), row, &dst[(i*x.h+from)*tileCols], halfCols*x.h, ahead, step, advance, turn)
	}
}

// rightAhead says how to ask for blockCols columns from j on of the right factor, of depths
// from p on: line by line, or where depths lie in lines, for as many rows, and then for
// their next lines. There may be fewer columns, or depths: what is asked for in vain does no
// harm. ahead is nil where there are none.
func (x *halves) rightAhead(p, j int) (ahead *byte, step, advance, turn int) {
	t, first, _ := termAt(x.terms, p)
	if t == nil || !direct(t.right.dtype) {
		return nil, 0, 0, 0
	}
	f := &t.right
	line, row := f.dtype.Bytes(tileCols), f.dtype.Bytes(f.stride)
	switch {
	case f.along && j < f.cols:
		return &f.at(first, j)[0], line, row, 0
	case !f.along && j < f.rows:
		return &f.at(j, first)[0], row, 4 * row, line - blockCols*row
	}
	return nil, 0, 0, 0
}

// rightPrivate is what packRight takes of a worker's memory, and leftSpare what packLeft does.
func rightPrivate(h int) int { return 4 * halfCols * h }
func leftSpare(h int) int    { return pairRows * 2 * h }

// blockSize is what multiply takes for so many pairs.
func blockSize(pairs int) int { return max(2, pairs) * pairRows * blockCols }

// packLeft packs the pair of panels from row i on: sum after sum, so many elements
// apart. scales is room for those of the rows, factors is what undoes them, and spare is room for
// rows that are packed from a copy: those at the edges.
func (x *halves) packLeft(dst []float32, apart, i int, scales, factors, spare []float32) {
	x.scale(i, scales, factors)
	done := 0
	if i+pairRows <= x.m {
		done = x.packInPlace(dst, apart, i, scales)
	}
	if rest := x.h - done; rest > 0 {
		rows := bytesOf(x.copyRows(spare, i, done))
		stride := 4 * rows.stride
		x.v.strassen.packPair(&dst[done*tileRows], apart, rest, &rows.at(0, 0)[0], stride, &rows.at(0, rest)[0], stride, &scales[0])
	}
}

// packInPlace packs depths of both halves, eight at a time, up to where one of them has
// fewer before its term ends, and returns how many.
func (x *halves) packInPlace(dst []float32, apart, i int, scales []float32) (done int) {
	for done < x.h {
		first, p, n := termAt(x.terms, x.p+done)
		second, q, m := termAt(x.terms, x.p+x.h+done)
		n = min(n, m, x.h-done) &^ 7
		if n == 0 {
			break
		}
		x.v.strassen.packPair(&dst[done*tileRows], apart, n, &first.left.at(i, p)[0], 4*first.left.stride, &second.left.at(i, q)[0], 4*second.left.stride, &scales[0])
		done += n
	}
	return done
}

// copyRows copies the depths of both halves, from one on, of a pair of panels, with zeros where
// there is nothing.
func (x *halves) copyRows(mem []float32, i, from int) matrix {
	rest := x.h - from
	rows := matrix{mem, pairRows, 2 * rest, 2 * rest}
	clear(mem[:pairRows*2*rest])
	for half := range 2 {
		p := x.p + half*x.h
		eachTerm(x.terms, p+from, max(0, x.depths(p)-from), func(t *term, first, at, n int) {
			for r := range min(pairRows, x.m-i) {
				copy(rows.row(r)[half*rest+at:], floats(t.left.at(i+r, first))[:n])
			}
		})
	}
	return rows
}

// depths returns how many depths there are of a half that starts at p.
func (x *halves) depths(p int) int { return min(x.h, max(0, x.depth-p)) }

// scale computes powers of two: what makes the elements of each of a pair's rows about 1, and
// what undoes it: 0 for a row of zeros, which has to give just that. Rows that are not there have
// the scale 0, and their factors stay as they are.
func (x *halves) scale(i int, scales, factors []float32) {
	n, rows := min(2*x.h, x.depth-x.p), min(pairRows, x.m-i)
	clear(scales)
	eachTerm(x.terms, x.p, n, func(t *term, first, _, part int) {
		done := 0
		if rows == pairRows {
			if done = part &^ 15; done > 0 {
				x.v.strassen.rowSquares(&scales[0], &t.left.at(i, first)[0], 4*t.left.stride, done)
			}
		}
		for r := 0; r < rows && done < part; r++ {
			scales[r] += x.v.sumSquares(floats(t.left.at(i+r, first))[done:part])
		}
	})
	for r, sum := range scales[:rows] {
		e := 0
		switch size := x.size(i+r, sum/float32(n)); {
		case size == 0:
			scales[r], factors[r] = 1, 0
			continue
		case size <= math.MaxFloat32:
			// More or less than 120 has no inverse that is a normal number.
			e = min(max(exponent(size), -120), 120)
		}
		scales[r], factors[r] = powerOfTwo(-e), powerOfTwo(e)
	}
}

// size returns the root of the mean square of a row, or its largest element where squares may
// have been too large or too small.
func (x *halves) size(i int, mean float32) (size float64) {
	if mean > 1e-30 && mean < 1e30 {
		return math.Sqrt(float64(mean))
	}
	eachTerm(x.terms, x.p, min(2*x.h, x.depth-x.p), func(t *term, first, _, part int) {
		for _, y := range floats(t.left.at(i, first))[:part] {
			size = max(size, math.Abs(float64(y)))
		}
	})
	return size
}

// exponent returns the e for which a normal x is at least 2^(e-1), and less than 2^e.
func exponent(x float64) int { return int(math.Float64bits(x)>>52) - 1022 }

// powerOfTwo returns 2^e, a normal number.
func powerOfTwo(e int) float32 { return math.Float32frombits(uint32(127+e) << 23) }

// rowsAhead are rows of blockCols columns that will be needed: so many for each pair that
// goes through the product that asks for them, from an address on, which nothing is read from
// otherwise. Elsewhere than beside arithmetic, asking takes as long as waiting. Assembly
// knows the layout (gen/strassen.go).
type rowsAhead struct {
	at           uintptr
	stride, each int
}

// multiply computes m rows by blockCols columns of the product, c: each row times its
// factor, plus c's old value where add is set. Rows lie in left as packLeft leaves them, a block
// of columns in right. block has room for all whole pairs, and for two at least: an incomplete
// pair is computed in the first, goes to the second, and is copied from there. far is what the
// products ask for.
func (x *halves) multiply(m int, left []float32, apart int, right, block, c []float32, ldc int, factors []float32, add bool, far *[packedSums]rowsAhead) {
	run := func(product, n, pairs, from int, c []float32, ldc int, add bool, far *[packedSums]rowsAhead) {
		x.v.strassen.multiply((*byte)(unsafe.Pointer(&seven[product])), n, pairs, x.h, &left[from*tileRows*x.h], apart, &right[product*halfCols*x.h],
			&block[0], &c[0], ldc, &factors[from*pairRows], add, (*byte)(unsafe.Pointer(far)))
	}
	whole := m / pairRows
	if whole > 0 {
		run(0, len(seven), whole, 0, c, ldc, add, far)
	}
	edge := block[pairRows*blockCols:]
	switch rest := m - whole*pairRows; {
	case rest == 0:
		return
	case rest <= tileRows:
		for _, i := range upper {
			run(i, 1, 1, whole, edge, blockCols, false, &noRows)
		}
	default:
		run(0, len(seven), 1, whole, edge, blockCols, false, &noRows)
	}
	for i := whole * pairRows; i < m; i++ {
		row := c[i*ldc:][:blockCols]
		if add {
			x.v.add(row, row, edge[:blockCols])
		} else {
			copy(row, edge)
		}
		edge = edge[blockCols:]
	}
}

// upper are the products that the upper quarters of the result need where the lower panel of a
// pair is nothing but zeros.
var upper = [...]int{sumXY, lessUY, onlyY, sumVY}

// noRows asks for nothing.
var noRows [packedSums]rowsAhead

// strassen is a gemm by products of halves.
type strassen gemm

// pairsAtOnce returns how many pairs a task packs, at most.
func (s *strassenVectors) pairsAtOnce(depth int) int {
	return max(leastPairs, s.cache/4/leftSize(half(depth)))
}

const leastPairs = 3

// strassenCols returns how many columns are packed at a time.
func strassenCols(n, depth int) int {
	return min(n/blockCols, max(1, packBudget/rightSize(half(depth)))) * blockCols
}

func strassenNeed(v *vectors, n, depth int) need {
	h, pairs := half(depth), v.strassen.pairsAtOnce(depth)
	return need{
		shared:  strassenCols(n, depth) / blockCols * rightSize(h),
		private: max(aligned(pairRows)+leftSpare(h)+blockSize(pairs)+pairs*(aligned(pairRows)+leftSize(h)), rightPrivate(h)),
	}
}

// run computes the columns that are whole blocks, and returns their number.
func (g *strassen) run(p *pool, mem []float32) int {
	cols, end := strassenCols(g.n, g.depth), g.n/blockCols*blockCols
	g.packB = mem
	g.halves = halves{v: g.v, terms: g.terms, m: g.m, depth: g.depth}
	for g.j0 = 0; g.j0 < end; g.j0 += cols {
		g.nb = min(cols, end-g.j0)
		g.cuts = guided(g.cuts[:0], ceil(g.m, pairRows), g.v.strassen.pairsAtOnce(g.depth), len(p.workers))
		g.over = min(ceil(len(p.workers), len(g.cuts)-1), g.nb/blockCols)
		for g.halves.p = 0; g.halves.p < g.depth; g.halves.p += 2 * g.halves.h {
			g.halves.h = half(g.depth - g.halves.p) // never more than the first
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
	from, to := portion(h/8, packParts, part)
	from, to = 8*from, 8*to
	g.halves.packRight(w, g.packB[block*rightSize(h):], g.j0+block*blockCols, from, to-from)
}

// strassenMultiply computes one rectangle of C, for a block of the depth.
type strassenMultiply gemm

func (g *strassenMultiply) do(w *worker, task int) {
	i, j := task/g.over, task%g.over
	blocks := g.nb / blockCols
	b0, b1 := portion(blocks, g.over, j)
	pairs, row := g.cuts[i+1]-g.cuts[i], g.cuts[i]*pairRows
	m := min(pairs*pairRows, g.m-row)

	x := &g.halves
	add := g.add || x.p > 0
	if x.p == 0 && (g.base.present() || g.bias != nil) {
		(*gemmMultiply)(g).start(row, m, g.j0+b0*blockCols, (b1-b0)*blockCols)
		add = true
	}
	mem := w.private
	block, factors, scales := take(&mem, blockSize(pairs)), take(&mem, pairs*pairRows), take(&mem, pairRows)
	spare := take(&mem, leftSpare(x.h))
	apart := pairs * tileRows * x.h
	for pair := range pairs {
		x.packLeft(mem[pair*tileRows*x.h:], apart, row+pair*pairRows, scales, factors[pair*pairRows:][:pairRows], spare)
	}
	w.after.set(x, row+m, b1-b0)
	for b := b0; b < b1; b++ {
		w.after.part(&w.asks, b-b0, pairs)
		c := g.c[row*g.ldc+g.j0+b*blockCols:]
		x.multiply(m, mem, apart, g.packB[b*rightSize(x.h):], block, c, g.ldc, factors, add, &w.asks)
	}
}

// nextLeft are the rows of the left factor that the next task packs. Each product asks for so
// many rows of a pair, in blockCols columns, and all of a task for all of them, where there are
// enough. There may be less to a row in its last columns: what is asked for in vain does no
// harm.
type nextLeft struct {
	columns [2 * strassenDepth / blockCols]rowsAhead // of the first row
	n       int                                      // of them
	each    int
	rows    int // how many there are
}

// set is for a task of so many blocks, after which row is the next.
func (l *nextLeft) set(x *halves, row, blocks int) {
	l.n, l.rows = 0, x.m-row
	eachTerm(x.terms, x.p, min(2*x.h, x.depth-x.p), func(t *term, from, _, n int) {
		for j := from; j < from+n && l.rows > 0 && l.n < len(l.columns); j += blockCols {
			l.columns[l.n] = rowsAhead{at: uintptr(unsafe.Pointer(&t.left.at(row, j)[0])), stride: t.left.stride}
			l.n++
		}
	})
	l.each = ceil(pairRows, min(pairRows, max(1, blocks*packedSums/max(1, l.n))))
}

// part is what a block of so many pairs asks for.
func (l *nextLeft) part(asks *[packedSums]rowsAhead, block, pairs int) {
	parts := pairRows / l.each
	for i := range asks {
		column, row := (block*packedSums+i)/parts, (block*packedSums+i)%parts*l.each*pairs
		if asks[i] = (rowsAhead{}); column < l.n && row < l.rows {
			asks[i] = l.columns[column]
			asks[i].at += uintptr(4 * row * asks[i].stride)
			asks[i].each = l.each
		}
	}
}
