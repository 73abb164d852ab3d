package kernels

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// rounded is v to the nearest value with bits significant ones and exponents
// from least up, ties to even, by arithmetic on big numbers; beyond most it is
// infinite.
func rounded(v float32, bits, least int, most float64) float64 {
	if v == 0 || math.IsInf(float64(v), 0) {
		return float64(v)
	}
	_, exp := math.Frexp(math.Abs(float64(v)))
	unit := max(exp-bits, least)
	n := new(big.Rat).SetFloat64(math.Abs(float64(v)))
	scale := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(unit, -unit))))
	if unit > 0 {
		n.Quo(n, scale)
	} else {
		n.Mul(n, scale)
	}
	q, rest := new(big.Int).QuoRem(n.Num(), n.Denom(), new(big.Int))
	switch c := new(big.Int).Lsh(rest, 1).Cmp(n.Denom()); {
	case c > 0, c == 0 && q.Bit(0) == 1:
		q.Add(q, big.NewInt(1))
	}
	out := math.Ldexp(float64(q.Int64()), unit)
	if out > most {
		out = math.Inf(1)
	}
	return math.Copysign(out, float64(v))
}

// TestRandomRounding narrows float32s of random bits, and of the exponents
// where the 16-bit types end.
func TestRandomRounding(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 60000 {
		bits := r.Uint32()
		if i%2 == 0 { // around half's range: 2^-27 to 2^18
			bits = bits&0x807fffff | uint32(100+r.IntN(46))<<23
		}
		if i%5 == 0 { // few bits: ties
			bits &= 0xffffe000 >> r.IntN(2) << r.IntN(5)
		}
		v := math.Float32frombits(bits)
		if v != v {
			continue
		}
		if got, want := halfValue(Float32ToHalf(v)), rounded(v, 11, -24, 65504); !same(got, want) {
			t.Fatalf("F16 of %v (%#08x) is %v, want %v", v, bits, got, want)
		}
		if got, want := float64(BF16ToFloat32(Float32ToBF16(v))), rounded(v, 8, -133, 0x1.fep127); !same(got, want) {
			t.Fatalf("BF16 of %v (%#08x) is %v, want %v", v, bits, got, want)
		}
	}
}
