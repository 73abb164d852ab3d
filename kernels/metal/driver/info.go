//go:build darwin && cgo

package driver

// #include "driver.h"
import "C"

import (
	"strings"
	"unsafe"

	mac "github.com/progrium/macdriver/macos/metal"
	"github.com/progrium/macdriver/objc"
	"golang.org/x/sys/unix"

	"graft/kernels/metal"
)

// system returns the version of macOS, such as "15.1", and its build, where they
// are told.
func system() (version, build string) {
	version, _ = unix.Sysctl("kern.osproductversion")
	build, _ = unix.Sysctl("kern.osversion")
	return version, build
}

// families of GPUs, as MTLGPUFamily numbers them.
var families = []struct {
	code C.int64_t
	name string
}{{1007, "Apple7"}, {1008, "Apple8"}, {1009, "Apple9"}, {1010, "Apple10"}, {2002, "Mac2"}, {5001, "Metal3"}, {5002, "Metal4"}}

// describe asks a device what it is. This is off the hot path: macdriver's calls
// take microseconds.
func describe(p unsafe.Pointer) metal.DeviceInfo {
	var i metal.DeviceInfo
	objc.WithAutoreleasePool(func() {
		d := mac.DeviceWrapper{Object: objc.ObjectFrom(p)}
		i = metal.DeviceInfo{
			Name:             d.Name(),
			Memory:           int(d.RecommendedMaxWorkingSetSize()),
			MaxBuffer:        int(d.MaxBufferLength()),
			ThreadgroupBytes: int(d.MaxThreadgroupMemoryLength()),
		}
	})
	i.MaxThreads = int(C.gm_max_threads(p))
	var names []string
	for _, f := range families {
		if C.gm_family(p, f.code) != 0 {
			names = append(names, f.name)
		}
	}
	i.Detail = strings.Join(names, ", ")
	return i
}
