// Package pickle reads model weights from the files of PyTorch's torch.save:
// pytorch_model.bin, .pt, .pth, in the zip format and in the older one.
//
// Such a file is two things: the raw bytes of some storages, and a program for
// the pickle machine, Python's general object format, that builds dicts of
// tensors, each a strided view of a storage:
//
//	OrderedDict: "model.norm.weight" → _rebuild_tensor_v2(storage 0, offset 0, size (64,), stride (1,), …)
//
// In Python the program may call anything, so loading a file is running it.
// Here the machine is gopickle's, and it knows three functions and the storage
// classes; any other name is refused. A hostile program can still waste time
// and memory, so it is scanned before it runs (scan.go): every instruction is
// one that torch writes, no length reaches past the end, and an upper bound of
// all that it can allocate is small. The steps are:
//
//	find the program and the storages    zip.go, legacy.go
//	scan and run the program             scan.go, machine.go
//	find the state dict in its result    statedict.go
//	view or gather a tensor's elements   view.go
//
// The file is mapped. A contiguous tensor is a view of it; any other, such as a
// transposed one, is copied when it is first asked for. The copies of all
// tensors together are never larger than the file.
package pickle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"graft/model/internal/mapfile"
	"graft/model/internal/shards"
	"graft/model/stored"
)

// Open maps a file of torch.save and finds its state dict: the object itself,
// or what lies under "state_dict", "model_state_dict", "model" or "module".
// Entries that are no tensors are left out.
func Open(path string) (stored.Source, error) {
	m, err := mapfile.Open(path)
	if err != nil {
		return nil, err
	}
	views, err := parse(m.Data)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &source{path: path, file: m, views: views}, nil
}

// OpenIndexed opens the shards that a pytorch_model.bin.index.json lists. All
// must lie in the folder of the index.
func OpenIndexed(indexPath string) (stored.Source, error) { return shards.Open(indexPath, Open) }

// source is an open file.
type source struct {
	path  string
	file  *mapfile.File
	mu    sync.Mutex // guards the copies in views
	views map[string]*view
}

func (s *source) Names() []string { return slices.Sorted(maps.Keys(s.views)) }

func (s *source) Tensor(name string) (stored.Tensor, bool) {
	v, ok := s.views[name]
	if !ok {
		return stored.Tensor{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return stored.Tensor{Name: name, DType: v.storage.dtype, Shape: v.shape, Data: v.data(), File: s.path}, true
}

func (s *source) Close() error {
	s.views = nil
	return s.file.Close()
}

// parse reads a whole file, of either format.
func parse(file []byte) (map[string]*view, error) {
	var object any
	var err error
	switch {
	case bytes.HasPrefix(file, []byte("PK\x03\x04")):
		object, err = loadZip(file)
	case len(file) > 2 && file[0] == opProto:
		object, err = loadLegacy(file)
	default:
		err = errors.New("not a file of torch.save: truncated, or something else")
	}
	if err != nil {
		return nil, err
	}
	views, err := stateDict(object)
	if err != nil {
		return nil, err
	}
	return views, checkCopies(views, len(file))
}
