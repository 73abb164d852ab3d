package pickle

import (
	"fmt"
	"math"

	"graft/model/stored"
)

// maxRank is above the number of dimensions of any weight.
const maxRank = 16

// storage is a flat array of elements that tensors are views of.
type storage struct {
	id
	raw []byte // elements × dtype.Size() bytes of the file; set before any tensor is given out
}

// newStorage checks that a storage's size in bytes is a number.
func newStorage(i id) (*storage, error) {
	if i.elements > math.MaxInt/i.dtype.Size() {
		return nil, errorf("torch: storage %s: %d elements are too many", short(i.key), i.elements)
	}
	return &storage{id: i}, nil
}

func (s *storage) size() int { return s.elements * s.dtype.Size() }

// view is a tensor: element (i, j, …) is the storage's element number
// offset + i·stride[0] + j·stride[1] + …
type view struct {
	storage       *storage
	offset        int
	shape, stride []int
	elements      int
	copied        []byte // the elements in order, once they were gathered
}

// newView checks that all elements lie in the storage, and that there are not
// more of them than the storage has: with strides of 0 a view can repeat an
// element any number of times.
func newView(s *storage, offset int, shape, stride []int) (*view, error) {
	bad := func(what string) (*view, error) {
		return nil, errorf("torch: a tensor of shape %v, stride %v, offset %d %s (storage %s of %d elements)",
			shape, stride, offset, what, short(s.key), s.elements)
	}
	n, ok := stored.Elements(shape)
	switch {
	case len(shape) != len(stride):
		return bad("has not one stride for each dimension")
	case !ok:
		return bad("has no possible size")
	case offset < 0 || offset > s.elements || n > 0 && offset == s.elements:
		return bad("begins outside its storage")
	case n > s.elements:
		return bad("repeats elements: make it contiguous before saving")
	}
	v := &view{storage: s, offset: offset, shape: shape, stride: stride, elements: n}
	if n == 0 {
		return v, nil
	}
	last := offset
	for i, d := range shape {
		if stride[i] < 0 || d > 1 && stride[i] > (s.elements-1-last)/(d-1) {
			return bad("runs past its storage")
		}
		last += (d - 1) * stride[i] // d = 1 adds nothing, whatever the stride
	}
	return v, nil
}

// contiguous reports whether the elements follow each other in row-major
// order. Strides of dimensions of size 1 mean nothing.
func (v *view) contiguous() bool {
	want := 1
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.stride[i] != want {
			return v.elements == 0
		}
		want *= v.shape[i]
	}
	return true
}

// data returns the elements in row-major order: of the file if they lie there
// so, else a copy that is kept.
func (v *view) data() []byte {
	size := v.storage.dtype.Size()
	if v.contiguous() {
		begin, end := v.offset*size, (v.offset+v.elements)*size
		return v.storage.raw[begin:end:end]
	}
	if v.copied == nil {
		v.copied = v.gather(make([]byte, 0, v.elements*size))
	}
	return v.copied
}

// gather appends the elements in row-major order. Index counts through all
// dimensions but the last, like an odometer; at is its element.
func (v *view) gather(dst []byte) []byte {
	last := len(v.shape) - 1
	index := make([]int, last)
	at := v.offset
	for {
		dst = v.gatherRow(dst, at)
		i := last - 1
		for ; i >= 0; i-- {
			index[i]++
			at += v.stride[i]
			if index[i] < v.shape[i] {
				break
			}
			at -= index[i] * v.stride[i]
			index[i] = 0
		}
		if i < 0 {
			return dst
		}
	}
}

func (v *view) gatherRow(dst []byte, at int) []byte {
	last, size := len(v.shape)-1, v.storage.dtype.Size()
	n, stride := v.shape[last], v.stride[last]
	if stride == 1 {
		return append(dst, v.storage.raw[at*size:][:n*size]...)
	}
	for range n {
		dst = append(dst, v.storage.raw[at*size:][:size]...)
		at += stride
	}
	return dst
}

// checkCopies bounds the memory that a file can take by the file's size. Real
// files meet it: their views that need a copy do not overlap.
func checkCopies(views map[string]*view, file int) error {
	total := 0
	for name, v := range views {
		if v.contiguous() {
			continue
		}
		n := v.elements * v.storage.dtype.Size()
		if n > file-total {
			return fmt.Errorf("tensor %s: the copies of tensors that are not contiguous take more than the file's %d bytes: make them contiguous before saving", name, file)
		}
		total += n
	}
	return nil
}
