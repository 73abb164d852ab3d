// Package safetensors reads and writes model weights in the safetensors format:
//
//	8 bytes   n, the length of the header, little-endian
//	n bytes   a JSON object, padded with spaces:
//	          {"__metadata__": {"format": "pt"},
//	           "model.norm.weight": {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}, …}
//	the rest  the tensors' bytes, row-major, little-endian; offsets count from here
//
// Files are mapped, not read: [Open] looks at the header alone, and a tensor's
// bytes are loaded when something touches them. [Write] streams, so no second
// copy of the tensors is ever in memory.
//
//	f, err := safetensors.Open("model.safetensors")
//	t, ok := f.Tensor("model.norm.weight") // t.Data is a view of the file
//
// A file comes from anywhere, so the header is checked completely before the
// first tensor is given out: every tensor has as many bytes as its shape and
// type say, and the tensors cover the data without a gap or an overlap. A type
// that graft cannot decode is no error until someone needs the tensor's values:
// it is returned with DType 0 and its name in Foreign.
package safetensors

import (
	"fmt"
	"maps"
	"slices"

	"graft/model/internal/mapfile"
	"graft/model/internal/shards"
	"graft/model/stored"
)

// File is an open file. It is a stored.Source.
type File struct {
	Metadata map[string]string // the header's __metadata__; nil if it has none
	tensors  map[string]stored.Tensor
	file     *mapfile.File
}

// Open maps a file and checks its header.
func Open(path string) (*File, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := parse(path, m.Data)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.file = m
	return f, nil
}

// OpenIndexed opens the shards that a model.safetensors.index.json lists. All
// must lie in the folder of the index.
func OpenIndexed(indexPath string) (stored.Source, error) {
	return shards.Open(indexPath, func(path string) (stored.Source, error) {
		f, err := Open(path)
		if err != nil {
			return nil, err
		}
		return f, nil
	})
}

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string { return slices.Sorted(maps.Keys(f.tensors)) }

// Tensor returns the tensor called name, as a view of the file.
func (f *File) Tensor(name string) (stored.Tensor, bool) {
	t, ok := f.tensors[name]
	return t, ok
}

// Close unmaps the file; tensors are invalid afterwards.
func (f *File) Close() error {
	f.tensors = nil
	return f.file.Close()
}
