// Package stored describes tensors as they lie in model files: a name, an
// element type, a shape and the little-endian bytes, usually a view of a
// memory-mapped file. The readers in model/safetensors and model/pickle
// return them, and the writers take them.
package stored

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"

	"graft/kernels"
)

// Tensor is one stored tensor. Data holds the elements in row-major order,
// little-endian, without gaps, and is valid until its file is closed. Data of
// a file is mapped read-only memory: writing to it or to Shape is an error.
type Tensor struct {
	Name    string
	DType   kernels.DType // 0 for a type that only its file knows: see Foreign
	Shape   []int
	Data    []byte
	File    string // the file it came from, for messages
	Foreign string // the file's name of a type that graft cannot decode, such as F8_E4M3
}

// Type returns the name of the element type, Foreign ones included.
func (t Tensor) Type() string {
	if t.Foreign != "" {
		return t.Foreign
	}
	return t.DType.String()
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
		return nil, fmt.Errorf("%s: tensor %s: type %s, want F32, F16, BF16 or F64", t.File, t.Name, t.Type())
	}
	v := make([]float64, t.Len())
	kernels.DecodeFloat64(v, t.Data, t.DType)
	return v, nil
}

// Equal reports whether two tensors have the same shape and values. Of types that
// graft cannot decode these are the bytes.
func (t Tensor) Equal(o Tensor) bool {
	if !slices.Equal(t.Shape, o.Shape) {
		return false
	}
	if t.Type() == o.Type() {
		return bytes.Equal(t.Data, o.Data)
	}
	if !t.DType.Float() || !o.DType.Float() {
		return false
	}
	var v, w [512]float64
	for at, n := 0, t.Len(); at < n; at += len(v) {
		k := min(len(v), n-at)
		kernels.DecodeFloat64(v[:k], t.Data[at*t.DType.Size():], t.DType)
		kernels.DecodeFloat64(w[:k], o.Data[at*o.DType.Size():], o.DType)
		if !slices.Equal(v[:k], w[:k]) {
			return false
		}
	}
	return true
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

// Elements returns the number of elements of a shape; false if a dimension is
// negative or the number overflows.
func Elements(shape []int) (int, bool) {
	n := 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > math.MaxInt/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// maxName is far above the longest name of any model.
const maxName = 1024

// CheckName reports what is wrong with the name of a tensor or file that comes
// from a file. Names that pass can stand in messages as they are.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("an empty name")
	case len(name) > maxName:
		return fmt.Errorf("a name of %d bytes (%.40q…), at most %d are allowed", len(name), name, maxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("a name that is not UTF-8: %q", name)
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("a name with unprintable characters: %q", name)
		}
	}
	return nil
}
