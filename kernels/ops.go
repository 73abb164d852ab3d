package kernels

// Op is one operation. The set is closed: the structs of this file.
type Op interface {
	// Kind names the operation, as profiles print it.
	Kind() string
	// Operands visits every operand that is present, inputs before outputs.
	// The visitor may replace the tensor.
	Operands(visit Visitor)
	// Clone returns a copy whose operands can be replaced.
	Clone() Op
	// FLOPs counts the floating point operations of the formula (a
	// multiply-add is two), at the operands' present sizes.
	FLOPs() float64
}

// Visitor sees one operand of an operation.
type Visitor func(t **Tensor, a Access)

// Access says what an operation does with an operand.
type Access uint8

// Read operands are inputs, Write operands are overwritten whole, and Update
// operands are added to or changed in place.
const (
	Read Access = iota
	Write
	Update
)

// T is the number of tokens, N of loss rows, S of sequences; all formulas are
// written for row-major matrices, [rows, columns].

// Embed looks up rows: Out[t] = Scale · Table[Tokens[t]].
type Embed struct {
	Tokens *Tensor // I32 [T, 1]
	Table  *Tensor // [vocab, hidden], any floating type
	Out    *Tensor // [T, hidden]
	Scale  float64
}

// EmbedGrad adds DTable[Tokens[t]] += Scale · DOut[t].
type EmbedGrad struct {
	Tokens *Tensor // I32 [T, 1]
	DOut   *Tensor // [T, hidden]
	DTable *Tensor // [vocab, hidden]
	Scale  float64
}

// RMSNorm normalises each group of len(Weight) columns:
//
//	s = X + Residual
//	Out = s · InvRMS · (Weight + Offset), InvRMS = 1/sqrt(mean(s²) + Eps)
//
// (Zhang and Sennrich, 2019.) Residual is optional; with it, Sum receives s.
type RMSNorm struct {
	X        *Tensor // [T, groups·width]
	Residual *Tensor // like X, or nil
	Weight   *Tensor // [1, width], any floating type
	Sum      *Tensor // like X; nil without Residual
	Out      *Tensor // like X
	InvRMS   *Tensor // [T, groups]
	Eps      float64
	Offset   float64 // 1 where the file stores weight-1 (Gemma), else 0
}

// RMSNormGrad is the gradient of RMSNorm by its (summed) input. Per group,
// with x̂ = X·InvRMS and g = DOut·(Weight + Offset):
//
//	DX = Add + InvRMS · (g - x̂·mean(g·x̂)),  DWeight += Σ_t DOut·x̂
//
// On the way it makes RMSNorm's output again, Out = x̂·(Weight + Offset), where that was not kept.
type RMSNormGrad struct {
	X       *Tensor // the normalised input (Sum, where there was a residual)
	InvRMS  *Tensor // [T, groups]
	Weight  *Tensor // [1, width]
	DOut    *Tensor // like X
	Add     *Tensor // like X, or nil
	DX      *Tensor // like X; may be DOut or Add itself
	Out     *Tensor // like X, or nil; in memory of its own
	DWeight *Tensor // [1, width], or nil for a frozen weight
	Offset  float64
}

// Term is one product of a sum: Scale · X·Wᵀ, or Scale · X·W when Transposed.
type Term struct {
	X          *Tensor // [T, k]
	W          *Tensor // [n, k], or [k, n] when Transposed; any floating type
	Transposed bool
	Scale      float64
}

// Product is a sum of matrix products, computed in one pass over Out:
//
//	Out = Add + Bias + Σ Scale·X·Wᵀ
//
// Without terms it copies or adds. A linear layer with a low-rank adapter is the two terms (X, W) and (U, B)
// with U = X·Aᵀ; the gradient by an input that several layers share has a term
// for each of them.
type Product struct {
	Terms []Term
	Bias  *Tensor // [1, n], any floating type, or nil
	Add   *Tensor // [T, n], or nil
	Out   *Tensor // [T, n]; may be Add itself
}

// WeightGrad adds DW += Scale · DYᵀ·X.
type WeightGrad struct {
	DY    *Tensor // [T, n]
	X     *Tensor // [T, k]
	DW    *Tensor // [n, k]
	Scale float64
}

// BiasGrad adds the column sums: DBias += Σ_t DY[t].
type BiasGrad struct {
	DY    *Tensor // [T, n]
	DBias *Tensor // [1, n]
}

// RotaryTable computes the angles that rotary embeddings turn by: with
// θ = Positions[t]·Freqs[i], Out[t, i] = Scale·cos θ, Out[t, half+i] = Scale·sin θ.
// The frequency, θ, its cosine and its sine are rounded to float32 on every backend, float64
// ones too: models are trained with such angles (transformers computes them in
// float32 whatever the model's precision), and a float64 angle is another one.
type RotaryTable struct {
	Positions *Tensor // I32 [T, 1]
	Freqs     *Tensor // [1, half], radians per position, F64
	Out       *Tensor // [T, 2·half]
	Scale     float64
}

// Rotary turns pairs (x_i, x_{i+half}) of the first 2·half columns of each
// head by the table's angles, and copies the rest (Su et al., 2021, in the
// half-split layout of the Hugging Face models). Inverse turns backwards,
// which is the gradient.
type Rotary struct {
	X       *Tensor // [T, heads·HeadDim]
	Table   *Tensor // [T, 2·half]
	Out     *Tensor // like X; may be X itself
	HeadDim int
	Inverse bool
}

// Attention is causal attention within each sequence. Query head h reads key
// and value head h / (heads / kvHeads); with p the softmax over j ≤ i of
// cap(Scale · Q_i·K_j), Out_i = Σ_j p_j V_j. A Window w > 0 keeps j > i-w; a
// SoftCap c > 0 replaces a score s by c·tanh(s/c).
type Attention struct {
	Q      *Tensor // [T, heads·HeadDim]
	K, V   *Tensor // [T, kvHeads·HeadDim]
	Bounds *Tensor // I32 [S+1, 1]: starts of the sequences, then T
	Out    *Tensor // like Q
	LSE    *Tensor // [T, heads]: log of the softmax's denominator
	AttentionShape
}

// AttentionShape is what Attention and its gradient share.
type AttentionShape struct {
	HeadDim int
	Scale   float64
	Window  int
	SoftCap float64
	Pairs   float64 // (query, key) pairs that one head looks at, for FLOPs
}

// AttentionGrad is the gradient of Attention, from its inputs and outputs
// (Dao et al., 2022: the probabilities are computed again from LSE).
type AttentionGrad struct {
	Q, K, V, Bounds, Out, LSE *Tensor // as in Attention
	DOut                      *Tensor // like Out
	DQ, DK, DV                *Tensor // like Q, K, V
	AttentionShape
}

// Softmax is the softmax of rows, for attention that is not fused:
//
//	Out[r] = exp(Scale·X[r]) / Σ exp(Scale·X[r])
//
// With Bounds, row h·T+t of X is the scores of query t in head h: it looks only
// at columns from the start of t's sequence up to t, and is 0 in all others.
type Softmax struct {
	X      *Tensor // [rows, n]; [heads·T, T] with Bounds
	Bounds *Tensor // I32 [S+1, 1] as in Attention, or nil
	Out    *Tensor // like X; may be X itself
	Scale  float64 // positive
}

// SoftmaxGrad is the gradient of Softmax from its output, which is 0 in the
// columns that a row does not look at:
//
//	DX = Scale · Out ⊙ (DOut - Σ DOut ⊙ Out)
type SoftmaxGrad struct {
	Out, DOut *Tensor // [rows, n]
	DX        *Tensor // like Out; may be DOut itself
	Scale     float64
}

// Act is the activation of a gated MLP.
type Act uint8

// SiLU is x·sigmoid(x); GELU is exact (erf); GELUTanh its tanh approximation.
const (
	SiLU Act = iota
	GELU
	GELUTanh
)

// Gated computes Out = Act(Gate)·Up.
type Gated struct {
	Gate, Up *Tensor // [T, intermediate]
	Out      *Tensor // like Gate; may be Gate or Up
	Act      Act
}

// GatedGrad computes DGate = DOut·Up·Act'(Gate) and DUp = DOut·Act(Gate), and on the way makes
// Gated's output again, Out = Act(Gate)·Up, where that was not kept.
type GatedGrad struct {
	Gate, Up, DOut *Tensor // [T, intermediate]
	DGate, DUp     *Tensor // like Gate; may be Gate and Up, or DOut
	Out            *Tensor // like Gate, or nil; may be DOut, where neither gradient is
	Act            Act
}

// Gather picks rows: Out[n] = X[Rows[n]].
type Gather struct {
	Rows *Tensor // I32 [N, 1]
	X    *Tensor // [T, cols]
	Out  *Tensor // [N, cols]
}

// Scatter puts rows back: Out[Rows[n]] = X[n], and 0 in all other rows. No row
// is named twice.
type Scatter struct {
	Rows *Tensor // I32 [N, 1]
	X    *Tensor // [N, cols]
	Out  *Tensor // [T, cols]
}

// HeadTerm is one product of the logits, with the gradients wanted from it.
type HeadTerm struct {
	X     *Tensor // [N, k]
	W     *Tensor // [vocab, k], any floating type
	Scale float64
	DX    *Tensor // [N, k], overwritten; or nil
	DW    *Tensor // [vocab, k], added to; or nil for a frozen weight
}

// CrossEntropy is the output head and its loss in one operation, so that the
// logits never lie in memory whole:
//
//	z = cap(LogitScale · Σ Scale·X·Wᵀ),  Loss[n] = log Σ_v exp z_v - z_target
//
// The gradients are those of the sum of all losses.
type CrossEntropy struct {
	Terms      []HeadTerm
	Targets    *Tensor // I32 [N, 1]
	Loss       *Tensor // [N, 1]
	LogitScale float64
	SoftCap    float64 // 0: none
}

// Sum adds A and B.
type Sum struct {
	A, B *Tensor
	Out  *Tensor // like A; may be A or B
}

// Dropout zeroes elements with probability P and multiplies the others by
// 1/(1-P). Element (t, j) depends only on Seed, Stream, Step and (Row+t, j): it
// is kept when word j mod 4 of the generator's Dropout numbers at position
// Step·2⁴⁰ + (Row+t)·ceil(cols/4) + j/4 is at least P·2³². The gradient is the
// same operation on the gradient.
type Dropout struct {
	X, Out *Tensor // alike; may be the same
	P      float64
	Seed   uint64
	Stream uint32 // the module
	Step   uint64 // the optimizer step
	Row    int    // rows of the step that came before this micro-batch
}

// Zero clears Out.
type Zero struct {
	Out *Tensor
}

// ClipNorm computes, for a gradient that is still a sum over Divisor tokens,
//
//	Out[0] = ‖Grad/Divisor‖,  Out[1] = min(1, Max/(Out[0]+1e-6))/Divisor
//
// Out[1] is what AdamW multiplies the gradient by. Max 0 does not clip. The
// 1e-6 is torch.nn.utils.clip_grad_norm_'s.
type ClipNorm struct {
	Grad    *Tensor // [1, n]
	Out     *Tensor // [1, 2]
	Divisor float64
	Max     float64
}

// AdamW updates parameters in place (Loshchilov and Hutter, 2019): decoupled
// weight decay, both moments bias-corrected. With g = Clip[1]·Grad:
//
//	P -= LR·WeightDecay·P
//	M = β1·M + (1-β1)·g,  V = β2·V + (1-β2)·g²
//	P -= LR/(1-β1^Step) · M / (sqrt(V/(1-β2^Step)) + Eps)
type AdamW struct {
	Grad  *Tensor // [1, n]
	Clip  *Tensor // [1, 2], from ClipNorm
	P     *Tensor // [1, n]
	M, V  *Tensor // [1, n]
	LR    float64
	Beta1 float64
	Beta2 float64
	Eps   float64

	WeightDecay float64
	Step        int // 1 at the first update
}
