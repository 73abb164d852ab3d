// Package mapfile gives read-only access to the bytes of a file without
// reading them: on Linux and macOS the file is mapped, so that opening costs
// the same for a kilobyte and for a terabyte and pages are loaded when they are
// first touched; elsewhere the file is read.
//
// A mapping shows the file itself, not a copy. Whoever truncates a mapped file
// in place makes the next access to the lost pages a SIGBUS: programs must
// replace weights by renaming a new file over the old one, as all writers of
// this project do. It ends the process, except on goroutines for which
// runtime/debug.SetPanicOnFault makes it a panic: those that read weights, the
// CPU's workers and the trainer's, have asked for that, so that the trainer can
// end the run with the name of the file.
package mapfile

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"graft/internal/files"
)

// File is an open file. Data must not be written to, nor used after Close.
type File struct {
	Path   string
	Data   []byte
	mapped bool
}

// Open maps a regular file. Errors begin with the path.
func Open(path string) (*File, error) {
	f, err := files.Open(path)
	if err != nil {
		return nil, wrap(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, wrap(path, err)
	}
	if info.Size() > math.MaxInt {
		return nil, fmt.Errorf("%s: %d bytes are too many for this machine", path, info.Size())
	}
	m := &File{Path: path}
	if info.Size() == 0 { // an empty mapping is an error
		return m, nil
	}
	if m.Data, m.mapped, err = load(f, int(info.Size())); err != nil {
		return nil, wrap(path, err)
	}
	return m, nil
}

// Close unmaps the file. Closing twice does nothing.
func (m *File) Close() error {
	data, mapped := m.Data, m.mapped
	m.Data, m.mapped = nil, false
	if !mapped {
		return nil
	}
	if err := unload(data); err != nil {
		return wrap(m.Path, err)
	}
	return nil
}

// wrap puts the path in front, once.
func wrap(path string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%s: %w", path, err)
}
