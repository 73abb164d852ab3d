package metal_test

import (
	"errors"
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

func TestConformance(t *testing.T) {
	kerneltest.Forward(t, open(t, emulator.Fast, kernels.F32), 5e-6)
}
