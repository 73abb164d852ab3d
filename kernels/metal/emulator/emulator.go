// Package emulator runs graft's Metal kernels on Linux, without a GPU, for
// tests: it turns the .metal files into C++ (package msl), compiles that with a
// prelude and a runtime (folder cpp) into a program, and talks to the program as
// a metal.Device.
//
//	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: emulator.Checked})
//	device, err := emulator.Open(program)
//	backend := metal.New(device, metal.Options{})
//
// The checked mode watches every access to memory. It reports, with file and
// line: races between threads that no barrier orders (both places), accesses
// outside a buffer, writes to what a kernel may only read, reads of threadgroup
// memory that nothing wrote, misaligned vectors, barriers and SIMD-group
// operations that only some threads reach, more than 32 KiB of threadgroup
// memory, and undefined behaviour. Each buffer argument has its own bounds even
// where arguments overlap, as for operations in place: a buffer sees the memory
// at an address of its own, and what is known about each byte is kept by where
// it lies in the memory, so a race through two arguments is seen too.
//
// The fast modes give kernels plain pointers. A kernel that touches what it
// should not may crash the program; Run then names the kernel.
package emulator

import "time"

// Options are how kernels are run. The zero value is what Open takes.
type Options struct {
	Steps        int           // accesses to memory that a launch may make, checked mode; 0: 2e9
	Time         time.Duration // processor time that a launch may take; 0: two minutes
	Workers      int           // threadgroups at a time, fast modes; 0: one a core. Results do not depend on it
	ReverseLanes bool          // threads run in the other order, which correct kernels do not notice
}
