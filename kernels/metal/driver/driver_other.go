//go:build !darwin || !cgo

package driver

import (
	"runtime"

	"graft/kernels/metal"
)

// Open returns why this build has no Metal.
func Open() (metal.Device, error) { return nil, needs(runtime.GOOS, runtime.GOARCH) }
