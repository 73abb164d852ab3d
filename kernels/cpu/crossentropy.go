package cpu

import (
	"math"
	"slices"

	"graft/kernels"
)

// Cross entropy is attention to the vocabulary: with p the softmax of a row's
// logits, the gradient by the row is Σ p_v·W_v - W_target. So the logits are
// made in blocks, and loss and DX come from one pass over the vocabulary with
// a running maximum, as in attention. The target is kept out of the sums: its
// coefficient p_target - 1 is then -Σ_{v≠target} p_v, without cancellation
// however sure the model is.
//
// DW needs the finished sums of every row, so where a weight is trained, a
// second pass makes the logits again.
const (
	lossWords = 20 * tileCols // words of a block of logits: one depth of the product with W
	lossRows  = 8             // panels of rows per task
	lossPack  = 1 << 20       // elements of packed weights at a time
)

type crossEntropy struct {
	v       *vectors
	terms   []headTerm
	logit   []term // the same as products
	depth   int    // of all terms
	vocab   int
	n       int
	targets []int32
	loss    matrix
	softCap float32

	packX, packW   []float32 // left panels of rows, right panels of words
	max, sum       []float32 // of each row; sum without the target
	target         []float32 // the target's logit
	coefficient    []float32 // p_target - 1, times the soft cap's slope
	factor         []float32 // 1/Σ e^(z - max)
	grads          []float32 // [n, lossWords]: ∂loss/∂z of a block
	words0, wordsN int       // the words in work
	cuts           []int     // panels of rows where tasks start, and their end
	phase          int
	dx, dw         bool

	z           matrix // a block of logits that a library makes
	first, rows int    // the rows in it

	halves lossHalves
	pieces lossPieces

	inPieces bool
}

type headTerm struct {
	x, dx, dw matrix
	w         weights
	scale     float32
	wide      matrix    // the words in work, for a library
	wordRows  []float32 // packed along: [panels of k][words][tileCols]
	xRows     []float32 // packed along, for dw
}

const (
	lossPackX = iota
	lossPackWords
	lossForward
	lossFinish
	lossGrads
	lossWeights

	lossSoften // with a library's products
	lossSlopes

	lossPackPairs // with products of halves
	lossPackBlocks
	lossForwardHalves

	lossPackRuns // with products in pieces
	lossForwardPieces
)

func lossWordsAtOnce(depth, vocab int) int {
	return min(max(1, lossPack/max(1, depth)/lossWords), ceil(vocab, lossWords)) * lossWords
}

func crossEntropyNeed(v *vectors, o *kernels.CrossEntropy) need {
	n := o.Targets.Rows
	if n == 0 {
		return need{}
	}
	depth, widest := 0, 0
	for _, t := range o.Terms {
		depth += t.X.Cols
		widest = max(widest, t.X.Cols)
	}
	vocab := o.Terms[0].W.Rows
	if v.blas.takes(n, vocab, depth) {
		return v.blas.lossNeed(n, vocab, depth, widest)
	}
	anyDW := slices.ContainsFunc(o.Terms, func(t kernels.HeadTerm) bool { return t.DW != nil })
	var n1 need
	byHalves := lossByHalves(v, o, n, vocab, depth)
	if byHalves {
		n1 = lossHalvesNeed(v, o, n, vocab, depth)
	}
	inPieces := v.pieces.takes(n, vocab, depth)
	if inPieces {
		n1 = lossPiecesNeed(o, n, vocab)
	}
	n1.shared += 5 * aligned(n)
	n1.private = max(n1.private, widest)
	if !plainly(byHalves, inPieces, vocab, anyDW) {
		return n1
	}
	words := lossWordsAtOnce(depth, vocab)
	if inPieces {
		blocks, _, _ := lossSizes(o.Terms)
		n1.private = max(n1.private, sumWords+ceil(lossRows*tileRows, groupRows)*blocks*leftBlock)
	}
	n1.private = max(n1.private, lossRows*tileRows*lossWords+lossWords+aligned(widest))
	n1.shared += aligned(ceil(n, tileRows)*tileRows*depth) + aligned(words*depth)
	for _, t := range o.Terms {
		padded := ceil(t.X.Cols, tileCols) * tileCols
		if t.DX != nil {
			n1.shared += aligned(padded * words)
		}
		if t.DW != nil {
			n1.shared += aligned(padded * n)
		}
	}
	if anyDW {
		n1.shared += aligned(n*lossWords + tileRows)
	}
	return n1
}

// plainly says whether some of the products are computed the plain way.
func plainly(byHalves, inPieces bool, vocab int, trained bool) bool {
	return trained || !inPieces && (!byHalves || vocab%blockCols > 0)
}

func (b *Backend) crossEntropy(o *kernels.CrossEntropy, mem []float32) {
	if o.Targets.Rows == 0 {
		return
	}
	c := &b.loss
	mem = c.set(b.v, o, mem)
	rowPanels := ceil(c.n, tileRows)
	c.cuts = guided(c.cuts[:0], rowPanels, lossRows, len(b.pool.workers))
	tasks := len(c.cuts) - 1
	if b.v.blas.takes(c.n, c.vocab, c.depth) {
		b.crossEntropyBLAS(c, tasks, mem)
		return
	}

	byHalves := lossByHalves(c.v, o, c.n, c.vocab, c.depth)
	c.inPieces = c.v.pieces.takes(c.n, c.vocab, c.depth)
	if plainly(byHalves, c.inPieces, c.vocab, c.dw) {
		mem = c.pack(mem)
	}
	c.words0 = 0
	if byHalves {
		b.lossHalves(c, mem)
	}
	if c.inPieces {
		b.lossPieces(c, o, mem)
	}
	if c.words0 < c.vocab || c.dw {
		c.run(b.pool, lossPackX, rowPanels)
	}
	for step := lossWordsAtOnce(c.depth, c.vocab); c.words0 < c.vocab; c.words0 += step {
		c.wordsN = min(step, c.vocab-c.words0)
		c.run(b.pool, lossPackWords, ceil(c.wordsN, tileCols))
		c.run(b.pool, lossForward, tasks)
	}
	c.run(b.pool, lossFinish, tasks)
	if !c.dw {
		return
	}
	c.dx = false
	step := lossWords
	if c.inPieces {
		step = runWords
	}
	for c.words0 = 0; c.words0 < c.vocab; c.words0 += step {
		c.wordsN = min(step, c.vocab-c.words0)
		if c.inPieces {
			c.run(b.pool, lossPackRuns, ceil(c.wordsN, partCols))
		} else {
			c.run(b.pool, lossPackWords, ceil(c.wordsN, tileCols))
		}
		c.run(b.pool, lossGrads, tasks)
		c.run(b.pool, lossWeights, ceil(c.wordsN, tileRows))
	}
}

func (c *crossEntropy) run(p *pool, phase, tasks int) {
	c.phase = phase
	if c.n*c.depth*min(c.vocab, lossWords) < smallWork {
		p.inline(c, tasks)
		return
	}
	p.run(c, tasks)
}

// set takes what every row needs off the working memory, and returns the rest.
func (c *crossEntropy) set(v *vectors, o *kernels.CrossEntropy, mem []float32) []float32 {
	*c = crossEntropy{v: v, cuts: c.cuts, halves: lossHalves{cuts: c.halves.cuts}, pieces: lossPieces{cuts: c.pieces.cuts}, terms: c.terms[:0], logit: c.logit[:0], n: o.Targets.Rows, vocab: o.Terms[0].W.Rows,
		targets: indices(o.Targets), loss: view(o.Loss), softCap: float32(o.SoftCap)}
	for _, t := range o.Terms {
		c.terms = append(c.terms, headTerm{x: view(t.X), dx: optional(t.DX), dw: optional(t.DW), w: weightsOf(t.W),
			scale: float32(t.Scale * o.LogitScale)})
		c.logit = append(c.logit, term{left: factor{weights: bytesOf(view(t.X))},
			right: factor{weights: weightsOf(t.W), scale: float32(t.Scale * o.LogitScale)}, depth: t.X.Cols})
		c.depth += t.X.Cols
		c.dx, c.dw = c.dx || t.DX != nil, c.dw || t.DW != nil
	}
	c.max, c.sum, c.target = take(&mem, c.n), take(&mem, c.n), take(&mem, c.n)
	c.coefficient, c.factor = take(&mem, c.n), take(&mem, c.n)
	clear(c.sum)
	for i := range c.max {
		c.max[i] = float32(math.Inf(-1))
	}
	return mem
}

// pack gives the packed factors their places, and returns the rest of the memory.
func (c *crossEntropy) pack(mem []float32) []float32 {
	words := lossWordsAtOnce(c.depth, c.vocab)
	c.packX, c.packW = take(&mem, ceil(c.n, tileRows)*tileRows*c.depth), take(&mem, words*c.depth)
	for i := range c.terms {
		t := &c.terms[i]
		padded := ceil(t.x.cols, tileCols) * tileCols
		if t.dx.present() {
			t.wordRows = take(&mem, padded*words)
		}
		if t.dw.present() {
			t.xRows = take(&mem, padded*c.n)
		}
	}
	if c.dw {
		c.grads = take(&mem, c.n*lossWords+tileRows)
	}
	return mem
}

func (c *crossEntropy) do(w *worker, task int) {
	switch c.phase {
	case lossPackX:
		c.packRows(w, task)
	case lossPackWords:
		c.packWords(w, task)
	case lossWeights:
		c.weights(w, task)
	case lossSoften, lossSlopes:
		c.blockRows(w, task)
	case lossPackPairs:
		c.packPairs(w, task)
	case lossPackBlocks:
		c.packBlocks(w, task)
	case lossForwardHalves:
		c.forwardHalves(w, task)
	case lossPackRuns:
		c.packRuns(w, task)
	case lossForwardPieces:
		c.forwardPieces(w, task)
	default:
		first := c.cuts[task] * tileRows
		n := min(c.cuts[task+1]*tileRows, c.n) - first
		switch c.phase {
		case lossForward:
			c.forward(w, first, n)
		case lossFinish:
			for i := first; i < first+n; i++ {
				c.finish(w, i)
			}
		case lossGrads:
			c.gradients(w, first, n)
		}
	}
}

func (c *crossEntropy) packRows(w *worker, panel int) {
	i := panel * tileRows
	count := min(tileRows, c.n-i)
	packLeftPanel(c.v, c.packX, c.logit, c.depth, ceil(c.n, tileRows), panel, i, count)
	for n := range c.terms {
		t := &c.terms[n]
		if t.dw.present() {
			packRight(w, c.v, t.xRows[i*tileCols:], c.n*tileCols, factor{weights: bytesOf(t.x), along: true, scale: 1}, 0, t.x.cols, i, count)
		}
	}
}

func (c *crossEntropy) packWords(w *worker, panel int) {
	j := panel * tileCols
	count := min(tileCols, c.wordsN-j)
	packRightPanels(w, c.v, c.packW, c.logit, c.depth, ceil(c.wordsN, tileCols), panel, c.words0+j, count)
	for n := range c.terms {
		t := &c.terms[n]
		if c.dx && t.dx.present() {
			packRight(w, c.v, t.wordRows[j*tileCols:], c.wordsN*tileCols, factor{t.w, true, t.scale}, 0, t.x.cols, c.words0+j, count)
		}
	}
}

// logits computes z of n rows from first on, for words of the block from
// word0 on, into z [n, ld].
func (c *crossEntropy) logits(w *worker, z []float32, ld, first, n, word0, words int) {
	rows, cols := ceil(c.n, tileRows), ceil(c.wordsN, tileCols)
	block := depthBlock(c.depth, maxDepth)
	if c.depth == 0 {
		clear(z[:n*ld])
	}
	for p := 0; p < c.depth; p += block {
		k := min(block, c.depth-p)
		a, b := packedLeft(c.packX, rows, p, k, first/tileRows), packedRight(c.packW, cols, p, k, word0/tileCols)
		w.tiles(c.v, n, words, k, a, b, z, ld, 1, p > 0)
	}
	c.capRows(z, ld, n, words)
}

// capRows applies the soft cap, where there is one, to rows of logits.
func (c *crossEntropy) capRows(z []float32, ld, n, words int) {
	if c.softCap > 0 {
		for i := range n {
			c.v.cap(z[i*ld:][:words], c.softCap)
		}
	}
}

// forward takes a block of words into the sums of some rows.
func (c *crossEntropy) forward(w *worker, first, n int) {
	mem := w.private
	z, capped := take(&mem, lossRows*tileRows*lossWords), take(&mem, lossWords)
	for word0 := 0; word0 < c.wordsN; word0 += lossWords {
		words := min(lossWords, c.wordsN-word0)
		c.logits(w, z, lossWords, first, n, word0, words)
		for i := range n {
			c.soften(z[i*lossWords:][:words], capped[:words], first+i, c.words0+word0)
		}
		for k := range c.terms {
			t := &c.terms[k]
			if t.dx.present() {
				a := left{z, tileRows * lossWords, lossWords, 1}
				b := right{t.wordRows[word0*tileCols:], c.wordsN * tileCols, tileCols}
				w.tiles(c.v, n, t.x.cols, words, a, b, t.dx.data[first*t.dx.stride:], t.dx.stride, 1, c.words0+word0 > 0)
			}
		}
	}
}

// soften turns logits of a row into e^(z - max), times the soft cap's slope,
// with 0 for the target.
func (c *crossEntropy) soften(z, capped []float32, row, word0 int) {
	m := c.v.maxOf(z)
	if m > c.max[row] {
		c.shrink(row, m)
	}
	target := int(c.targets[row]) - word0
	here := target >= 0 && target < len(z)
	if here {
		c.target[row] = z[target]
		z[target] = float32(math.Inf(-1))
	}
	sloped := c.softCap > 0 && c.dx
	if sloped {
		copy(capped, z)
		if here {
			capped[target] = 0
		}
	}
	c.sum[row] += c.v.exp(z, z, 1, c.max[row])
	if sloped {
		c.slope(z, capped)
	}
}

// slope multiplies by the derivative of the soft cap: 1 - (z/cap)².
func (c *crossEntropy) slope(p, z []float32) {
	ic2 := 1 / (c.softCap * c.softCap)
	for i, v := range z {
		p[i] *= 1 - v*v*ic2
	}
}

// shrink corrects what a row summed under a smaller maximum.
func (c *crossEntropy) shrink(row int, m float32) {
	if !math.IsInf(float64(c.max[row]), -1) {
		shrink := exp32(c.max[row] - m)
		c.sum[row] *= shrink
		for i := range c.terms {
			if dx := c.terms[i].dx; dx.present() {
				c.v.scale(dx.row(row), shrink)
			}
		}
	}
	c.max[row] = m
}

// finish computes a row's loss, and its gradient from the sums.
func (c *crossEntropy) finish(w *worker, row int) {
	others, distance := float64(c.sum[row]), float64(c.target[row])-float64(c.max[row])
	e := math.Exp(distance) // of the target
	if e > 0 {
		c.loss.row(row)[0] = float32(math.Log1p(others / e))
	} else {
		c.loss.row(row)[0] = float32(math.Log(others) - distance)
	}
	slope := 1.0
	if c.softCap > 0 {
		slope = 1 - math.Pow(float64(c.target[row])/float64(c.softCap), 2)
	}
	c.factor[row] = float32(1 / (others + e))
	c.coefficient[row] = float32(-others / (others + e) * slope)
	for i := range c.terms {
		t := &c.terms[i]
		if !t.dx.present() {
			continue
		}
		dx := t.dx.row(row)
		c.v.scale(dx, c.factor[row])
		c.addTarget(w, t, dx, int(c.targets[row]), c.coefficient[row]*t.scale)
	}
}

func (c *crossEntropy) addTarget(w *worker, t *headTerm, dx []float32, word int, factor float32) {
	row, dtype := t.w.at(word, 0), t.w.dtype
	if !direct(t.w.dtype) {
		wide := w.private[:len(dx)]
		t.w.decode(c.v, wide, word, 0)
		row, dtype = bytesOf(matrix{wide, 1, len(wide), len(wide)}).data, kernels.F32
	}
	c.v.axpy[dtype](dx, &row[0], factor)
}

// gradients computes ∂loss/∂z of some rows for a block of words.
func (c *crossEntropy) gradients(w *worker, first, n int) {
	z := c.grads[first*lossWords:]
	if c.inPieces {
		c.logitsInPieces(w, z, lossWords, first, n)
	} else {
		c.logits(w, z, lossWords, first, n, 0, c.wordsN)
	}
	for i := first; i < first+n; i++ {
		c.slopes(c.grads[i*lossWords:][:c.wordsN], w.private[:c.wordsN], i)
	}
}

// slopes turns the logits of a row, which is finished, into ∂loss/∂z.
func (c *crossEntropy) slopes(z, capped []float32, row int) {
	if c.softCap > 0 {
		copy(capped, z)
	}
	c.v.exp(z, z, 1, c.max[row])
	if c.softCap > 0 {
		c.slope(z, capped)
	}
	c.v.scale(z, c.factor[row])
	if target := int(c.targets[row]) - c.words0; target >= 0 && target < len(z) {
		z[target] = c.coefficient[row]
	}
}

// weights adds gradsᵀ·X to a panel of the words' gradients.
func (c *crossEntropy) weights(w *worker, panel int) {
	word := panel * tileRows
	m := min(tileRows, c.wordsN-word)
	block := depthBlock(c.n, maxDepth)
	for i := range c.terms {
		t := &c.terms[i]
		if !t.dw.present() {
			continue
		}
		dst := t.dw.data[(c.words0+word)*t.dw.stride:]
		for p := 0; p < c.n; p += block {
			a := left{c.grads[p*lossWords+word:], 0, 1, lossWords}
			b := right{t.xRows[p*tileCols:], c.n * tileCols, tileCols}
			w.tiles(c.v, m, t.x.cols, min(block, c.n-p), a, b, dst, t.dw.stride, t.scale, true)
		}
	}
}
