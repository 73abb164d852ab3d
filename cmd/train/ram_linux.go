package main

import "golang.org/x/sys/unix"

// installedMemory returns the machine's memory in bytes, 0 where the system does
// not tell.
func installedMemory() int {
	var i unix.Sysinfo_t
	if unix.Sysinfo(&i) != nil {
		return 0
	}
	return int(uint64(i.Totalram) * uint64(i.Unit))
}
