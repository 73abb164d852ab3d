package metal_test

import (
	"errors"
	"fmt"
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
var tolerances = map[kernels.DType]float64{kernels.F32: 5e-6, kernels.F16: 2e-3, kernels.BF16: 1.6e-2}

func TestConformance(t *testing.T) {
	for _, mode := range []emulator.Mode{emulator.Fast, emulator.FastMath, emulator.Checked} {
		for activations, tolerance := range tolerances {
			t.Run(fmt.Sprintf("%v %v", mode, activations), func(t *testing.T) {
				kerneltest.Forward(t, open(t, mode, activations), tolerance)
			})
		}
	}
}
