package kernels

import "golang.org/x/sys/unix"

// largePages is from what size on memory is asked for in large pages, of 2 MiB on
// most machines.
const largePages = 8 << 20

// advise asks for large pages: who goes down the columns of a matrix touches another
// page with every row, and the processor remembers the places of few pages. It is a
// wish; a system that grants none works as well.
func advise(b []byte) {
	if len(b) >= largePages {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	}
}
