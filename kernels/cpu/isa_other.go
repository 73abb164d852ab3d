//go:build !amd64 && !arm64

package cpu

// available returns the instruction sets of this machine, the best last.
func available() []*vectors { return []*vectors{&plain} }

// pause lets a moment pass, where there is an instruction for it.
func pause() {}
