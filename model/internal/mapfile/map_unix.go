//go:build linux || darwin

package mapfile

import (
	"os"

	"golang.org/x/sys/unix"
)

func load(f *os.File, size int) (data []byte, mapped bool, err error) {
	data, err = unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_PRIVATE)
	return data, true, err
}

func unload(data []byte) error { return unix.Munmap(data) }
