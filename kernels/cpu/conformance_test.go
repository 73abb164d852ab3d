package cpu

import (
	"testing"

	"graft/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	for i, isa := range ISAs() {
		t.Run(isa, func(t *testing.T) {
			t.Parallel()
			if isa == "go" && testing.Short() {
				t.Skip("plain Go takes its time")
			}
			b := New(Options{Threads: i + 1, ISA: isa})
			defer b.Close()
			kerneltest.Forward(t, b, 5e-6)
		})
	}
}
