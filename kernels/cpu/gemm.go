package cpu

// The product of matrices, after Goto and van de Geijn (2008): both factors
// are packed into panels as wide as a micro-tile, so that the micro-kernel
// reads memory in order; a block of left panels and a right one stay in the
// second-level cache. The sum over the depth is cut
// into blocks of at most maxDepth, each kept in registers and then added to C.
//
// The depth runs on over the terms of a sum of products: the packed panels of
// (X, W) are followed by those of (U, B), so a low-rank term costs its own
// arithmetic and no second pass over C.

const (
	maxDepth   = 1040         // few passes over C; a right panel streams from the second cache
	taskRows   = 10           // panels of tileRows per task: with the depth, half a 512 KiB cache
	leastPacks = 6            // packCols that are packed at a time, at least
	packCols   = 2 * tileCols // of the right factor per task that packs: a group of quantised elements
	packBudget = 2 << 20      // elements that the packed right factor may take
)

// left is the left factor of a run of micro-tiles: panels of tileRows rows,
// panel elements apart; rows and depths lie row and step elements apart.
type left struct {
	data             []float32
	panel, row, step int
}

// right is the right factor: panels of tileCols columns.
type right struct {
	data        []float32
	panel, step int
}

// A packed factor lies block after block of the depth, and in a block panel
// after panel, so that what the micro-kernel needs next lies next in memory.

// packedLeft returns a block of k depths, the first of which is p, of a
// packed factor of so many panels, from one panel on.
func packedLeft(data []float32, panels, p, k, panel int) left {
	return left{data[(p*panels+panel*k)*tileRows:], k * tileRows, 1, tileRows}
}

func packedRight(data []float32, panels, p, k, panel int) right {
	return right{data[(p*panels+panel*k)*tileCols:], k * tileCols, tileCols}
}

// tiles computes an m×n block of C = alpha·A·B (+ C where add is set), sums of
// k products. Factors are padded to whole panels; C is not.
func (w *worker) tiles(v *vectors, m, n, k int, a left, b right, c []float32, ldc int, alpha float32, add bool) {
	packed := a.row == 1 && a.step == tileRows && b.step == tileCols
	for j := 0; j < n; {
		at, width := j/tileCols*b.panel, tileCols
		if v.tileWide != nil && j+2*tileCols <= n {
			width = 2 * tileCols
		}
		ahead := at // of what comes next
		if packed && j+width < n {
			ahead += width / tileCols * b.panel
		}
		for i := 0; i < m; i += tileRows {
			ap, cp := &a.data[i/tileRows*a.panel], c[i*ldc+j:]
			next := &b.data[min(ahead+i/tileRows*(width/8)*k, len(b.data)-1)]
			switch {
			case i+tileRows > m || j+width > n:
				for e := 0; e < width && j+e < n; e += tileCols {
					w.edgeTile(v, min(tileRows, m-i), min(tileCols, n-j-e), k, ap, a.row, a.step, &b.data[at+e/tileCols*b.panel], b.step, cp[e:], ldc, alpha, add)
				}
			case v.tileTall != nil && width == tileCols && i+2*tileRows <= m:
				v.tileTall(k, ap, a.row, a.step, a.panel, &b.data[at], b.step, &cp[0], ldc, alpha, add)
				i += tileRows
			case packed && width > tileCols && v.large && i+2*tileRows <= m:
				v.tilePackedLarge(k, ap, &b.data[at], b.panel, &cp[0], ldc, alpha, add, next)
				i += tileRows
			case packed && width > tileCols:
				v.tilePackedWide(k, ap, &b.data[at], b.panel, &cp[0], ldc, alpha, add, next)
			case width > tileCols:
				v.tileWide(k, ap, a.row, a.step, &b.data[at], b.step, b.panel, &cp[0], ldc, alpha, add)
			case packed:
				v.tilePacked(k, ap, &b.data[at], &cp[0], ldc, alpha, add, next)
			default:
				v.tile(k, ap, a.row, a.step, &b.data[at], b.step, &cp[0], ldc, alpha, add)
			}
		}
		j += width
	}
}

// edgeTile computes a whole tile aside, in the same order of operations, and
// copies the part that is there.
func (w *worker) edgeTile(v *vectors, m, n, k int, a *float32, row, astep int, b *float32, bstep int, c []float32, ldc int, alpha float32, add bool) {
	if add {
		for i := range m {
			copy(w.edge[i*tileCols:][:n], c[i*ldc:])
		}
	}
	v.tile(k, a, row, astep, b, bstep, &w.edge[0], tileCols, alpha, add)
	for i := range m {
		copy(c[i*ldc:][:n], w.edge[i*tileCols:])
	}
}

// depthBlock returns the length of the blocks that a depth is cut into, at most so
// long and nearly equal; the last one may be shorter.
func depthBlock(depth, most int) int {
	blocks := ceil(depth, most)
	return (ceil(depth, max(1, blocks)) + 7) &^ 7
}

// packLeftPanel packs one panel of a sum of products with all its depth: rows
// i to i+count.
func packLeftPanel(v *vectors, dst []float32, terms []term, depth, panels, panel, i, count int) {
	block := depthBlock(depth, maxDepth)
	for p := 0; p < depth; p += block {
		k := min(block, depth-p)
		packLeftBlock(v, dst[(p*panels+panel*k)*tileRows:], terms, p, k, i, count)
	}
}

// packLeftBlock packs depths p to p+k of one panel.
func packLeftBlock(v *vectors, dst []float32, terms []term, p, k, i, count int) {
	eachTerm(terms, p, k, func(t *term, first, at, n int) {
		packLeft(v, dst[at*tileRows:], t.left, i, count, first, n)
	})
}

// packRightPanels packs columns j to j+n, from one panel on, with all their depth.
func packRightPanels(w *worker, v *vectors, dst []float32, terms []term, depth, panels, panel, j, n int) {
	block := depthBlock(depth, maxDepth)
	for p := 0; p < depth; p += block {
		k := min(block, depth-p)
		d := dst[(p*panels+panel*k)*tileCols:]
		eachTerm(terms, p, k, func(t *term, first, at, part int) {
			packRight(w, v, d[at*tileCols:], k*tileCols, t.right, j, n, first, part)
		})
	}
}

// eachTerm calls f for every term that has a part in depths p to p+k: n depths
// of it, from its own first one on, lie at `at` in the range.
func eachTerm(terms []term, p, k int, f func(t *term, first, at, n int)) {
	start := 0 // of the term
	for i := range terms {
		t := &terms[i]
		from, to := max(p, start), min(p+k, start+t.depth)
		if from < to {
			f(t, from-start, from-p, to-from)
		}
		start += t.depth
	}
}

// termAt returns the term that has depth p of the sum: from its own depth `from` on, rest
// depths. There is none beyond the end.
func termAt(terms []term, p int) (t *term, from, rest int) {
	for i := range terms {
		if t = &terms[i]; p < t.depth {
			return t, p, t.depth - p
		}
		p -= t.depth
	}
	return nil, 0, 0
}

func ceil(a, b int) int { return (a + b - 1) / b }

// portion returns where the i-th of so many nearly equal parts of n starts and ends.
func portion(n, parts, i int) (from, end int) { return i * n / parts, (i + 1) * n / parts }

// evenParts returns in how many parts of at most `most` n is cut, as many for each thread.
func evenParts(n, most, threads int) int { return min(n, ceil(ceil(n, threads), most)*threads) }

// term is one product of the sum.
type term struct {
	left, right factor
	depth       int
	pieces      int // that the right factor is cut into (pieces.go)
}

// gemm is C = Base + bias + alpha·Σ A·B. The right factor is packed first, by
// all threads; a task then takes a block of rows and packs its part of the left
// factor for itself, where it stays in its cache. Where the right factor is
// large, C is computed in ranges of columns.
type gemm struct {
	v     *vectors
	terms []term
	depth int // of all terms
	m, n  int
	c     []float32
	ldc   int
	alpha float32
	add   bool   // C's old value counts
	base  matrix // else this one, where present
	bias  []float32

	packB  []float32
	j0, nb int   // the columns in work
	cuts   []int // panels of rows where blocks start, and their end
	over   int   // blocks of columns
	halves halves

	pieced    pieced
	packParts int // ranges of panels that are packed, in pieces
}

// columnsAtOnce returns how many columns of the right factor are packed at a time.
func columnsAtOnce(n, depth int) int {
	return min(ceil(n, tileCols)*tileCols, max(packBudget/max(1, depth)/packCols, leastPacks)*packCols)
}

func gemmNeed(m, n, depth int) need {
	return need{
		shared:  columnsAtOnce(n, depth) * depth,
		private: min(ceil(m, tileRows), taskRows) * tileRows * depthBlock(depth, maxDepth),
	}
}

// run computes the columns from one on, with working memory of gemmNeed.
func (g *gemm) run(p *pool, mem []float32, from int) {
	cols := columnsAtOnce(g.n, g.depth)
	g.packB = mem[:cols*g.depth]
	for g.j0 = from; g.j0 < g.n; g.j0 += cols {
		g.nb = min(cols, g.n-g.j0)
		if g.m*g.nb*g.depth < smallWork {
			g.split(1)
			p.inline((*gemmPack)(g), ceil(g.nb, packCols))
			p.inline((*gemmMultiply)(g), g.tasks())
			continue
		}
		g.split(len(p.workers))
		p.run((*gemmPack)(g), ceil(g.nb, packCols))
		p.run((*gemmMultiply)(g), g.tasks())
	}
}

// smallWork is how many multiply-adds are not worth waking threads for.
const smallWork = 200_000

// split cuts the columns in work into tasks: blocks of rows, and where these are
// too few, of columns too. No element depends on where the cuts are.
func (g *gemm) split(threads int) {
	g.cuts = guided(g.cuts[:0], ceil(g.m, tileRows), taskRows, threads)
	g.over = min(ceil(threads, len(g.cuts)-1), ceil(g.nb, tileCols))
}

func (g *gemm) tasks() int { return (len(g.cuts) - 1) * g.over }

// guided cuts n into ranges, equally many for each thread, of at most `most`, which is more than 2, and
// ever smaller ones towards the end of a thread's part, so that no thread waits
// long for another to finish its last one, which may be late for reasons of its
// own (Polychronopoulos and Kuck, 1987).
func guided(cuts []int, n, most, threads int) []int {
	const least = 2
	parts := min(threads, n)
	for p := range parts {
		at, _ := portion(n, parts, p)
		for rest := ceil(n, parts); rest > 0; { // the last range may have one less
			size := min(most, rest/2)
			if size < least {
				size = rest
			}
			cuts = append(cuts, at)
			at, rest = at+size, rest-size
		}
	}
	return append(cuts, n)
}

// gemmPack packs panels of the right factor.
type gemmPack gemm

func (g *gemmPack) do(w *worker, task int) {
	j := task * packCols
	packRightPanels(w, g.v, g.packB, g.terms, g.depth, ceil(g.nb, tileCols), j/tileCols, g.j0+j, min(packCols, g.nb-j))
}

// gemmMultiply computes one rectangle of C, over the whole depth.
type gemmMultiply gemm

func (g *gemmMultiply) do(w *worker, task int) {
	colPanels := ceil(g.nb, tileCols)
	i, j := task/g.over, task%g.over
	r0, r1 := g.cuts[i], g.cuts[i+1]
	c0, c1 := portion(colPanels, g.over, j)
	row, col := r0*tileRows, c0*tileCols
	m, n := min(r1*tileRows, g.m)-row, min(c1*tileCols, g.nb)-col

	c := g.c[row*g.ldc+g.j0+col:]
	add := g.add
	if g.base.present() || g.bias != nil {
		g.start(row, m, g.j0+col, n)
		add = true
	}
	block := depthBlock(g.depth, maxDepth)
	for p := 0; p < g.depth; p += block {
		k := min(block, g.depth-p)
		for r := 0; r < m; r += tileRows {
			packLeftBlock(g.v, w.private[r*k:], g.terms, p, k, row+r, min(tileRows, m-r))
		}
		w.tiles(g.v, m, n, k, packedLeft(w.private, 1, 0, k, 0), packedRight(g.packB, colPanels, p, k, c0), c, g.ldc, g.alpha, add || p > 0)
	}
}

// start sets a rectangle of C to Base + bias.
func (g *gemmMultiply) start(i, m, j, n int) {
	for r := i; r < i+m; r++ {
		startRow(g.v, g.c[r*g.ldc+j:][:n], g.base, g.bias, r, j)
	}
}

// startRow sets part of a row of C, from column j on, to Base + bias.
func startRow(v *vectors, c []float32, base matrix, bias []float32, r, j int) {
	switch {
	case !base.present() && bias == nil:
		clear(c)
	case !base.present():
		copy(c, bias[j:])
	case bias == nil:
		copy(c, base.row(r)[j:][:len(c)])
	default:
		v.add(c, base.row(r)[j:][:len(c)], bias[j:][:len(c)])
	}
}
