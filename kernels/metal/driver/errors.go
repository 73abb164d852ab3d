package driver

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"graft/internal/units"
)

// needs is what a machine without Metal is told.
func needs(goos, goarch string) error {
	if goos == "darwin" {
		return errors.New("metal: this build has no cgo, which calling Metal needs: build on the Mac itself with CGO_ENABLED=1 (and Xcode's command line tools); backend: cpu works in any build")
	}
	return fmt.Errorf("metal: Metal needs macOS on Apple silicon, this is %s/%s; backend: cpu works everywhere", goos, goarch)
}

// oldestSystem is the first macOS whose Metal knows bfloat.
const oldestSystem = 14

// newEnough returns an error for a version of macOS, such as "13.6", that is
// too old. One that cannot be read is left to the compiler.
func newEnough(version string) error {
	major, _, _ := strings.Cut(version, ".")
	if n, err := strconv.Atoi(major); err == nil && n < oldestSystem {
		return fmt.Errorf("metal: this is macOS %s, the kernels need macOS %d or newer; backend: cpu works everywhere", version, oldestSystem)
	}
	return nil
}

// lessMemory is what a user can do about memory that is too small.
const lessMemory = "make train.batch_size or data.max_length smaller, set train.recompute to block, or take a smaller model"

// noMemory says that n bytes cannot be had, of a device on which held bytes are
// in use already.
func noMemory(n, held, most, recommended int) error {
	if n > most {
		return fmt.Errorf("metal: a buffer of %s, this GPU allows %s each: %s", units.Bytes(n), units.Bytes(most), lessMemory)
	}
	return fmt.Errorf("metal: no memory for %s more: %s are in use, and this GPU should not be given more than %s: %s",
		units.Bytes(n), units.Bytes(held), units.Bytes(recommended), lessMemory)
}

// Codes of MTLCommandBufferError.
const (
	errTimeout     = 2
	errPageFault   = 3
	errRevoked     = 4
	errNoMemory    = 8
	errInvalid     = 9
	errRemoved     = 11
	errStackExceed = 12
)

// advice is what a failed command buffer means, by its code.
var advice = map[int]string{
	errTimeout:     "the GPU took too long, so macOS ended the work: make train.batch_size or data.max_length smaller, and close other programs that use the GPU",
	errPageFault:   "the GPU read or wrote memory that is not there, an error in a kernel: please report it, with the output of train doctor; backend: cpu works meanwhile",
	errRevoked:     "macOS has barred this process from the GPU after earlier errors: start it again; if that repeats, restart the Mac",
	errNoMemory:    "the GPU's memory is full: " + lessMemory,
	errInvalid:     "a buffer was freed too early, an error in the program: please report it, with the output of train doctor",
	errRemoved:     "the GPU is gone: go on from the newest checkpoint with -resume",
	errStackExceed: "a kernel's stack overflowed: please report it, with the output of train doctor",
}

// commandError is the error of a command buffer: Metal's text, and what to do.
func commandError(code int, text string) error {
	if a := advice[code]; a != "" {
		return fmt.Errorf("%s: %s (Metal's error %d)", text, a, code)
	}
	return fmt.Errorf("%s (Metal's error %d): run train doctor; -resume goes on from the newest checkpoint", text, code)
}
