//go:build !linux

package emulator

import (
	"errors"

	"graft/kernels/metal"
)

// Open is for Linux only.
func Open(program string) (metal.Device, error) { return Options{}.Open(program) }

// Open is for Linux only.
func (o Options) Open(program string) (metal.Device, error) {
	return nil, errors.New("the Metal emulator runs on Linux only")
}
