package pickle

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/nlpodyssey/gopickle/types"
)

// The older format is a row of pickles and then the storages:
//
//	a magic number
//	the version of the protocol, 1001
//	a dict about the machine: little_endian and some sizes
//	the object, whose storages have persistent ids
//	a list of the storages' keys
//	for every key: the number of elements (8 bytes), and their bytes
const legacyVersion = 1001

var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

// loadLegacy reads a file in the older format.
func loadLegacy(file []byte) (any, error) {
	l := &legacy{rest: file, storages: map[string]*storage{}}
	if err := l.prologue(); err != nil {
		return nil, err
	}
	object, err := l.next(l.storage)
	if err != nil {
		return nil, err
	}
	if err := l.locate(); err != nil {
		return nil, err
	}
	return object, nil
}

// legacy is the place in a file and the storages that its object uses.
type legacy struct {
	rest     []byte
	storages map[string]*storage
}

// next runs the next pickle.
func (l *legacy) next(storageOf func(id) (*storage, error)) (any, error) {
	object, n, err := run(l.rest, storageOf)
	l.rest = l.rest[n:]
	return object, err
}

func (l *legacy) prologue() error {
	magic, err := l.next(nil)
	if err != nil {
		return err
	}
	if m, ok := magic.(*big.Int); !ok || m.Cmp(legacyMagic) != 0 {
		return errors.New("a pickle, but not a file of torch.save")
	}
	version, err := l.next(nil)
	if err != nil {
		return err
	}
	if version != legacyVersion {
		return fmt.Errorf("torch: not version %d of the older format", legacyVersion)
	}
	system, err := l.next(nil)
	if err != nil {
		return err
	}
	entries, _ := items(system)
	for _, e := range entries {
		if e.key == "little_endian" && e.value == true {
			return nil
		}
	}
	return errors.New("torch: byte order big: only little-endian files can be read: convert the file to safetensors where it was made")
}

// storage notes a storage; its bytes come later.
func (l *legacy) storage(i id) (*storage, error) {
	if s := l.storages[i.key]; s != nil {
		return s, sameStorage(s, i)
	}
	s, err := newStorage(i)
	l.storages[i.key] = s
	return s, err
}

// locate reads the list of keys and finds the bytes of every storage.
func (l *legacy) locate() error {
	object, err := l.next(nil)
	if err != nil {
		return err
	}
	keys, ok := object.(*types.List)
	if !ok {
		return errors.New("torch: no list of storages after the object")
	}
	found := map[string]bool{}
	for _, k := range *keys {
		key, ok := k.(string)
		s := l.storages[key]
		if !ok || s == nil {
			return errors.New("torch: the list of storages has one that no tensor uses")
		}
		if found[key] {
			return fmt.Errorf("torch: storage %s is there twice", short(key))
		}
		found[key] = true
		if err := l.cut(s); err != nil {
			return fmt.Errorf("torch: storage %s: %w", short(key), err)
		}
	}
	for key := range l.storages {
		if !found[key] {
			return fmt.Errorf("torch: storage %s is missing", short(key))
		}
	}
	return nil
}

// cut takes the next storage off the file.
func (l *legacy) cut(s *storage) error {
	if len(l.rest) < 8 {
		return errors.New("the file ends before it: truncated")
	}
	if n := binary.LittleEndian.Uint64(l.rest); n != uint64(s.elements) {
		return fmt.Errorf("%d elements, its tensors say %d", n, s.elements)
	}
	l.rest = l.rest[8:]
	n := s.size()
	if n > len(l.rest) {
		return fmt.Errorf("%d bytes, and only %d follow: truncated", n, len(l.rest))
	}
	s.raw, l.rest = l.rest[:n:n], l.rest[n:]
	return nil
}
