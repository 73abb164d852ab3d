//go:build unix && !linux

package kernels

// advise has nothing to ask for: large pages are the system's own affair.
func advise([]byte) {}
