// Package stored describes tensors as they lie in model files: a name, an
// element type, a shape and the little-endian bytes, usually a view of a
// memory-mapped file. The readers in model/safetensors and model/pickle
// return them, and the writers take them.
package stored

import (
	"fmt"

	"graft/kernels"
)

// Tensor is one stored tensor. Data holds the elements in row-major order,
// little-endian, without gaps, and is valid until its file is closed.
type Tensor struct {
	Name  string
	DType kernels.DType
	Shape []int
	Data  []byte
	File  string // the file it came from, for messages
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Float64s decodes the tensor exactly.
func (t Tensor) Float64s() ([]float64, error) {
	if !t.DType.Float() {
		return nil, fmt.Errorf("%s: tensor %s: type %v, want F32, F16, BF16 or F64", t.File, t.Name, t.DType)
	}
	v := make([]float64, t.Len())
	kernels.DecodeFloat64(v, t.Data, t.DType)
	return v, nil
}

// Source is a set of named tensors: one file, or all shards of a model.
type Source interface {
	// Names returns the names of all tensors, sorted.
	Names() []string
	// Tensor returns the tensor called name.
	Tensor(name string) (Tensor, bool)
	// Close releases the files; tensors are invalid afterwards.
	Close() error
}
