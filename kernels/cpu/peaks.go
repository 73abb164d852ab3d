package cpu

import (
	"time"

	"graft/kernels"
)

const (
	// Short rounds, the best of which counts: on a shared machine only short
	// stretches are undisturbed.
	arithmeticRounds = 20
	arithmeticTime   = time.Millisecond // a round
	memoryRounds     = 4

	peakBytes = 32 << 20 // of each of two buffers: more than caches hold together
	peakSide  = 1024     // of the matrices that a library multiplies
)

// peaks measures what the machine can do at best.
type peaks struct {
	v        *vectors
	rounds   int
	flops    []float64 // by task
	from, to []float32
	f        peakKind
}

type peakKind uint8

const (
	peakArithmetic peakKind = iota
	peakTouch               // untouched pages are all the same page of zeros
	peakCopy
	peakRead
)

// Peaks measures the multiply-add rate of all threads, or of a library where that
// is higher, in floating point operations per second, and the rate at which they read memory, or copy it
// (counting both ends) if that is faster, in bytes per second, beyond the
// caches. It takes less than a tenth of a second. With products in pieces it is the
// rate of those of float32; of weights in bfloat16 there may be twice as many.
func (b *Backend) Peaks() (flops, bytesPerSecond float64) {
	n := len(b.pool.workers)
	p := &peaks{v: b.v, flops: make([]float64, n), rounds: 1 << 12}
	best := func(f peakKind, rounds int) time.Duration {
		p.f = f
		least := time.Hour
		for range rounds {
			start := time.Now()
			b.pool.run(p, n)
			least = min(least, time.Since(start))
		}
		return max(least, time.Nanosecond)
	}
	p.rounds = int(float64(p.rounds) * float64(arithmeticTime) / float64(best(peakArithmetic, 3)))
	took := best(peakArithmetic, arithmeticRounds)
	for _, f := range p.flops {
		flops += f
	}
	flops /= took.Seconds()

	h, err := kernels.AllocHost(2 * peakBytes)
	if err != nil {
		return flops, 0
	}
	defer kernels.FreeHost(h)
	p.from, p.to = floats(h[:peakBytes]), floats(h[peakBytes:])
	p.f = peakTouch
	b.pool.run(p, n)
	if b.v.blas != nil {
		flops = max(flops, b.v.blas.peak(peakSide, p.from))
	}
	bytesPerSecond = 2 * peakBytes / best(peakCopy, memoryRounds).Seconds()
	return flops, max(bytesPerSecond, peakBytes/best(peakRead, memoryRounds).Seconds())
}

func (p *peaks) do(_ *worker, task int) {
	n := len(p.flops)
	i, j := portion(len(p.from), n, task)
	switch p.f {
	case peakArithmetic:
		p.flops[task] = p.v.peak(p.rounds)
	case peakTouch:
		for at := i; at < j; at += 256 {
			p.from[at], p.to[at] = 1, 1
		}
	case peakCopy:
		copy(p.to[i:j], p.from[i:j])
	case peakRead:
		p.v.maxOf(p.from[i:j])
	}
}
