package metal

import (
	"fmt"

	"graft/kernels"
)

// attentionBlock is how many queries or keys a threadgroup works on.
const attentionBlock = 32

// maxHead is the largest head dimension that there are kernels for.
const maxHead = 256

// headClass rounds a head dimension up to one that there are kernels for.
func headClass(dim int) int {
	for _, d := range []int{32, 64, 128, maxHead} {
		if dim <= d {
			return d
		}
	}
	panic(fmt.Sprintf("metal: heads of %d; attention takes at most %d", dim, maxHead))
}

func attentionShape(s kernels.AttentionShape, q, k, v, bounds, out, lse *kernels.Tensor) attentionParams {
	return attentionParams{
		tokens: u(q.Rows), sequences: u(bounds.Rows - 1), headDim: u(s.HeadDim), shared: u(q.Cols / k.Cols),
		qStride: u(q.Stride), kStride: u(k.Stride), vStride: u(v.Stride), outStride: u(out.Stride), lseStride: u(lse.Stride),
		window: u(s.Window), scale: float32(s.Scale), cap: float32(s.SoftCap),
		aligned: flag(s.HeadDim%4 == 0 && fours(q) && fours(k) && fours(v)),
	}
}

// fours reports whether rows start at multiples of four elements.
func fours(t *kernels.Tensor) bool {
	size := 4 * t.DType.Size()
	return t.Off%size == 0 && t.Stride%4 == 0
}

func (e *encoder) attention(o *kernels.Attention) {
	if o.Q.Len() == 0 {
		return
	}
	p := attentionShape(o.AttentionShape, o.Q, o.K, o.V, o.Bounds, o.Out, o.LSE)
	launch(e, e.typed(fmt.Sprintf("attention_%d", headClass(o.HeadDim))), grid(blocks(o.Q.Rows, attentionBlock), o.LSE.Cols, 1), 128, &p,
		e.act(o.Q), e.act(o.K), e.act(o.V), bind(o.Bounds), e.act(o.Out), bind(o.LSE))
}

func attentionGradNeed(o *kernels.AttentionGrad) int { return 4 * o.LSE.Len() }

func (e *encoder) attentionGrad(o *kernels.AttentionGrad) {
	if o.Q.Len() == 0 {
		return
	}
	p := attentionShape(o.AttentionShape, o.Q, o.K, o.V, o.Bounds, o.Out, o.LSE)
	p.doutStride, p.dqStride, p.dkStride, p.dvStride = u(o.DOut.Stride), u(o.DQ.Stride), u(o.DK.Stride), u(o.DV.Stride)
	p.deltaStride = u(o.LSE.Cols)
	if !fours(o.DOut) {
		p.aligned = 0
	}
	delta := e.work(0, attentionGradNeed(o))
	class, rows := headClass(o.HeadDim), blocks(o.Q.Rows, attentionBlock)
	launch(e, e.typed(fmt.Sprintf("attention_grad_queries_%d", class)), grid(rows, o.LSE.Cols, 1), 128, &p,
		e.act(o.Q), e.act(o.K), e.act(o.V), bind(o.Bounds), e.act(o.Out), bind(o.LSE), e.act(o.DOut), e.act(o.DQ), delta)
	launch(e, e.typed(fmt.Sprintf("attention_grad_keys_%d", class)), grid(rows, o.K.Cols/o.HeadDim, 1), 128, &p,
		e.act(o.Q), e.act(o.K), e.act(o.V), bind(o.Bounds), bind(o.LSE), e.act(o.DOut), delta, e.act(o.DK), e.act(o.DV))
}
