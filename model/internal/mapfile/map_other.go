//go:build !linux && !darwin

package mapfile

import (
	"io"
	"os"
)

func load(f *os.File, size int) (data []byte, mapped bool, err error) {
	data = make([]byte, size)
	_, err = io.ReadFull(f, data)
	return data, false, err
}

func unload([]byte) error { return nil }
