package benchmark

import (
	"graft/kernels/metal"
	"graft/model"
	"graft/program"
)

// Dispatches counts the launches on a GPU of a training step of a model: the
// most that any layer takes forward, and backward with what is computed again.
// It needs no GPU.
func Dispatches(s StepOptions) (forward, backward int, err error) {
	m, err := model.Open(s.Model)
	if err != nil {
		return 0, 0, err
	}
	defer m.Close()
	b := metal.New(metal.NoDevice(), metal.Options{})
	run, err := prepare(m, b, s)
	if err != nil {
		return 0, 0, err
	}
	counts, err := b.Dispatches(run.Ops)
	if err != nil {
		return 0, 0, err
	}
	layers := map[int][2]int{}
	for i, n := range counts {
		l := run.Labels[i]
		if l.Layer < 0 {
			continue
		}
		sum := layers[l.Layer]
		if l.Pass == program.Forward {
			sum[0] += n
		} else {
			sum[1] += n
		}
		layers[l.Layer] = sum
	}
	for _, sum := range layers {
		forward, backward = max(forward, sum[0]), max(backward, sum[1])
	}
	return forward, backward, nil
}
