package trainer

import (
	"os"
	"strconv"
	"strings"
)

// peakMemory returns the largest resident set that the process has had, in
// bytes; 0 where the system does not tell. (getrusage would count what the
// parent held before it started the process.)
func peakMemory() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			return kib << 10
		}
	}
	return 0
}
