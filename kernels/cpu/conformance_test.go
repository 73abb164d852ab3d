package cpu

import (
	"fmt"
	"testing"

	"graft/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	for _, isa := range ISAs() {
		for _, threads := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s/threads=%d", isa, threads), func(t *testing.T) {
				b := New(Options{Threads: threads, ISA: isa})
				defer b.Close()
				kerneltest.Forward(t, b, 5e-6)
			})
		}
	}
}
