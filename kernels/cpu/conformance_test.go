package cpu

import (
	"testing"

	"graft/kernels/kerneltest"
)

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long under the race detector; the other tests run every kind too")
	}
	for i, isa := range ISAs() {
		t.Run(isa, func(t *testing.T) {
			t.Parallel()
			b := New(Options{Threads: i + 1, ISA: isa})
			defer b.Close()
			kerneltest.Forward(t, b, 5e-6)
		})
	}
	for _, v := range otherwiseTiled() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := &Backend{v: v, pool: newPool(2)}
			defer b.Close()
			kerneltest.Kinds(t, b, 5e-6, []string{"product", "weight_grad", "cross_entropy"}, func() bool { return false })
		})
	}
}
