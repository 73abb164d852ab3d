package cpu

import "graft/kernels"

//go:generate go -C gen run ./neon -out ../neon_arm64.s -stubs ../neon_stubs_arm64.go

// A micro-tile of a product is tileRows × tileCols elements: twelve vectors
// of eight float32, what the sixteen AVX2 registers leave room for.
const (
	tileRows = 6
	tileCols = 16
)

// Outer products are summed for groups of outerRows rows, outerBlock columns wide.
const (
	outerRows  = 4
	outerBlock = 96
)

// extent says which elements of a row count: from the first one to before the second.
type extent = [2]int32

// rowSpare is what there has to be behind rows whose extents end where they may.
const rowSpare = 2 * tileCols

// expMaxLimit keeps sums exact in which expMax takes out a power of two.
const expMaxLimit = 1 << 20

// vectors is one instruction set's inner loops; everything above them is the
// same for all sets. Slices that take part in one call are as long as the
// first, unless the comment says otherwise.
type vectors struct {
	name string

	// tile computes a micro-tile: C = alpha·A·B, plus the old C where add is
	// set. A(i, p) = a[i·arow + p·astep], B(p, j) = b[p·bstep + j] and
	// C(i, j) = c[i·ldc + j], for i < tileRows, j < tileCols, p < k. arow or astep is 1.
	tile func(k int, a *float32, arow, astep int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)
	// tilePacked is tile for arow = 1, astep = tileRows, bstep = tileCols. From ahead on it
	// asks for k/8 lines, and what is as large as several tiles for as many times more;
	// nothing need be there.
	tilePacked func(k int, a, b, c *float32, ldc int, alpha float32, add bool, ahead *float32)

	// tileWide and tilePackedWide are the same for two panels of the right factor,
	// panel elements apart, and as many columns of C; nil where nothing is gained.
	tileWide       func(k int, a *float32, arow, astep int, b *float32, bstep, panel int, c *float32, ldc int, alpha float32, add bool)
	tilePackedWide func(k int, a, b *float32, panel int, c *float32, ldc int, alpha float32, add bool, ahead *float32)

	// tilePackedLarge is tilePackedWide for the rows of two panels of the left factor, one
	// behind the other. large says whether that gains anything.
	tilePackedLarge func(k int, a, b *float32, panel int, c *float32, ldc int, alpha float32, add bool, ahead *float32)
	large           bool

	// tileTall is tile for the rows of two panels of the left factor, apanel elements apart;
	// C's lie one after the other. nil where nothing is gained.
	tileTall func(k int, a *float32, arow, astep, apanel int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)

	// outer adds sums of outer products, for k > 0: C(i, j) += Σ A(i, p)·B(p, j), for
	// i < groups·outerRows and j < outerBlock, where A(i, p) = a[p·astep + i],
	// B(p, j) = b[p·bstep + j] and C(i, j) = c[i·outerBlock + j]. Meanwhile it asks for a
	// block like B's, from ahead on, part by part: to ask for all of it first would take as
	// long as to wait for it.
	outer func(k, groups int, a *float32, astep int, b *float32, bstep int, c, ahead *float32)
	// outerDepth is how many rows of b it goes over at best: all groups find them in the first
	// cache, which holds few where rows are whole pages apart. It goes on from C, so no
	// sum depends on it.
	outerDepth int

	// strassen are the loops of products of halves; nil where there are none.
	strassen *strassenVectors

	// pieces are the loops of products in pieces of bfloat16; nil where there are none.
	pieces *pieceVectors

	// blas computes large products; nil where there is none.
	blas *blas

	// across packs tileCols rows (stride bytes apart) of k elements, a
	// multiple of 8, as k groups of tileCols: dst[p·16+i] = scale·row i[p].
	// Only F32, BF16 and F16 have one.
	across [kernels.BF16 + 1]func(dst *float32, src *byte, stride, k int, scale float32)
	// across6 is the same for tileRows rows of F32.
	across6 func(dst *float32, src *byte, stride, k int)
	// along packs the first 16 elements of k rows: dst[p·16+j] = scale·row p[j].
	along [kernels.BF16 + 1]func(dst *float32, src *byte, stride, k int, scale float32)

	// blocks decodes whole blocks of a quantised type of 32 elements; nil where
	// Go does.
	blocks [kernels.Affine8 + 1]func(dst []float32, src *byte)
	// fields decodes a group of a K type; nil where Go does.
	fields func(dst *float32, low, high *byte, lowShift, highShift, highMask, bias int32, scale0, scale1, least float32)
	// blocksAlong decodes k > 0 blocks of 32, stride bytes apart, into two panels:
	// dst[p·16+j] and dst[panel+p·16+j] = element j and 16+j of block p.
	blocksAlong [kernels.Affine8 + 1]func(dst *float32, panel int, src *byte, stride, k int)

	widen [kernels.BF16 + 1]func(dst []float32, src *byte)        // dst = src
	dot   [kernels.BF16 + 1]func(x []float32, w *byte) float32    // Σ x·w
	axpy  [kernels.BF16 + 1]func(y []float32, w *byte, a float32) // y += a·w
	scale func(y []float32, a float32)                            // y *= a
	add   func(out, a, b []float32)                               // out = a + b
	// maxOf is -Inf for none. Of rows with a NaN it may be any element but that: sums over
	// them are NaN, whatever is taken off.
	maxOf func(x []float32) float32
	exp   func(out, x []float32, scale, top float32) float32 // out = exp(scale·(x - top)); Σ out
	// expMax is exp, up to a factor for all elements of at most √2 either way, for
	// scale > 0 and |scale·top| < expMaxLimit. Meanwhile it finds the largest element of
	// next, which is as long, and multiplies last by factor: memory works while the
	// arithmetic goes on. last may be out, whose old elements may then be anything.
	expMax func(out, x, next, last []float32, scale, top, factor float32) (sum, max float32)
	cap    func(x []float32, c float32) // x = c·tanh(x/c)

	// These work on count > 0 rows, so many elements apart.

	// softmaxRows is exp(s - next) for the elements of a row's extent, where next is the
	// largest of them and of top; sums are Σ. What follows them in s is cleared for tileRows
	// elements at least, and in less than rowSpare overwritten.
	softmaxRows func(count int, s *float32, ld int, extents *extent, top, next, sums *float32)
	// scoreRows turns capped scores s and ds = ∂/∂p into p = exp(s - lse) and
	// ds = p·(ds - d)·(1 - s²·ic2); the rest is as in softmaxRows.
	scoreRows func(count int, s, ds *float32, ld int, extents *extent, lse *float32, lseStep int, d *float32, dStep int, ic2 float32)
	dotRows   func(count int, x *float32, xStep int, y *float32, yStep, n int, out *float32)         // out[i] = Σ x·y
	scaleRows func(count int, out *float32, outStep int, x *float32, xStep, n int, factors *float32) // out = factors[i]·x

	sumSquares   func(x []float32) float32
	sumSquares64 func(x []float32) float64
	// normalizeSum is out = x·inv·w and meanwhile Σ next², which is as long.
	normalizeSum func(out, x, w, next []float32, inv float32) float32
	dot3         func(x, y, w []float32) float32                     // Σ x·y·w
	normGrad     func(dx, x, dout, w []float32, inv, c float32)      // dx = inv·dout·w - c·x
	weightGrad   func(dw, x, dout []float32, inv float32)            // dw += dout·x·inv
	rotate       func(lo, hi, xlo, xhi, cos, sin []float32)          // (lo, hi) = (xlo·cos - xhi·sin, xhi·cos + xlo·sin)
	unrotate     func(lo, hi, xlo, xhi, cos, sin []float32)          // the inverse
	gated        [3]func(out, gate, up []float32)                    // by kernels.Act
	gatedGrad    [3]func(dgate, dup, out, gate, up, dout []float32)  // by kernels.Act; out may be dup where it is not asked for
	dropout      func(out, x []float32, d *mask, row, column uint64) // column is a multiple of 4
	adam         func(p, m, v, g []float32, c *adamFactors)
	peak         func(rounds int) float64 // floating point operations done
}

// adamFactors are the scalars of an AdamW update.
type adamFactors struct {
	clip, keep         float32 // gradient factor; 1 - LR·decay
	beta1, rest1       float32 // β1, 1-β1
	beta2, rest2       float32 // β2, 1-β2
	rate, root, offset float32 // LR/(1-β1^t), 1/(1-β2^t), ε
}
