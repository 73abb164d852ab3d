package cpu

import "graft/kernels"

// Cross entropy with products of halves (strassen.go): as in crossentropy.go, but
// that a block of logits is made and used so. Words beyond the last whole block are
// left to the plain way.

const (
	halvesWords = 640     // words of a block of logits: the depth of its product with W
	halvesPack  = 1 << 19 // elements of weights that are packed at a time
)

// lossPairs returns how many pairs of panels a task has: a block of their logits takes as
// much of the second cache as they take themselves.
func (s *strassenVectors) lossPairs() int {
	return max(leastPairs, ceil(s.pairsAtOnce(halvesWords), 2))
}

// lossHalves is what a crossEntropy has for it.
type lossHalves struct {
	pairs   int
	h       int       // of the logits' depth
	packX   []float32 // [blocks of the depth][sums][pairs]
	factors []float32 // [blocks of the depth][pairs·pairRows]
	packW   []float32 // [blocks of words][blocks of the depth]
	packT   []float32 // [runs of halvesWords][terms][blocks of columns]
	cuts    []int     // pairs where tasks start, and their end
}

// lossByHalves says whether the loss is computed so. Weights are read once for two products,
// block by block, so a third of the rows will do.
func lossByHalves(v *vectors, o *kernels.CrossEntropy, n, vocab, depth int) bool {
	if !useful(v, n*16/5, vocab, depth) {
		return false
	}
	for _, t := range o.Terms {
		if t.DX != nil && t.X.Cols%blockCols > 0 {
			return false
		}
	}
	return true
}

func halvesWordsAtOnce(depth, vocab int) int {
	return min(max(1, halvesPack/depth/halvesWords)*halvesWords, vocab/blockCols*blockCols)
}

func lossHalvesNeed(v *vectors, o *kernels.CrossEntropy, n, vocab, depth int) need {
	h, words := half(depth), halvesWordsAtOnce(depth, vocab)
	pairs, blocks := ceil(n, pairRows), ceil(depth, 2*h)
	shared := blocks*(pairs*leftSize(h)+aligned(pairs*pairRows)) + words/blockCols*blocks*rightSize(h)
	for _, t := range o.Terms {
		if t.DX != nil {
			shared += ceil(words, halvesWords) * t.X.Cols / blockCols * rightSize(halvesWords/2)
		}
	}
	atOnce := v.strassen.lossPairs()
	rows := atOnce * pairRows
	return need{
		shared: aligned(shared),
		private: max(rows*halvesWords+blockSize(atOnce)+halvesWords+2*aligned(rows)+leftSpare(halvesWords/2)+atOnce*leftSize(halvesWords/2),
			aligned(pairRows)+leftSpare(h), rightPrivate(max(h, halvesWords/2))),
	}
}

// lossHalves takes the words that are whole blocks into the sums of all rows.
func (b *Backend) lossHalves(c *crossEntropy, mem []float32) {
	x := &c.halves
	x.h, x.pairs = half(c.depth), ceil(c.n, pairRows)
	blocks, step := ceil(c.depth, 2*x.h), halvesWordsAtOnce(c.depth, c.vocab)
	x.packX, x.factors = take(&mem, blocks*x.pairs*leftSize(x.h)), take(&mem, blocks*x.pairs*pairRows)
	x.packW = take(&mem, step/blockCols*blocks*rightSize(x.h))
	x.packT = mem
	x.cuts = guided(x.cuts[:0], x.pairs, c.v.strassen.lossPairs(), len(b.pool.workers))

	c.run(b.pool, lossPackPairs, x.pairs)
	for end := c.vocab / blockCols * blockCols; c.words0 < end; c.words0 += c.wordsN {
		c.wordsN = min(step, end-c.words0)
		tasks := c.wordsN / blockCols
		for i := range c.terms {
			if t := &c.terms[i]; t.dx.present() {
				tasks += ceil(c.wordsN, halvesWords) * t.x.cols / blockCols
			}
		}
		c.run(b.pool, lossPackBlocks, tasks)
		c.run(b.pool, lossForwardHalves, len(x.cuts)-1)
	}
}

// logitHalves is a block of the depth of X·Wᵀ.
func (c *crossEntropy) logitHalves(p int) halves {
	return halves{v: c.v, terms: c.logit, m: c.n, depth: c.depth, p: p, h: c.halves.h}
}

// packPairs packs two panels of X.
func (c *crossEntropy) packPairs(w *worker, pair int) {
	x := &c.halves
	mem := w.private
	scales, spare := take(&mem, pairRows), take(&mem, leftSpare(x.h))
	for p, i := 0, 0; p < c.depth; p, i = p+2*x.h, i+1 {
		l := c.logitHalves(p)
		l.packLeft(x.packX[i*x.pairs*leftSize(x.h)+pair*tileRows*x.h:], x.pairs*tileRows*x.h, pair*pairRows,
			scales, x.factors[(i*x.pairs+pair)*pairRows:][:pairRows], spare)
	}
}

// packBlocks packs a block of words for the logits, or a block of columns of a run of
// words for the gradients.
func (c *crossEntropy) packBlocks(w *worker, task int) {
	x := &c.halves
	blocks := ceil(c.depth, 2*x.h)
	if task < c.wordsN/blockCols {
		for i := range blocks {
			l := c.logitHalves(i * 2 * x.h)
			l.packRight(w, x.packW[(task*blocks+i)*rightSize(x.h):], c.words0+task*blockCols, 0, l.h)
		}
		return
	}
	task -= c.wordsN / blockCols
	mem := x.packT
	for run := 0; run < c.wordsN; run += halvesWords {
		words := min(halvesWords, c.wordsN-run)
		for i := range c.terms {
			t := &c.terms[i]
			if !t.dx.present() {
				continue
			}
			n := t.x.cols / blockCols
			if task < n {
				g := c.gradHalves(w, t, matrix{}, c.words0+run, words)
				g.packRight(w, mem[task*rightSize(g.h):], task*blockCols, 0, g.h)
				return
			}
			task, mem = task-n, mem[n*rightSize(half(words)):]
		}
	}
}

// gradHalves is z·W for a run of words; the worker has its only term.
func (c *crossEntropy) gradHalves(w *worker, t *headTerm, z matrix, word0, words int) halves {
	w.term[0] = c.gradTerm(t, z, word0, words)
	return halves{v: c.v, terms: w.term[:], m: z.rows, depth: words, h: half(words)}
}

// gradTerm is z·W for words from one on.
func (c *crossEntropy) gradTerm(t *headTerm, z matrix, word0, words int) term {
	right := factor{t.w, true, t.scale}
	right.data = t.w.at(word0, 0)
	return term{left: factor{weights: bytesOf(z)}, right: right, depth: words}
}

// forwardHalves is forward for some pairs of panels.
func (c *crossEntropy) forwardHalves(w *worker, task int) {
	x := &c.halves
	pair, pairs := x.cuts[task], x.cuts[task+1]-x.cuts[task]
	first := pair * pairRows
	n := min(pairs*pairRows, c.n-first)
	mem := w.private
	rows := c.v.strassen.lossPairs() * pairRows
	z, capped := take(&mem, rows*halvesWords), take(&mem, halvesWords)
	block, factors, scales := take(&mem, blockSize(c.v.strassen.lossPairs())), take(&mem, rows), take(&mem, pairRows)
	spare := take(&mem, leftSpare(halvesWords/2))
	packT := x.packT
	for run := 0; run < c.wordsN; run += halvesWords {
		words := min(halvesWords, c.wordsN-run)
		c.logitsByHalves(z, block, pair, pairs, n, run, words)
		for i := range n {
			c.soften(z[i*halvesWords:][:words], capped[:words], first+i, c.words0+run)
		}
		for i := range c.terms {
			t := &c.terms[i]
			if !t.dx.present() {
				continue
			}
			g := c.gradHalves(w, t, matrix{z, n, words, halvesWords}, c.words0+run, words)
			apart := pairs * tileRows * g.h
			for p := range pairs {
				g.packLeft(mem[p*tileRows*g.h:], apart, p*pairRows, scales, factors[p*pairRows:][:pairRows], spare)
			}
			for j := 0; j < t.x.cols; j += blockCols {
				dx := t.dx.data[first*t.dx.stride+j:]
				g.multiply(n, mem, apart, packT, block, dx, t.dx.stride, factors, c.words0+run > 0, &noRows)
				packT = packT[rightSize(g.h):]
			}
		}
	}
}

// logitsByHalves is logits for some pairs of panels.
func (c *crossEntropy) logitsByHalves(z, block []float32, pair, pairs, n, word0, words int) {
	x := &c.halves
	blocks := ceil(c.depth, 2*x.h)
	for j := 0; j < words; j += blockCols {
		for i := range blocks {
			l := c.logitHalves(i * 2 * x.h)
			left := x.packX[i*x.pairs*leftSize(x.h)+pair*tileRows*x.h:]
			l.multiply(n, left, x.pairs*tileRows*x.h, x.packW[((word0+j)/blockCols*blocks+i)*rightSize(x.h):], block, z[j:], halvesWords,
				x.factors[(i*x.pairs+pair)*pairRows:], i > 0, &noRows)
		}
	}
	c.capRows(z, halvesWords, n, words)
}
