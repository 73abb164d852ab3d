package driver

import (
	"fmt"

	"graft/kernels/metal"
)

// Limits of Metal itself, the same on every Mac.
const (
	maxBuffers = 31   // arguments of a kernel that are buffers
	maxParams  = 4096 // bytes that can be bound without a buffer
	maxGroups  = 1<<31 - 1
)

// limits are those of a kernel's pipeline on a device.
type limits struct {
	threads     int // of a threadgroup
	static      int // threadgroup memory that the kernel declares, in bytes
	threadgroup int // threadgroup memory of the device, in bytes
}

// check returns what is wrong with a launch. Metal itself would not run it, and
// would not say so.
func check(l *metal.Launch, is limits) error {
	threads := l.Threads[0] * l.Threads[1] * l.Threads[2]
	shared := is.static
	for i, n := range l.Shared {
		if n <= 0 || n%16 != 0 {
			return fmt.Errorf("metal: %s: threadgroup(%d) has %d bytes, want a positive multiple of 16", l.Kernel, i, n)
		}
		shared += n
	}
	buffers := len(l.Buffers)
	if len(l.Params) > 0 {
		buffers++
	}
	switch {
	case min(l.Threads[0], l.Threads[1], l.Threads[2]) < 1:
		return fmt.Errorf("metal: %s: threadgroups of %v threads", l.Kernel, l.Threads)
	case threads > is.threads:
		return fmt.Errorf("metal: %s: %d threads a threadgroup, this GPU allows %d for this kernel", l.Kernel, threads, is.threads)
	case min(l.Groups[0], l.Groups[1], l.Groups[2]) < 1 || max(l.Groups[0], l.Groups[1], l.Groups[2]) > maxGroups:
		return fmt.Errorf("metal: %s: a grid of %v threadgroups, want 1 to %d each way", l.Kernel, l.Groups, maxGroups)
	case shared > is.threadgroup:
		return fmt.Errorf("metal: %s: %d bytes of threadgroup memory, this GPU has %d", l.Kernel, shared, is.threadgroup)
	case buffers > maxBuffers:
		return fmt.Errorf("metal: %s: %d buffers, Metal binds %d", l.Kernel, buffers, maxBuffers)
	case len(l.Params) > maxParams:
		return fmt.Errorf("metal: %s: %d bytes of parameters, Metal binds %d", l.Kernel, len(l.Params), maxParams)
	}
	return checkBindings(l)
}

// checkBindings looks for a part of a memory that lies outside of it.
func checkBindings(l *metal.Launch) error {
	for i, b := range l.Buffers {
		if b.Memory == nil {
			continue
		}
		if n := b.Memory.Size(); b.Offset < 0 || b.Size < 0 || b.Size > n || b.Offset > n-b.Size || b.Offset%4 != 0 {
			return fmt.Errorf("metal: %s: buffer(%d): %d bytes at %d, of %d", l.Kernel, i, b.Size, b.Offset, n)
		}
	}
	return nil
}
