//go:build arm64 && !(darwin && cgo)

package cpu

// accelerated returns nothing: Accelerate is on Macs, and needs cgo.
func accelerated() []*vectors { return nil }
