package accelerate

import (
	"math"
	"testing"
)

func TestCheck(t *testing.T) {
	fails := func(rows, cols, ld, n int) (failed bool) {
		defer func() { failed = recover() != nil }()
		check("A", rows, cols, ld, n)
		return false
	}
	for _, c := range []struct {
		rows, cols, ld, n int
		bad               bool
	}{
		{1, 1, 1, 1, false}, {3, 4, 4, 12, false}, {3, 4, 6, 16, false}, {1, 4, 100, 4, false},
		{3, 4, 6, 15, true}, {3, 4, 3, 100, true}, {0, 4, 4, 100, true}, {3, 0, 4, 100, true}, {-3, 4, 4, 100, true},
		{1, 1, math.MaxInt32 + 1, 1, true}, {math.MaxInt32 + 1, 1, 1, math.MaxInt, true},
	} {
		if got := fails(c.rows, c.cols, c.ld, c.n); got != c.bad {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if rows, cols := stored(3, 5, true); rows != 5 || cols != 3 {
		t.Errorf("transposed 3×5 lies as %d×%d", rows, cols)
	}
	if rows, cols := stored(3, 5, false); rows != 3 || cols != 5 {
		t.Errorf("3×5 lies as %d×%d", rows, cols)
	}
}
