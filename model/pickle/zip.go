package pickle

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxDirectory bounds the zip directory, which takes memory for every entry:
// about 600,000 of them.
const maxDirectory = 64 << 20

// archive is a mapped zip file as torch.save writes it: NAME/data.pkl is the
// program, NAME/data/KEY the bytes of storage KEY, uncompressed. Checksums are
// not verified, since that would read the whole file.
type archive struct {
	file    []byte
	root    string // NAME/
	entries map[string]*zip.File
}

// loadZip reads a file in the zip format.
func loadZip(file []byte) (any, error) {
	a, err := openArchive(file)
	if err != nil {
		return nil, err
	}
	if err := a.checkByteOrder(); err != nil {
		return nil, err
	}
	program, err := a.bytes("data.pkl")
	if err != nil {
		return nil, err
	}
	storages := map[string]*storage{}
	object, _, err := run(program, func(i id) (*storage, error) {
		if s := storages[i.key]; s != nil {
			return s, sameStorage(s, i)
		}
		s, err := a.storage(i)
		storages[i.key] = s
		return s, err
	})
	return object, err
}

func openArchive(file []byte) (*archive, error) {
	r, err := zip.NewReader(&limitedReader{bytes.NewReader(file), maxDirectory}, int64(len(file)))
	if err != nil {
		return nil, fmt.Errorf("zip: %w: truncated or damaged", err)
	}
	a := &archive{file: file, entries: make(map[string]*zip.File, len(r.File))}
	for _, f := range r.File {
		if a.entries[f.Name] != nil {
			return nil, fmt.Errorf("zip: %s is there twice", short(f.Name))
		}
		a.entries[f.Name] = f
		root, ok := strings.CutSuffix(f.Name, "data.pkl")
		if !ok || strings.Count(root, "/") != 1 || !strings.HasSuffix(root, "/") {
			continue
		}
		if a.root != "" {
			return nil, fmt.Errorf("zip: both %sdata.pkl and %sdata.pkl: which one?", short(a.root), short(root))
		}
		a.root = root
	}
	if a.root == "" {
		return nil, errors.New("zip: no data.pkl: not a file of torch.save")
	}
	return a, nil
}

// checkByteOrder refuses the files of big-endian machines, which say so.
func (a *archive) checkByteOrder() error {
	if a.entries[a.root+"byteorder"] == nil {
		return nil // older than that entry
	}
	order, err := a.bytes("byteorder")
	if err != nil {
		return err
	}
	if string(order) != "little" {
		return fmt.Errorf("torch: byte order %.20q: only little-endian files can be read: convert the file to safetensors where it was made", order)
	}
	return nil
}

// bytes returns an entry's bytes, as a view of the file.
func (a *archive) bytes(name string) ([]byte, error) {
	f := a.entries[a.root+name]
	if f == nil {
		return nil, errorf("zip: %s is missing", short(a.root+name))
	}
	const encrypted = 1
	if f.Method != zip.Store || f.Flags&encrypted != 0 || f.CompressedSize64 != f.UncompressedSize64 {
		return nil, errorf("zip: %s is compressed, which torch.save never does: save the file again", short(f.Name))
	}
	begin, err := f.DataOffset()
	if err != nil {
		return nil, errorf("zip: %s: %v: truncated or damaged", short(f.Name), err)
	}
	if begin < 0 || begin > int64(len(a.file)) || f.UncompressedSize64 > uint64(int64(len(a.file))-begin) {
		return nil, errorf("zip: %s runs past the end of the file: truncated", short(f.Name))
	}
	end := begin + int64(f.UncompressedSize64)
	return a.file[begin:end:end], nil
}

func (a *archive) storage(i id) (*storage, error) {
	s, err := newStorage(i)
	if err != nil {
		return nil, err
	}
	raw, err := a.bytes("data/" + i.key)
	if err != nil {
		return nil, err
	}
	if len(raw) < s.size() {
		return nil, errorf("torch: storage %s has %d bytes, %d elements of %v need %d", short(i.key), len(raw), i.elements, i.dtype, s.size())
	}
	s.raw = raw[:s.size():s.size()]
	return s, nil
}

// sameStorage refuses a second description of a storage that is not the first.
func sameStorage(s *storage, i id) error {
	if s.id != i {
		return errorf("torch: storage %s is %d elements of %v in one place and %d of %v in another",
			short(i.key), s.elements, s.dtype, i.elements, i.dtype)
	}
	return nil
}

// limitedReader reads so many bytes in all, then fails.
type limitedReader struct {
	io.ReaderAt
	left int
}

func (r *limitedReader) ReadAt(p []byte, at int64) (int, error) {
	if len(p) > r.left {
		return 0, errors.New("the directory is too large")
	}
	r.left -= len(p)
	return r.ReaderAt.ReadAt(p, at)
}
