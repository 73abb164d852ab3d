package cpu

import (
	"math"

	"graft/kernels/random"
)

// wholeDropout is vectors.dropout from position at on, for some multiple of
// elements.
type wholeDropout func(out, x []float32, at uint64, key0, key1, stream, purpose, least uint32, factor float32)

// dropoutWithTail makes vectors.dropout of one for multiples of 32, and leaves
// the rest to Go.
func dropoutWithTail(whole wholeDropout) func(out, x []float32, d *mask, row, column uint64) {
	return func(out, x []float32, d *mask, row, column uint64) {
		n := len(out) &^ 31
		if d.least > math.MaxUint32 {
			n = 0
		}
		if n > 0 {
			at := d.start + row*d.perRow + column/4
			whole(out[:n], x[:n], at, uint32(d.seed), uint32(d.seed>>32), d.stream, uint32(random.Dropout), uint32(d.least), d.factor)
		}
		plainDropout(out[n:], x[n:], d, row, column+uint64(n))
	}
}
