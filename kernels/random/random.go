// Package random is the only source of chance in graft: a counter-based
// generator (Philox 4x32-10, Salmon et al., "Parallel random numbers: as easy
// as 1, 2, 3", SC 2011). A number depends on the seed, the purpose, a stream
// and a position, and on nothing that happened before, so there is no state
// to save, and any thread can draw any number.
package random

import (
	"math"
	"math/bits"
)

// Purpose separates the uses of one seed.
type Purpose uint32

// The purposes. Values are part of what a seed means: never renumber them.
const (
	Init    Purpose = 1 // initial values; stream: a hash of the tensor's name
	Shuffle Purpose = 2 // example order; stream: epoch
	Dropout Purpose = 3 // masks; stream: module, position: step and element
	Demo    Purpose = 4 // generated text of the demo
)

// At returns the four random words at a position of a stream.
func At(seed uint64, p Purpose, stream uint32, position uint64) [4]uint32 {
	c := [4]uint32{uint32(position), uint32(position >> 32), stream, uint32(p)}
	k0, k1 := uint32(seed), uint32(seed>>32)
	for range 10 {
		h0, l0 := mul(0xD2511F53, c[0])
		h1, l1 := mul(0xCD9E8D57, c[2])
		c = [4]uint32{h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0}
		k0 += 0x9E3779B9
		k1 += 0xBB67AE85
	}
	return c
}

func mul(a, b uint32) (hi, lo uint32) {
	p := uint64(a) * uint64(b)
	return uint32(p >> 32), uint32(p)
}

// Uniform returns the number in [0, 1), of 53 bits, at a position of a stream.
func Uniform(seed uint64, p Purpose, stream uint32, position uint64) float64 {
	w := At(seed, p, stream, position)
	return float64((uint64(w[0])<<32|uint64(w[1]))>>11) / (1 << 53)
}

// Normal returns the standard normal number at a position of a stream
// (Box and Muller).
func Normal(seed uint64, p Purpose, stream uint32, position uint64) float64 {
	w := At(seed, p, stream, position)
	u := (float64((uint64(w[0])<<32|uint64(w[1]))>>11) + 1) / (1 << 53)
	v := float64((uint64(w[2])<<32|uint64(w[3]))>>11) / (1 << 53)
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}

// Permutation returns the order of n things in a stream.
func Permutation(seed uint64, p Purpose, stream uint32, n int) []int32 {
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i)
	}
	for i := n - 1; i > 0; i-- {
		w := At(seed, p, stream, uint64(i))
		// The high word of a 64-bit product picks from i+1 things with a bias below 2⁻³².
		j, _ := bits.Mul64(uint64(w[0])<<32|uint64(w[1]), uint64(i+1))
		order[i], order[j] = order[j], order[i]
	}
	return order
}
