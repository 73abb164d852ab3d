package cpu

// The product of matrices, after Goto and van de Geijn (2008): both factors
// are packed into panels as wide as a micro-tile, so that the micro-kernel
// reads memory in order; a block of panels stays in the second-level cache and
// one panel of the right factor in the first. The sum over the depth is cut
// into blocks of at most maxDepth, each kept in registers and then added to C.
//
// The depth runs on over the terms of a sum of products: the packed panels of
// (X, W) are followed by those of (U, B), so a low-rank term costs its own
// arithmetic and no second pass over C.

const (
	maxDepth   = 304     // a right panel and two left ones fit 32 KiB
	taskRows   = 16      // panels of tileRows per task: with the depth, half a 512 KiB cache
	taskCols   = 12      // panels of tileCols per task
	packBudget = 2 << 20 // elements that one packed factor may take
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
	for j := 0; j < n; j += tileCols {
		bp := &b.data[j/tileCols*b.panel]
		for i := 0; i < m; i += tileRows {
			ap := &a.data[i/tileRows*a.panel]
			if i+tileRows > m || j+tileCols > n {
				w.edgeTile(v, min(tileRows, m-i), min(tileCols, n-j), k, ap, a.row, a.step, bp, b.step, c[i*ldc+j:], ldc, alpha, add)
				continue
			}
			if packed {
				v.tilePacked(k, ap, bp, &c[i*ldc+j], ldc, alpha, add)
			} else {
				v.tile(k, ap, a.row, a.step, bp, b.step, &c[i*ldc+j], ldc, alpha, add)
			}
		}
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

// depthBlock returns the length of the blocks that a depth is cut into, nearly
// equal; the last one may be shorter.
func depthBlock(depth int) int {
	blocks := ceil(depth, maxDepth)
	return (ceil(depth, max(1, blocks)) + 7) &^ 7
}

// packLeftPanel packs one panel of a sum of products with all its depth: rows
// i to i+count.
func packLeftPanel(v *vectors, dst []float32, terms []term, depth, panels, panel, i, count int) {
	eachBlock(terms, depth, func(t *term, p, first, at, n, k int) {
		d := dst[(p*panels+panel*k)*tileRows+at*tileRows:]
		packLeft(v, d, t.left, i, count, first, n)
	})
}

// packRightPanel does so for columns j to j+count.
func packRightPanel(v *vectors, dst []float32, terms []term, depth, panels, panel, j, count int) {
	eachBlock(terms, depth, func(t *term, p, first, at, n, k int) {
		d := dst[(p*panels+panel*k)*tileCols+at*tileCols:]
		packRight(v, d, t.right, j, count, first, n)
	})
}

// eachBlock calls f for every part of a term in a block of the depth: the
// block starts at p and has k depths; n of them, from at on in the block, are
// those of the term from first on.
func eachBlock(terms []term, depth int, f func(t *term, p, first, at, n, k int)) {
	block := depthBlock(depth)
	start := 0
	for i := range terms {
		t := &terms[i]
		for first := 0; first < t.depth; {
			at := (start + first) % block
			p := start + first - at
			k := min(block, depth-p)
			n := min(k-at, t.depth-first)
			f(t, p, first, at, n, k)
			first += n
		}
		start += t.depth
	}
}

func ceil(a, b int) int { return (a + b - 1) / b }

// term is one product of the sum.
type term struct {
	left, right factor
	depth       int
}

// gemm is C = Base + bias + alpha·Σ A·B over packed factors. Where C is large,
// it is computed in blocks whose packed factors fit the budget.
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

	packA, packB   []float32
	i0, mb, j0, nb int // the block in work
	packLeftToo    bool
	down, over     int // tasks of a block
}

// blocks returns the rows and columns that are packed at a time.
func blocks(m, n, depth int) (rows, cols int) {
	rows = ceil(m, tileRows) * tileRows
	cols = ceil(n, tileCols) * tileCols
	rows = min(rows, max(packBudget/max(1, depth)/tileRows, taskRows)*tileRows)
	cols = min(cols, max(packBudget/max(1, depth)/tileCols, taskCols)*tileCols)
	return rows, cols
}

func gemmNeed(m, n, depth int) int {
	rows, cols := blocks(m, n, depth)
	return aligned(rows*depth) + aligned(cols*depth)
}

// run computes the product with working memory of gemmNeed.
func (g *gemm) run(p *pool, mem []float32) {
	rows, cols := blocks(g.m, g.n, g.depth)
	g.packA, g.packB = take(&mem, rows*g.depth), take(&mem, cols*g.depth)
	for g.j0 = 0; g.j0 < g.n; g.j0 += cols {
		g.nb = min(cols, g.n-g.j0)
		for g.i0 = 0; g.i0 < g.m; g.i0 += rows {
			g.mb = min(rows, g.m-g.i0)
			g.block(p, g.j0 == 0 || rows < g.m, g.i0 == 0)
		}
	}
}

// block packs what is not packed yet and multiplies.
func (g *gemm) block(p *pool, packA, packB bool) {
	tasks := 0
	if packB {
		tasks = ceil(g.nb, tileCols)
	}
	if g.packLeftToo = packA; packA {
		tasks += ceil(g.mb, tileRows)
	}
	if g.mb*g.nb*g.depth < smallWork {
		g.split(1)
		p.inline((*gemmPack)(g), tasks)
		p.inline((*gemmMultiply)(g), g.down*g.over)
		return
	}
	g.split(len(p.workers))
	p.run((*gemmPack)(g), tasks)
	p.run((*gemmMultiply)(g), g.down*g.over)
}

// smallWork is how many multiply-adds are not worth waking threads for.
const smallWork = 200_000

// split cuts a block of C into tasks, the same number for each thread if it
// can be. No element depends on where the cuts are.
func (g *gemm) split(threads int) {
	rows := ceil(g.mb, tileRows)
	g.down, g.over = ceil(rows, taskRows), ceil(ceil(g.nb, tileCols), taskCols)
	for more := range threads {
		if (g.down+more)*g.over%threads == 0 {
			g.down = min(rows, g.down+more)
			return
		}
	}
}

// gemmPack packs one panel of a block.
type gemmPack gemm

func (g *gemmPack) do(_ *worker, task int) {
	if g.packLeftToo {
		panels := ceil(g.mb, tileRows)
		if task < panels {
			i := task * tileRows
			packLeftPanel(g.v, g.packA, g.terms, g.depth, panels, task, g.i0+i, min(tileRows, g.mb-i))
			return
		}
		task -= panels
	}
	j := task * tileCols
	packRightPanel(g.v, g.packB, g.terms, g.depth, ceil(g.nb, tileCols), task, g.j0+j, min(tileCols, g.nb-j))
}

// gemmMultiply computes one rectangle of a block of C, over the whole depth.
type gemmMultiply gemm

func (g *gemmMultiply) do(w *worker, task int) {
	rowPanels, colPanels := ceil(g.mb, tileRows), ceil(g.nb, tileCols)
	i, j := task%g.down, task/g.down
	r0, r1 := i*rowPanels/g.down, (i+1)*rowPanels/g.down
	c0, c1 := j*colPanels/g.over, (j+1)*colPanels/g.over
	row, col := r0*tileRows, c0*tileCols
	m, n := min(r1*tileRows, g.mb)-row, min(c1*tileCols, g.nb)-col

	at := (g.i0+row)*g.ldc + g.j0 + col
	add := g.add
	if g.base.present() || g.bias != nil {
		g.start(g.i0+row, m, g.j0+col, n)
		add = true
	}
	block := depthBlock(g.depth)
	for p := 0; p < g.depth; p += block {
		k := min(block, g.depth-p)
		w.tiles(g.v, m, n, k, packedLeft(g.packA, rowPanels, p, k, r0), packedRight(g.packB, colPanels, p, k, c0), g.c[at:], g.ldc, g.alpha, add || p > 0)
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
