//go:build !unix

package kernels

import "unsafe"

// AllocHost returns n zeroed bytes.
func AllocHost(n int) (Host, error) {
	words := make([]uint64, (n+63)/8+8) // 64-byte alignment is found inside
	return align64(words)[:n], nil
}

// FreeHost gives back memory from AllocHost: the garbage collector has it.
func FreeHost(Host) {}

// align64 returns the bytes of words from the first multiple of 64 on.
func align64(words []uint64) Host {
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	return Host(b[-uintptr(unsafe.Pointer(&b[0]))&63:])
}
