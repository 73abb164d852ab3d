package driver

// #include <stdlib.h>
// char *fake_seen(void);
// extern int fake_objects;
import "C"

import (
	"unsafe"

	"graft/kernels/metal"
)

func system() (version, build string) { return "15.1", "24B83" }

func describe(unsafe.Pointer) metal.DeviceInfo {
	return metal.DeviceInfo{Name: "Fake", Memory: 1 << 30, MaxBuffer: 1 << 29, MaxThreads: 1024, ThreadgroupBytes: 32 << 10}
}

// seen returns what the fake GPU was asked for since the last call.
func seen() string { return take(C.fake_seen()) }

// objects returns how many objects of the fake GPU are not released.
func objects() int { return int(C.fake_objects) }
