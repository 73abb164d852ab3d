package metal

import (
	"math/rand/v2"
	"testing"

	"graft/kernels"
)

func TestOverlap(t *testing.T) {
	memory := &paper{size: 4096}
	at := func(off, rows, cols, stride int) *kernels.Tensor {
		return &kernels.Tensor{DType: kernels.F32, Rows: rows, Cols: cols, Stride: stride, Buf: memory, Off: off}
	}
	for _, c := range []struct {
		name string
		a, b *kernels.Tensor
		want bool
	}{
		{"the same", at(0, 4, 8, 8), at(0, 4, 8, 8), true},
		{"one after the other", at(0, 4, 8, 8), at(128, 4, 8, 8), false},
		{"one element shared", at(0, 4, 8, 8), at(124, 4, 8, 8), true},
		{"column slices", at(0, 4, 3, 8), at(12, 4, 5, 8), false},
		{"column slices that share one", at(0, 4, 4, 8), at(12, 4, 5, 8), true},
		{"a slice that wraps into the next row", at(24, 4, 4, 8), at(0, 4, 2, 8), true},
		{"other strides", at(0, 4, 3, 8), at(12, 4, 3, 7), true},
		{"no rows", at(0, 0, 8, 8), at(0, 4, 8, 8), false},
	} {
		if got := overlap(c.a, c.b); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
		if got := overlap(c.b, c.a); got != c.want {
			t.Errorf("%s, the other way round: %v", c.name, got)
		}
	}
}

// TestSchedule: whatever the operations, those whose order matters keep it, those
// of one group are independent, and each is in one group.
func TestSchedule(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	shared := 0
	for range 300 {
		ops := randomOps(random, 40)
		place := map[int]int{}
		groups := schedule(ops)
		for g := range groups {
			for _, i := range groups[g].ops {
				if _, twice := place[i]; twice {
					t.Fatalf("operation %d is in two groups", i)
				}
				place[i] = g
			}
		}
		if len(place) != len(ops) {
			t.Fatalf("%d of %d operations are in groups", len(place), len(ops))
		}
		shared += len(ops) - len(groups)
		for i := range ops {
			for j := range i {
				if conflict(ops[i], ops[j]) && place[j] >= place[i] {
					t.Fatalf("operations %d and %d, whose order matters, are in groups %d and %d", j, i, place[j], place[i])
				}
			}
		}
	}
	if shared < 1000 {
		t.Errorf("only %d operations share launches", shared)
	}
}

// randomOps makes operations on a few slots of one memory.
func randomOps(random *rand.Rand, n int) []kernels.Op {
	const size = 8
	memory := &paper{size: 1 << 16}
	slot := func() *kernels.Tensor {
		return &kernels.Tensor{DType: kernels.F32, Rows: size, Cols: size, Stride: size, Buf: memory, Off: random.IntN(24) * size * size * 4}
	}
	var ops []kernels.Op
	for range n {
		switch random.IntN(4) {
		case 0:
			ops = append(ops, &kernels.WeightGrad{DY: slot(), X: slot(), DW: slot()})
		case 1:
			ops = append(ops, &kernels.Rotary{X: slot(), Table: slot(), Out: slot(), HeadDim: size})
		case 2:
			ops = append(ops, &kernels.Sum{A: slot(), B: slot(), Out: slot()})
		default:
			ops = append(ops, &kernels.Product{Terms: []kernels.Term{{X: slot(), W: slot()}}, Out: slot()})
		}
	}
	return ops
}

// TestCommonSide: small outputs share the tiles of large ones where that wastes
// little beside the work.
func TestCommonSide(t *testing.T) {
	one := func(rows, cols, depth int) sum {
		return sum{out: &kernels.Tensor{Rows: rows, Cols: cols}, terms: []factor{{depth: depth}}}
	}
	for _, c := range []struct {
		name string
		list []sum
		want int
	}{
		{"thin", []sum{one(1024, 16, 576), one(16, 576, 1024)}, 32},
		{"wide", []sum{one(1024, 576, 576)}, 64},
		{"thin beside wide", []sum{one(16, 576, 1024), one(1024, 1536, 576)}, 64},
		{"as much thin as wide", []sum{one(4096, 16, 4096), one(2048, 512, 64)}, 0},
		{"little of both", []sum{one(1024, 32, 80), one(1024, 32, 80), one(1024, 64, 80)}, 32},
		{"none", nil, 32},
	} {
		if got := commonSide(c.list); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
