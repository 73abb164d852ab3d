package cpu

import "graft/kernels"

// Cross entropy with products in pieces (pieces.go): as in crossentropy.go, but that a block of
// logits is made and used so. What is packed for a run of words lies in the order in which it is read: the
// panels of the logits, and for each term those of its gradient.

const (
	runBlocks  = 8                      // of the product of a run's logits with W
	runWords   = runBlocks * blockDepth // of a block of logits
	logitParts = runWords / partCols
)

// lossPieces is what a crossEntropy has for it.
type lossPieces struct {
	logits pieced
	parts  int       // that are packed for a run, of partPanels at most
	size   int       // of them
	pack   []float32 // [runs]
	cuts   []int     // groups of rows where tasks start, and their end
}

// lossGroups returns how many groups of rows a task has, at most: X and the pieces of logits are not
// needed at the same time.
func lossGroups(blocks int) int {
	return max(2, leftCache*5/3/((blocks+runBlocks)*leftBlock+groupRows*runWords))
}

// runSize returns the elements that are packed for a run of words.
func runSize(blocks, gradCols int) int {
	return mostPieces * pieceWords * (runWords/panelCols*blocks + runBlocks*gradCols)
}

// runsAtOnce returns how many runs are packed at a time.
func runsAtOnce(size, vocab int) int { return max(1, min(rightCache/size, ceil(vocab, runWords))) }

// lossSizes returns the blocks of the depth of the logits, and the panels of all gradients, which are
// packed in so many parts.
func lossSizes(terms []kernels.HeadTerm) (blocks, panels, parts int) {
	for _, t := range terms {
		blocks += ceil(t.X.Cols, blockDepth)
		if t.DX != nil {
			n := ceil(t.X.Cols, panelCols)
			panels, parts = panels+n, parts+ceil(n, partPanels)
		}
	}
	return blocks, panels, parts
}

func lossPiecesNeed(o *kernels.CrossEntropy, n, vocab int) need {
	blocks, panels, _ := lossSizes(o.Terms)
	size, groups := runSize(blocks, panels), min(ceil(n, groupRows), lossGroups(blocks))
	return need{
		shared:  runsAtOnce(size, vocab) * size,
		private: max(sumWords+groups*((blocks+runBlocks)*leftBlock+groupRows*runWords)+runWords, pieceSpare(max(blocks, runBlocks))),
	}
}

// lossPieces takes all words into the sums of all rows.
func (b *Backend) lossPieces(c *crossEntropy, o *kernels.CrossEntropy, mem []float32) {
	x := &c.pieces
	x.logits = newPieced(c.v, c.logit)
	_, panels, parts := lossSizes(o.Terms)
	x.parts, x.size = logitParts+parts, runSize(x.logits.blocks, panels)
	x.pack = mem
	x.cuts = equal(x.cuts[:0], ceil(c.n, groupRows), lossGroups(x.logits.blocks), len(b.pool.workers))
	for step := runsAtOnce(x.size, c.vocab) * runWords; c.words0 < c.vocab; c.words0 += step {
		c.wordsN = min(step, c.vocab-c.words0)
		c.run(b.pool, lossPackRuns, ceil(c.wordsN, runWords)*x.parts)
		c.run(b.pool, lossForwardPieces, len(x.cuts)-1)
	}
}

// packRuns packs some panels of a run of words, for the logits or for a term's gradient.
func (c *crossEntropy) packRuns(w *worker, task int) {
	x := &c.pieces
	run, part := task/x.parts, task%x.parts
	words := min(runWords, c.wordsN-run*runWords)
	mem := x.pack[run*x.size:]
	if part < logitParts {
		if from := part * partCols; from < words {
			blocks := x.logits.blocks
			x.logits.packRight(w, x.logitPanel(mem, part*partPanels), x.logits.at(blocks), w.private, 0, blocks, c.words0+run*runWords+from, min(partCols, words-from))
		}
		return
	}
	part -= logitParts
	mem = x.logitPanel(mem, runWords/panelCols)
	for i := range c.terms {
		t := &c.terms[i]
		if !t.dx.present() {
			continue
		}
		g := c.gradient(w, t, matrix{}, c.words0+run*runWords, words)
		size, panels := g.at(g.blocks), ceil(t.x.cols, panelCols)
		if from := part * partCols; from < t.x.cols {
			g.packRight(w, mem[part*partPanels*size:], size, w.private, 0, g.blocks, from, min(partCols, t.x.cols-from))
			return
		}
		part, mem = part-ceil(panels, partPanels), mem[panels*size:]
	}
}

// logitPanel returns what is packed of a run from a panel of the logits on.
func (x *lossPieces) logitPanel(run []float32, panel int) []float32 {
	return run[panel*x.logits.at(x.logits.blocks):]
}

// gradient is z·W for a run of words; the worker has its only term.
func (c *crossEntropy) gradient(w *worker, t *headTerm, z matrix, word0, words int) pieced {
	w.term[0] = c.gradTerm(t, z, word0, words)
	return newPieced(c.v, w.term[:])
}

// forwardPieces is forward for some groups of rows.
func (c *crossEntropy) forwardPieces(w *worker, task int) {
	x := &c.pieces
	groups, first := x.cuts[task+1]-x.cuts[task], x.cuts[task]*groupRows
	n := min(groups*groupRows, c.n-first)
	mem := w.private
	sums, z, capped := take(&mem, sumWords), take(&mem, groups*groupRows*runWords), take(&mem, runWords)
	left := take(&mem, groups*x.logits.blocks*leftBlock)
	x.packRows(w, left, first, n)
	for run := 0; run*runWords < c.wordsN; run++ {
		word0, words := c.words0+run*runWords, min(runWords, c.wordsN-run*runWords)
		right := x.pack[run*x.size:]
		x.multiplyLogits(n, words, left, right, sums, z, runWords)
		c.capRows(z, runWords, n, words)
		for i := range n {
			c.soften(z[i*runWords:][:words], capped[:words], first+i, word0)
		}
		right = x.logitPanel(right, runWords/panelCols)
		for i := range c.terms {
			t := &c.terms[i]
			if !t.dx.present() {
				continue
			}
			g := c.gradient(w, t, matrix{z, n, words, runWords}, word0, words)
			g.packLeft(w, mem, 0, g.blocks, 0, n)
			size := g.at(g.blocks)
			g.multiply(n, t.x.cols, 0, g.blocks, mem, right, size, sums, t.dx.data[first*t.dx.stride:], t.dx.stride, word0 > 0)
			right = right[ceil(t.x.cols, panelCols)*size:]
		}
	}
}

// packRows packs n rows of X, those blocks together that are multiplied together.
func (x *lossPieces) packRows(w *worker, left []float32, first, n int) {
	l := &x.logits
	for b, k := 0, pieceDepth(l.blocks); b < l.blocks; b += k {
		l.packLeft(w, left[ceil(n, groupRows)*b*leftBlock:], b, min(k, l.blocks-b), first, n)
	}
}

// multiplyLogits computes z of n packed rows, for the words of a run.
func (x *lossPieces) multiplyLogits(n, words int, left, run, sums, z []float32, ld int) {
	l := &x.logits
	for b, k := 0, pieceDepth(l.blocks); b < l.blocks; b += k {
		l.multiply(n, words, b, min(k, l.blocks-b), left[ceil(n, groupRows)*b*leftBlock:], run[l.at(b):], l.at(l.blocks), sums, z, ld, b > 0)
	}
}

// logitsInPieces is logits for the words in work, of a run at most: where they are made
// again they have to be the same, so that large ones that are close have the same distance.
func (c *crossEntropy) logitsInPieces(w *worker, z []float32, ld, first, n int) {
	mem := w.private
	sums := take(&mem, sumWords)
	c.pieces.packRows(w, mem, first, n)
	c.pieces.multiplyLogits(n, c.wordsN, mem, c.pieces.pack, sums, z, ld)
	c.capRows(z, ld, n, c.wordsN)
}
