package driver

import "graft/kernels/metal"

// target is the GPU time of a command buffer in seconds. The display's frames
// are drawn between command buffers: longer ones make the screen stutter, and
// the system ends those that take seconds.
const target = 8e-3

// firstLaunches is how many launches of unknown length a command buffer takes.
const firstLaunches = 8

// budget decides how many launches a command buffer takes. It learns from the
// time of each buffer how long a threadgroup of each kernel takes.
type budget struct {
	seconds map[string]float64 // of a threadgroup, by kernel
}

// next returns how many launches of a list's front fill a command buffer: one
// at least, unless the list is empty.
func (b *budget) next(list []metal.Launch) int {
	sum := 0.0
	for i := range list {
		sum += b.estimate(&list[i])
		if sum > target && i > 0 {
			return i
		}
	}
	return len(list)
}

// done tells how long a command buffer took. All its kernels are corrected in
// proportion, by a factor of four at most, since one slow kernel among them
// makes the others look slow as well.
func (b *budget) done(list []metal.Launch, seconds float64) {
	sum := 0.0
	for i := range list {
		sum += b.estimate(&list[i])
	}
	if !(seconds > 0) || sum == 0 { // a clock that did not run
		return
	}
	factor := min(max(seconds/sum, 0.25), 4)
	corrected := map[string]float64{}
	for i := range list {
		l := &list[i]
		corrected[l.Kernel] = factor * b.estimate(l) / float64(groups(l))
	}
	if b.seconds == nil {
		b.seconds = map[string]float64{}
	}
	for kernel, s := range corrected {
		b.seconds[kernel] = s
	}
}

// estimate returns the seconds that a launch may take.
func (b *budget) estimate(l *metal.Launch) float64 {
	s, known := b.seconds[l.Kernel]
	if !known {
		return target / firstLaunches
	}
	return s * float64(groups(l))
}

// groups returns the threadgroups of a launch, at least one.
func groups(l *metal.Launch) int { return max(1, l.Groups[0]*l.Groups[1]*l.Groups[2]) }
