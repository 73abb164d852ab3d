package optim

import (
	"math"
	"testing"
)

func TestSchedule(t *testing.T) {
	for _, c := range []struct {
		s    Schedule
		step int
		want float64
	}{
		{Schedule{Cosine, 0.005, 0, 4, 32}, 1, 0.00125}, // golden/stories260k
		{Schedule{Cosine, 0.005, 0, 4, 32}, 4, 0.005},
		{Schedule{Cosine, 0.005, 0, 4, 32}, 5, 0.005},
		{Schedule{Cosine, 0.005, 0, 4, 32}, 6, 0.004984280524733107},
		{Schedule{Cosine, 0.005, 0, 4, 32}, 32, 1.571947526689349e-05},
		{Schedule{Cosine, 1, 0.1, 0, 10}, 1, 1},
		{Schedule{Cosine, 1, 0.1, 0, 10}, 6, 0.55},
		{Schedule{Cosine, 1, 0.1, 0, 10}, 11, 0.1},
		{Schedule{Cosine, 1, 0.1, 0, 10}, 1000, 0.1},
		{Schedule{Linear, 1, 0, 0, 4}, 1, 1},
		{Schedule{Linear, 1, 0, 0, 4}, 3, 0.5},
		{Schedule{Linear, 1, 0.2, 2, 6}, 5, 0.6},
		{Schedule{Constant, 3, 0, 2, 6}, 1, 1.5},
		{Schedule{Constant, 3, 0, 2, 6}, 6, 3},
		{Schedule{Cosine, 1, 0, 5, 5}, 5, 1},
		{Schedule{Linear, 1, 0, 0, 1}, 1, 1},
	} {
		if got := c.s.At(c.step); math.Abs(got-c.want) > 1e-15 {
			t.Errorf("%+v at step %d: %v, want %v", c.s, c.step, got, c.want)
		}
	}
}
