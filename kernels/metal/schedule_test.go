package metal

import (
	"testing"

	"graft/kernels"
)

func TestOverlap(t *testing.T) {
	memory := &paper{size: 4096}
	at := func(off, rows, cols, stride int) *kernels.Tensor {
		return &kernels.Tensor{DType: kernels.F32, Rows: rows, Cols: cols, Stride: stride, Buf: memory, Off: off}
	}
	for _, c := range []struct {
		name string
		a, b *kernels.Tensor
		want bool
	}{
		{"the same", at(0, 4, 8, 8), at(0, 4, 8, 8), true},
		{"one after the other", at(0, 4, 8, 8), at(128, 4, 8, 8), false},
		{"one element shared", at(0, 4, 8, 8), at(124, 4, 8, 8), true},
		{"column slices", at(0, 4, 3, 8), at(12, 4, 5, 8), false},
		{"column slices that share one", at(0, 4, 4, 8), at(12, 4, 5, 8), true},
		{"a slice that wraps into the next row", at(24, 4, 4, 8), at(0, 4, 2, 8), true},
		{"other strides", at(0, 4, 3, 8), at(12, 4, 3, 7), true},
		{"no rows", at(0, 0, 8, 8), at(0, 4, 8, 8), false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := overlap(c.b, c.a); got != c.want {
			t.Errorf("%s, the other way round: %v", c.name, got)
		}
	}
}
