package random

import (
	"math"
	"testing"
)

// The vectors are those of Random123's kat_vectors for philox4x32-10.
func TestPhiloxVectors(t *testing.T) {
	for _, c := range []struct {
		counter, want [4]uint32
		key           uint64
	}{
		{[4]uint32{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}, 0},
		{[4]uint32{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
			[4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}, 0xffffffffffffffff},
		{[4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
			[4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}, 0x299f31d0a4093822},
	} {
		got := At(c.key, Purpose(c.counter[3]), c.counter[2], uint64(c.counter[1])<<32|uint64(c.counter[0]))
		if got != c.want {
			t.Errorf("counter %x: got %x, want %x", c.counter, got, c.want)
		}
	}
}

func TestMoments(t *testing.T) {
	const n = 20000
	var su, sn, sn2 float64
	for i := range uint64(n) {
		u, v := Uniform(7, Init, 1, i), Normal(7, Init, 2, i)
		if u < 0 || u >= 1 {
			t.Fatalf("uniform number %v", u)
		}
		su, sn, sn2 = su+u, sn+v, sn2+v*v
	}
	if math.Abs(su/n-0.5) > 0.01 || math.Abs(sn/n) > 0.03 || math.Abs(sn2/n-1) > 0.05 {
		t.Errorf("means %v, %v, second moment %v", su/n, sn/n, sn2/n)
	}
}

func TestPermutation(t *testing.T) {
	a, b := Permutation(1, Shuffle, 0, 100), Permutation(1, Shuffle, 1, 100)
	seen, moved := map[int32]bool{}, 0
	for i, v := range a {
		seen[v] = true
		if v != b[i] {
			moved++
		}
	}
	if len(seen) != 100 || moved < 90 {
		t.Errorf("%d distinct values, %d differ between epochs", len(seen), moved)
	}
}
