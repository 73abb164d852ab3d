package data

import (
	"fmt"
	"slices"

	"graft/kernels/random"
)

// LoaderOptions say how examples are put into steps.
type LoaderOptions struct {
	Seed       uint64
	Shuffle    bool
	BatchSize  int // sequences in a micro-batch
	Accumulate int // micro-batches in a step
}

// Loader says which examples each step trains. It carries no position: a step
// is a function of its number.
//
// Each epoch visits all examples once, in an order of its own. A step takes
// the next BatchSize·Accumulate of them; the last step of an epoch takes what
// is left.
type Loader struct {
	n       int
	options LoaderOptions
	epoch   int     // that order belongs to; -1: none
	order   []int32 // nil: as they are
}

// NewLoader returns the loader of a set with n examples.
func NewLoader(n int, o LoaderOptions) *Loader {
	if n < 1 || o.BatchSize < 1 || o.Accumulate < 1 {
		panic(fmt.Sprintf("data: NewLoader: %d examples, %+v", n, o))
	}
	return &Loader{n: n, options: o, epoch: -1}
}

// StepsPerEpoch returns the number of optimizer steps of one epoch.
func (l *Loader) StepsPerEpoch() int { return (l.n + l.window() - 1) / l.window() }

// window is the number of examples of a full step.
func (l *Loader) window() int { return l.options.BatchSize * l.options.Accumulate }

// Position is where a step starts.
type Position struct {
	Epoch   int `json:"epoch"`
	Example int `json:"example"` // within the epoch's order
}

// Position returns where step, counted from 0, starts.
func (l *Loader) Position(step int) Position {
	per := l.StepsPerEpoch()
	return Position{Epoch: step / per, Example: step % per * l.window()}
}

// Window returns the examples of step, counted from 0, by micro-batch.
func (l *Loader) Window(step int) [][]int32 {
	p := l.Position(step)
	if p.Epoch != l.epoch {
		l.epoch, l.order = p.Epoch, l.orderOf(p.Epoch)
	}
	all := l.order[p.Example:min(p.Example+l.window(), l.n)]
	var out [][]int32
	for len(all) > 0 {
		k := min(l.options.BatchSize, len(all))
		out = append(out, all[:k:k])
		all = all[k:]
	}
	return out
}

func (l *Loader) orderOf(epoch int) []int32 {
	if l.options.Shuffle {
		return random.Permutation(l.options.Seed, random.Shuffle, uint32(epoch), l.n)
	}
	order := make([]int32, l.n)
	for i := range order {
		order[i] = int32(i)
	}
	return order
}

// mostScanned bounds the examples that Capacity looks at one by one.
const mostScanned = 1 << 24

// Capacity returns the most tokens, trained tokens and sequences that any
// micro-batch of the first steps steps has; where there are too many of them to
// look at, the most that any micro-batch could have.
func (l *Loader) Capacity(s *Set, steps int) (tokens, rows, sequences int) {
	if !l.options.Shuffle { // all epochs are alike
		steps = min(steps, l.StepsPerEpoch())
	}
	if steps > mostScanned/min(l.window(), l.n) {
		return l.bound(s)
	}
	scan := NewLoader(l.n, l.options) // leaves the order that l has cached alone
	for step := range steps {
		for _, examples := range scan.Window(step) {
			t, r, n := s.Size(examples)
			tokens, rows, sequences = max(tokens, t), max(rows, r), max(sequences, n)
		}
	}
	return tokens, rows, sequences
}

// bound is the size of a micro-batch of the longest examples, and of those with
// most trained tokens.
func (l *Loader) bound(s *Set) (tokens, rows, sequences int) {
	all := make([][2]int, l.n)
	for i := range all {
		all[i][0], all[i][1], _ = s.Size([]int32{int32(i)})
	}
	most := func(kind int) (sum int) {
		slices.SortFunc(all, func(a, b [2]int) int { return b[kind] - a[kind] })
		for _, size := range all[:min(l.options.BatchSize, l.n)] {
			sum += size[kind]
		}
		return sum
	}
	return most(0), most(1), min(l.options.BatchSize, l.n)
}
