//go:build unix

package kernels

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// AllocHost returns n zeroed bytes outside the Go heap, page-aligned, so that
// the garbage collector neither scans large buffers nor lets the heap grow in
// proportion to them. Pages take memory when they are first touched.
func AllocHost(n int) (Host, error) {
	if n == 0 {
		return Host{}, nil
	}
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("cannot have %d bytes of memory: %w", n, err)
	}
	advise(b)
	return b, nil
}

// FreeHost gives back memory from AllocHost.
func FreeHost(h Host) {
	if len(h) > 0 {
		if err := unix.Munmap(h); err != nil {
			panic(fmt.Sprintf("kernels: FreeHost: %v", err))
		}
	}
}
