//go:build unix && !linux

package trainer

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// peakMemory returns the largest resident set that the process has had, in
// bytes.
func peakMemory() int {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	if runtime.GOOS == "darwin" {
		return int(u.Maxrss)
	}
	return int(u.Maxrss) * 1024
}
