package cpu

import (
	"fmt"
	"unsafe"

	"graft/kernels"
)

// matrix is a tensor of float32 in host memory.
type matrix struct {
	data               []float32
	rows, cols, stride int
}

func view(t *kernels.Tensor) matrix {
	return matrix{kernels.View[float32](t), t.Rows, t.Cols, t.Stride}
}

// part is rows i to i+rows and columns j to j+cols, of which there are some.
func (m matrix) part(i, rows, j, cols int) matrix {
	return matrix{m.data[i*m.stride+j:], rows, cols, m.stride}
}

// optional is view, or an empty matrix for an operand that is not there.
func optional(t *kernels.Tensor) matrix {
	if t == nil {
		return matrix{}
	}
	return view(t)
}

func (m matrix) present() bool { return m.stride > 0 }

func (m matrix) row(i int) []float32 { return m.data[i*m.stride:][:m.cols:m.cols] }

// weights is a tensor of any floating type, at any alignment.
type weights struct {
	data               []byte // from (0, 0)
	dtype              kernels.DType
	rows, cols, stride int // in elements
}

func weightsOf(t *kernels.Tensor) weights {
	h, ok := t.Buf.(kernels.Host)
	if !ok || !t.DType.Float() && !t.DType.Quantised() {
		panic(fmt.Sprintf("cpu: %v: not floats in host memory", t))
	}
	if t.Rows == 0 || t.Cols == 0 {
		return weights{dtype: t.DType, rows: t.Rows, cols: t.Cols, stride: t.Stride}
	}
	n := (t.Rows-1)*t.Stride + t.Cols
	return weights{h[t.Off : t.Off+t.DType.Bytes(n)], t.DType, t.Rows, t.Cols, t.Stride}
}

// inPlace returns weights that lie as float32 do.
func (w weights) inPlace() (m matrix, ok bool) {
	if w.dtype != kernels.F32 || len(w.data) == 0 || uintptr(unsafe.Pointer(&w.data[0]))%4 > 0 {
		return m, false
	}
	return matrix{floats(w.data), w.rows, w.cols, w.stride}, true
}

// at returns the bytes from element (i, j) on, which a block starts with.
func (w weights) at(i, j int) []byte { return w.data[w.dtype.Bytes(i*w.stride+j):] }

// direct says whether the vectors read a type as it is stored.
func direct(d kernels.DType) bool { return d != kernels.F64 && !d.Quantised() }

// decode widens n elements from (i, j) on.
func (w weights) decode(v *vectors, dst []float32, i, j int) {
	if len(dst) == 0 {
		return
	}
	if w.dtype.Quantised() {
		w.decodeBlocks(v, dst, i, j)
		return
	}
	src := w.at(i, j)
	src = src[:len(dst)*w.dtype.Size()]
	if w.dtype == kernels.F64 {
		kernels.DecodeFloat32(dst, src, w.dtype)
		return
	}
	v.widen[w.dtype](dst, &src[0])
}

// decodeBlocks decodes what is whole groups with the vectors, where they can.
func (w weights) decodeBlocks(v *vectors, dst []float32, i, j int) {
	row := w.at(i, 0)
	if f := v.blocks[w.dtype]; f != nil && j%kernels.Group == 0 && len(dst) >= kernels.Group {
		n := len(dst) &^ (kernels.Group - 1)
		f(dst[:n], &row[w.dtype.Bytes(j)])
		dst, j = dst[n:], j+n
	}
	if v.fields != nil && w.dtype.K() && j%kernels.Group == 0 {
		block := w.dtype.Block()
		for ; len(dst) >= kernels.Group; dst, j = dst[kernels.Group:], j+kernels.Group {
			f := kernels.FieldsOf(row[w.dtype.Bytes(j-j%block):], j%block/kernels.Group, w.dtype)
			v.fields(&dst[0], &f.Low[0], &f.High[0], int32(f.LowShift), int32(f.HighShift), int32(f.HighMask), int32(f.Bias), f.Scale[0], f.Scale[1], f.Least)
		}
	}
	kernels.DecodeRange(dst, row, j, w.dtype)
}

// bytesOf is a matrix seen as weights.
func bytesOf(m matrix) weights {
	if len(m.data) == 0 {
		return weights{dtype: kernels.F32, rows: m.rows, cols: m.cols, stride: m.stride}
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&m.data[0])), 4*len(m.data))
	return weights{b, kernels.F32, m.rows, m.cols, m.stride}
}

// floats is host memory, aligned, seen as float32.
func floats(h kernels.Host) []float32 {
	if len(h) < 4 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&h[0])), len(h)/4)
}

// doubles is working memory, 64-byte aligned, seen as float64.
func doubles(f []float32) []float64 {
	if len(f) < 2 {
		return nil
	}
	return unsafe.Slice((*float64)(unsafe.Pointer(&f[0])), len(f)/2)
}

// take cuts n elements, aligned, off the front of working memory.
func take(mem *[]float32, n int) []float32 {
	out := (*mem)[:n:n]
	*mem = (*mem)[min(aligned(n), len(*mem)):]
	return out
}
