package metal

import (
	"time"

	"graft/kernels"
)

// Device is a GPU that runs the kernels of this folder: the one of a Mac, or
// its emulation. It serves one goroutine at a time.
type Device interface {
	// Info describes the device; it never changes.
	Info() DeviceInfo
	// Alloc returns n bytes of zeroed memory, aligned to 256 bytes at least.
	Alloc(n int) (Memory, error)
	// Wrap returns memory that holds data: the same bytes where the device can
	// use them in place (data must then stay as it is), else a copy.
	Wrap(data []byte) (Memory, error)
	// Check returns what is wrong with a launch before it is run, such as too
	// many threads for the kernel's pipeline.
	Check(l *Launch) error
	// Run runs launches in order, each after what the one before it wrote, and
	// returns when the last has ended. With times, which is as long as the list,
	// it measures each launch by itself, which takes longer.
	Run(list []Launch, times []time.Duration) error
	// Close frees everything.
	Close() error
}

// Memory is memory that both the host and the device see. The host must not
// touch it while Run runs.
type Memory interface {
	kernels.Buffer
	// Skew returns how far behind a multiple of 16 bytes the memory begins, as
	// kernels see it: 0, 4, 8 or 12, and 0 for what Alloc returns.
	Skew() int
}

// DeviceInfo says what a device is and what it can do.
type DeviceInfo struct {
	Name             string // "Apple M3 Pro"
	Detail           string // "emulated, checked", family names, for people
	Memory           int    // bytes that programs should stay within; 0: not known
	MaxBuffer        int    // bytes of the largest buffer
	MaxThreads       int    // threads of one threadgroup
	ThreadgroupBytes int    // memory of one threadgroup
}

// Launch is one kernel, run over Groups threadgroups of Threads threads each.
// This is the whole interface between the host and the .metal files.
type Launch struct {
	Kernel  string    // its host_name
	Buffers []Binding // buffer(0), buffer(1), …
	Params  []byte    // the parameter structure, bound after the last buffer; may be empty
	Groups  [3]int    // threadgroups
	Threads [3]int    // threads of one threadgroup
	Shared  []int     // bytes of threadgroup(0), threadgroup(1), …, each a multiple of 16
}

// Binding is the part of a memory that a kernel may touch through one buffer
// argument. A Binding without Memory is one that the kernel is told not to use.
type Binding struct {
	Memory Memory
	Offset int // bytes; a multiple of 4, of 16 where the kernel reads vectors
	Size   int
}
