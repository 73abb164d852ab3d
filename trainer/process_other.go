//go:build !unix

package trainer

// peakMemory returns what the Go runtime has taken from the system: the
// system itself is not asked here.
func peakMemory() int { return processBytes() }
