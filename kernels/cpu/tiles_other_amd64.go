//go:build amd64 && !linux

package cpu

// permitTiles: only Linux is known to give the registers.
func permitTiles() bool { return false }
