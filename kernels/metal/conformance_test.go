package metal_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"graft/kernels"
	"graft/kernels/kerneltest"
	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
)

// open returns a backend on the emulator.
func open(t *testing.T, mode emulator.Mode, activations kernels.DType) *metal.Backend {
	t.Helper()
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: mode})
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := emulator.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	b := metal.New(d, metal.Options{Activations: activations})
	t.Cleanup(func() { b.Close() })
	return b
}

// tolerances are what rounding to a type of activations may cost, relative to
// the scale of a row.
var tolerances = []struct {
	activations kernels.DType
	of          float64
}{{kernels.F32, 5e-6}, {kernels.F16, 2e-3}, {kernels.BF16, 1.6e-2}}

// TestConformance runs the suite in every build of the emulator, with every type
// of activations: wholly in float32 and fast, and wholly in all nine where
// GRAFT_METAL_FULL is set, which takes minutes.
func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the emulator takes its time")
	}
	for _, mode := range []emulator.Mode{emulator.Fast, emulator.FastMath, emulator.Checked} {
		for _, tolerance := range tolerances {
			t.Run(fmt.Sprintf("%v %v", mode, tolerance.activations), func(t *testing.T) {
				b := open(t, mode, tolerance.activations)
				if os.Getenv("GRAFT_METAL_FULL") != "" || mode == emulator.Fast && tolerance.activations == kernels.F32 {
					kerneltest.Forward(t, b, tolerance.of)
					return
				}
				kerneltest.Quick(t, b, tolerance.of)
			})
		}
	}
}

// TestLossInParts: the rows of a loss may be worked on in several parts.
func TestLossInParts(t *testing.T) {
	if testing.Short() {
		t.Skip("the emulator takes its time")
	}
	defer metal.LimitLogits(1, 3)()
	for _, mode := range []emulator.Mode{emulator.Fast, emulator.Checked} {
		kerneltest.Kinds(t, open(t, mode, kernels.F32), 5e-6, []string{"cross_entropy"}, t.Failed)
	}
}

// TestStrict checks address spaces and conversions as Metal does, which C++ has
// not.
func TestStrict(t *testing.T) {
	err := emulator.Strict(nil)
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Error(err)
	}
}
