package main

import "golang.org/x/sys/unix"

// installedMemory returns the machine's memory in bytes, 0 where the system does
// not tell.
func installedMemory() int {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int(n)
}
