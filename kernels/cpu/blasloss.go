package cpu

// Cross entropy with a library's products: the logits of a block of words are
// made for a block of rows at a time, which keeps them in a cache and bounds
// their memory; what lies between the products is done by the threads, row by
// row, as in crossentropy.go.

// lossTask is rows per task.
const lossTask = 4

// lossBlock returns how many rows and words a block of logits has.
func (l *blas) lossBlock(n, vocab, depth int) (rows, words int) {
	rows = min(n, l.rows)
	return rows, min(vocab, max(1, l.words/max(rows, depth)))
}

func (l *blas) lossNeed(n, vocab, depth, widest int) need {
	rows, words := l.lossBlock(n, vocab, depth)
	return need{shared: 5*aligned(n) + aligned(rows*words) + aligned(words*depth), private: max(words, widest)}
}

// crossEntropyBLAS computes what c is set to; tasks are those of its cuts.
func (b *Backend) crossEntropyBLAS(c *crossEntropy, tasks int, mem []float32) {
	b.lossPass(c, lossSoften, mem)
	c.run(b.pool, lossFinish, tasks)
	if c.dw {
		b.lossPass(c, lossSlopes, mem)
	}
}

// lossPass goes over all blocks of words, and of rows in them.
func (b *Backend) lossPass(c *crossEntropy, phase int, mem []float32) {
	l := b.v.blas
	rows, words := l.lossBlock(c.n, c.vocab, c.depth)
	z := take(&mem, rows*words)
	for c.words0 = 0; c.words0 < c.vocab; c.words0 += words {
		c.wordsN = min(words, c.vocab-c.words0)
		b.widenWords(c, mem)
		for c.first = 0; c.first < c.n; c.first += rows {
			c.rows = min(rows, c.n-c.first)
			c.z = matrix{z[:c.rows*c.wordsN], c.rows, c.wordsN, c.wordsN}
			c.blockLogits(l)
			c.run(b.pool, phase, ceil(c.rows, lossTask))
			c.blockGradients(l)
		}
	}
}

func (b *Backend) widenWords(c *crossEntropy, mem []float32) {
	for i := range c.terms {
		t := &c.terms[i]
		t.wide = b.widened(t.w, c.words0, c.wordsN, mem)
		mem = mem[c.wordsN*t.x.cols:]
	}
}

// blockLogits computes the logits of a block, before the soft cap.
func (c *crossEntropy) blockLogits(l *blas) {
	add := false
	for i := range c.terms {
		if t := &c.terms[i]; t.x.cols > 0 {
			l.multiply(c.z, t.scale, t.x.part(c.first, c.rows, 0, t.x.cols), false, t.wide, true, add)
			add = true
		}
	}
}

// blockGradients takes a block's z, which became a factor of ∂loss/∂z, into the
// gradients: those of the rows in the first pass, of the words in the second.
func (c *crossEntropy) blockGradients(l *blas) {
	for i := range c.terms {
		t := &c.terms[i]
		switch {
		case c.phase == lossSoften && t.dx.present():
			l.multiply(t.dx.part(c.first, c.rows, 0, t.x.cols), t.scale, c.z, false, t.wide, false, c.words0 > 0)
		case c.phase == lossSlopes && t.dw.present():
			l.multiply(t.dw.part(c.words0, c.wordsN, 0, t.x.cols), t.scale, c.z, true, t.x.part(c.first, c.rows, 0, t.x.cols), false, true)
		}
	}
}

// blockRows does what a phase does with some rows of a block.
func (c *crossEntropy) blockRows(w *worker, task int) {
	for i := task * lossTask; i < min((task+1)*lossTask, c.rows); i++ {
		z := c.z.row(i)
		if c.softCap > 0 {
			c.v.cap(z, c.softCap)
		}
		if c.phase == lossSoften {
			c.soften(z, w.private[:len(z)], c.first+i, c.words0)
		} else {
			c.slopes(z, w.private[:len(z)], c.first+i)
		}
	}
}
