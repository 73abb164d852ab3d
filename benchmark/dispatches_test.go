package benchmark

import "testing"

// TestDispatches holds the launches of a layer with seven adapted projections to
// what they are, at sizes with small tiles and with large ones. (mlx-lm takes
// five or six for one adapted projection.)
func TestDispatches(t *testing.T) {
	for _, length := range []int{16, 256, 1024} {
		forward, backward, err := Dispatches(StepOptions{Model: "../configs/demo/model", Batch: 4, Length: length, Rank: 16})
		if err != nil {
			t.Fatal(err)
		}
		if forward != 14 || backward != 17 { // as docs/metal.md says
			t.Errorf("4 × %d tokens: %d launches forward and %d backward", length, forward, backward)
		}
	}
	if _, _, err := Dispatches(StepOptions{Model: "nowhere"}); err == nil {
		t.Error("no model, but launches")
	}
}
