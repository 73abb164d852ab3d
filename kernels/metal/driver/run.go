package driver

import (
	"fmt"
	"time"

	"graft/kernels/metal"
)

// inFlight is how many command buffers are committed at a time: the GPU runs
// one while the next is written.
const inFlight = 2

// queue takes command buffers, known by T, and runs them in order.
type queue[T any] interface {
	// submit starts a command buffer with all launches of a list.
	submit(list []metal.Launch) (T, error)
	// wait returns the GPU time of a command buffer, when it has ended. It must
	// be called once for each.
	wait(commands T) (seconds float64, err error)
}

// part is launches [first, end) of a list, in one command buffer.
type part[T any] struct {
	first, end int
	commands   T
}

// run runs a list in command buffers of the budget's lengths, or with times in
// one for each launch. It returns when all that was submitted has ended, with
// the first error.
func run[T any](q queue[T], b *budget, list []metal.Launch, times []time.Duration) error {
	var flight []part[T]
	var failed error
	retire := func() {
		p := flight[0]
		flight = flight[1:]
		seconds, err := q.wait(p.commands)
		switch {
		case failed != nil: // what follows a failed buffer fails too
		case err != nil:
			failed = fmt.Errorf("metal: launches %d to %d of %d (%s to %s): %w", p.first, p.end-1, len(list),
				list[p.first].Kernel, list[p.end-1].Kernel, err)
		default:
			b.done(list[p.first:p.end], seconds)
			if times != nil {
				times[p.first] = time.Duration(seconds * 1e9)
			}
		}
	}
	for i := 0; i < len(list) && failed == nil; {
		n := 1
		if times == nil {
			n = b.next(list[i:])
		}
		commands, err := q.submit(list[i : i+n])
		if err != nil {
			failed = err
			break
		}
		flight = append(flight, part[T]{i, i + n, commands})
		if i += n; len(flight) == inFlight {
			retire()
		}
	}
	for len(flight) > 0 {
		retire()
	}
	return failed
}
