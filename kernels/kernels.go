// Package kernels says what a backend must be able to run: a small set of
// large operations on matrices, each a plain struct that names its operands.
//
// A training step is a list of such operations (package program writes it).
// A backend gives memory and runs lists; it knows nothing of models. The
// backends are in the folders below: reference (float64, naive, the oracle),
// cpu (float32, fast), and those for GPUs. Package kerneltest holds the one
// conformance suite that all of them pass.
//
// Operands are [Tensor]s: matrices [Rows, Cols], row-major, whose rows may lie
// further apart than Cols. Activations, parameters and optimizer state have
// the backend's own floating type ([Info].Float); frozen base weights keep the
// type they are stored in and are widened as they are read; indices are I32.
//
// A malformed operation is a programmer's error: backends panic on it, with
// the operation's name. Run returns errors only for what a correct program can
// meet: a lost device, memory that cannot be had.
package kernels

import (
	"fmt"
	"time"
	"unsafe"
)

// Backend runs operations on one device.
type Backend interface {
	// Info describes the backend; it never changes.
	Info() Info
	// Alloc returns n bytes of zeroed memory, aligned to 64 bytes.
	Alloc(n int) (Buffer, error)
	// Wrap returns a buffer that holds data: the same memory where the device
	// can use it in place, so data must stay as it is while the buffer lives.
	Wrap(data []byte) (Buffer, error)
	// Scratch returns the bytes that running ops needs beyond its operands. Ask for every list
	// before the first is run: a backend may then take its working memory once.
	Scratch(ops []Op) int
	// Run runs ops in order and returns when their results can be read. With a
	// clock, it reports how long each operation took.
	// A backend may keep what it made of a list: between runs of one, only the
	// sizes and places of tensors may change, and the numbers of Dropout,
	// ClipNorm and AdamW.
	Run(ops []Op, clock Clock) error
	// Close releases threads and memory.
	Close() error
}

// Clock is told that operation i of a list took d.
type Clock func(i int, d time.Duration)

// Info describes a backend.
type Info struct {
	Name   string // "cpu"
	Detail string // "2 threads, AVX2", for people
	// Arithmetic names what the last bits of results depend on, besides the shapes, as far as
	// the backend knows: where it is another, so may they be.
	Arithmetic string

	Float   DType // of parameters, their gradients, statistics and optimizer state
	Threads int   // 0 where the word has no meaning

	// Activation is the type of what has a row for each token, where it is
	// narrower than Float; else 0.
	Activation DType

	// ClockCosts is set where Run takes longer with a clock, as on a GPU, which
	// then gets each operation by itself.
	ClockCosts bool

	// Apart is how many operations should lie between the last use of memory and
	// its next, for a backend that runs neighbours together where they do not
	// share memory.
	Apart int

	// MaxHead is the largest HeadDim that Attention takes; 0 where it takes any.
	MaxHead int
}

// Activations returns the type of activations.
func (i Info) Activations() DType {
	if i.Activation == 0 {
		return i.Float
	}
	return i.Activation
}

// Buffer is memory that belongs to a backend.
type Buffer interface {
	Size() int
	// Read copies len(p) bytes at off out of the buffer, Write into it.
	Read(p []byte, off int)
	Write(p []byte, off int)
}

// Host is a buffer in the process's own memory.
type Host []byte

// Size returns the length in bytes.
func (h Host) Size() int { return len(h) }

// Read copies bytes at off to p.
func (h Host) Read(p []byte, off int) { copy(p, h[off:off+len(p)]) }

// Write copies p to the bytes at off.
func (h Host) Write(p []byte, off int) { copy(h[off:off+len(p)], p) }

// Tensor is a matrix in a buffer: element (i, j) lies Off bytes plus
// i·Stride + j elements from its start.
type Tensor struct {
	Name               string
	DType              DType
	Rows, Cols, Stride int
	Buf                Buffer
	Off                int // bytes
}

// Len returns Rows·Cols.
func (t *Tensor) Len() int { return t.Rows * t.Cols }

// Bytes returns the bytes that the elements take.
func (t *Tensor) Bytes() int { return t.DType.Bytes(t.Len()) }

func (t *Tensor) String() string {
	return fmt.Sprintf("%s %v [%d, %d]", t.Name, t.DType, t.Rows, t.Cols)
}

// Element constrains the element types that backends work in.
type Element interface {
	float32 | float64 | int32 | uint16
}

// View returns the elements of a tensor in host memory, from (0, 0) to the
// last one; row i starts at i·Stride. It panics where the type, the buffer or
// the bounds do not fit.
func View[E Element](t *Tensor) []E {
	var e E
	size := int(unsafe.Sizeof(e))
	h, ok := t.Buf.(Host)
	if !ok || t.DType.Quantised() || t.DType.Size() != size {
		panic(fmt.Sprintf("kernels: %v: no host view of %d-byte elements", t, size))
	}
	if t.Rows == 0 || t.Cols == 0 {
		return nil
	}
	n := (t.Rows-1)*t.Stride + t.Cols
	b := h[t.Off : t.Off+n*size]
	if uintptr(unsafe.Pointer(&b[0]))%unsafe.Sizeof(e) != 0 {
		panic(fmt.Sprintf("kernels: %v: unaligned", t))
	}
	return unsafe.Slice((*E)(unsafe.Pointer(&b[0])), n)
}

// Float64s returns a copy of a tensor of floats, without gaps between rows.
func (t *Tensor) Float64s() []float64 {
	out := make([]float64, t.Len())
	row := make([]byte, t.DType.Bytes(t.Cols))
	for i := range t.Rows {
		t.Buf.Read(row, t.Off+t.DType.Bytes(i*t.Stride))
		DecodeFloat64(out[i*t.Cols:(i+1)*t.Cols], row, t.DType)
	}
	return out
}

// SetFloat64s fills a tensor of F32 or F64 with v, which has no gaps.
func (t *Tensor) SetFloat64s(v []float64) {
	if len(v) != t.Len() {
		panic(fmt.Sprintf("kernels: %v: %d values", t, len(v)))
	}
	size := t.DType.Size()
	row := make([]byte, t.Cols*size)
	for i := range t.Rows {
		EncodeFloat64(row, v[i*t.Cols:(i+1)*t.Cols], t.DType)
		t.Buf.Write(row, t.Off+i*t.Stride*size)
	}
}

// SetInt32s fills an I32 tensor of one column or one row.
func (t *Tensor) SetInt32s(v []int32) {
	if len(v) != t.Len() || t.DType != I32 {
		panic(fmt.Sprintf("kernels: %v: %d int32 values", t, len(v)))
	}
	if len(v) > 0 {
		t.Buf.Write(unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), 4*len(v)), t.Off)
	}
}

// Raw returns the bytes of a tensor without gaps between rows: its own memory
// where that is on the host, else a copy.
func (t *Tensor) Raw() []byte {
	if t.Stride != t.Cols && t.Rows > 1 {
		panic(fmt.Sprintf("kernels: %v: rows are not adjacent", t))
	}
	if h, ok := t.Buf.(Host); ok {
		return h[t.Off : t.Off+t.Bytes()]
	}
	b := make([]byte, t.Bytes())
	t.Buf.Read(b, t.Off)
	return b
}
