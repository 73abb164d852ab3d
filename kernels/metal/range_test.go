package metal_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"graft/kernels"
	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
	"graft/kernels/reference"
)

// The conformance suite draws inputs of moderate size. These tests take single
// functions of the kernels to the ends of their ranges.

// holding returns a matrix of values without gaps.
func holding(t *testing.T, b kernels.Backend, d kernels.DType, rows, cols int, values []float64) *kernels.Tensor {
	t.Helper()
	buf, err := b.Alloc(max(1, d.Bytes(rows*cols)))
	if err != nil {
		t.Fatal(err)
	}
	m := &kernels.Tensor{DType: d, Rows: rows, Cols: cols, Stride: cols, Buf: buf}
	if values != nil {
		data := make([]byte, d.Bytes(rows*cols))
		kernels.EncodeFloat64(data, values, d)
		buf.Write(data, 0)
	}
	return m
}

func numbered(t *testing.T, b kernels.Backend, v []int32) *kernels.Tensor {
	t.Helper()
	m := holding(t, b, kernels.I32, len(v), 1, nil)
	m.SetInt32s(v)
	return m
}

func run(t *testing.T, b kernels.Backend, op kernels.Op) {
	t.Helper()
	if err := b.Run([]kernels.Op{op}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestNarrow: a float64 becomes the float32 that Go makes of it, to the bit.
// Half of the numbers are ties or next to one, around every exponent there is.
func TestNarrow(t *testing.T) {
	b := open(t, emulator.Fast, kernels.F32)
	random := rand.New(rand.NewPCG(3, 4))
	values := []float64{0, math.Copysign(0, -1), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64,
		math.MaxFloat32, math.SmallestNonzeroFloat32, math.SmallestNonzeroFloat32 / 2}
	for exponent := uint64(0); exponent < 2047; exponent++ {
		for range 4 {
			sign, fraction := random.Uint64()<<63, random.Uint64()&(1<<52-1)
			values = append(values, math.Float64frombits(sign|exponent<<52|fraction))
			// The float32 normals drop 29 bits, their subnormals more.
			dropped := 29 + max(0, min(23, 897-int(exponent)))
			tie := fraction>>dropped<<dropped | 1<<(dropped-1)
			for _, near := range []uint64{tie - 1, tie, tie + 1} {
				values = append(values, math.Float64frombits(sign|exponent<<52|near&(1<<52-1)))
			}
		}
	}
	o := &kernels.Embed{Tokens: numbered(t, b, []int32{0}), Table: holding(t, b, kernels.F64, 1, len(values), values),
		Out: holding(t, b, kernels.F32, 1, len(values), nil), Scale: 1}
	run(t, b, o)
	got := make([]byte, 4*len(values))
	o.Out.Buf.Read(got, 0)
	for i, v := range values {
		if bits, want := binary.LittleEndian.Uint32(got[4*i:]), math.Float32bits(float32(v)); bits != want {
			t.Fatalf("%x (%g) became %x, want %x", math.Float64bits(v), v, bits, want)
		}
	}
}

// everywhere runs a test in the builds that round differently.
func everywhere(t *testing.T, d kernels.DType, test func(t *testing.T, b *metal.Backend)) {
	for _, mode := range []emulator.Mode{emulator.Fast, emulator.FastMath} {
		t.Run(fmt.Sprintf("%v %v", mode, d), func(t *testing.T) { test(t, open(t, mode, d)) })
	}
}

// TestRotaryTableFar: cosines and sines keep their precision at the far end of
// long contexts, where an angle is many turns, and next to multiples of pi/4,
// where the reduction changes sides.
func TestRotaryTableFar(t *testing.T) {
	var positions []int32
	for p := int32(0); p < 1<<17; p += 61 {
		positions = append(positions, p)
	}
	positions = append(positions, 1, 1<<20, 1<<21)
	freqs := []float64{1, 0.9646616, 0.5, math.Pi / 4, math.Pi / 2, 355.0 / 113 / 8, 1e-2, 1e-7}
	everywhere(t, kernels.F32, func(t *testing.T, b *metal.Backend) {
		o := &kernels.RotaryTable{Positions: numbered(t, b, positions), Freqs: holding(t, b, kernels.F64, 1, len(freqs), freqs),
			Out: holding(t, b, kernels.F32, len(positions), 2*len(freqs), nil), Scale: 1}
		run(t, b, o)
		got := o.Out.Float64s()
		worst, at := 0.0, 0.0
		for i, p := range positions {
			for j, f := range freqs {
				angle := float64(float32(p) * float32(f))
				row := got[2*len(freqs)*i:]
				d := max(math.Abs(row[j]-math.Cos(angle)), math.Abs(row[len(freqs)+j]-math.Sin(angle)))
				if !(d <= worst) {
					worst, at = d, angle
				}
			}
		}
		t.Logf("largest error %.3g, at %.9g", worst, at)
		if !(worst <= 1.2e-7) {
			t.Errorf("an error of %g at %.9g", worst, at)
		}
	})
}

// TestGatesFar: activations and their derivatives are right from the smallest
// gates to those whose squares overflow.
func TestGatesFar(t *testing.T) {
	var gates []float64
	for e := -30.0; e <= 37; e += 0.05 {
		gates = append(gates, math.Pow(10, e), -math.Pow(10, e))
	}
	for x := -100.0; x <= 100; x += 0.0625 {
		gates = append(gates, x)
	}
	for _, c := range []struct {
		activations kernels.DType
		tolerance   float64 // rounding to the type, and 4e-7
		least       float64 // below it the type loses digits
	}{{kernels.F32, 4e-7, 1e-30}, {kernels.F16, 0x1p-11 + 4e-7, 0x1p-14}, {kernels.BF16, 0x1p-8 + 4e-7, 1e-30}} {
		everywhere(t, c.activations, func(t *testing.T, b *metal.Backend) {
			for _, act := range []kernels.Act{kernels.SiLU, kernels.GELU, kernels.GELUTanh} {
				compareGates(t, b, act, gates, c.tolerance, c.least)
			}
		})
	}
}

// compareGates judges each element by itself: errors are relative to the gate,
// derivatives to 1.
func compareGates(t *testing.T, b *metal.Backend, act kernels.Act, gates []float64, tolerance, least float64) {
	t.Helper()
	d := b.Info().Activation
	n := len(gates)
	rounded := holding(t, b, d, 1, n, gates).Float64s()
	ones := make([]float64, n)
	for i, x := range rounded {
		ones[i] = 1
		if math.IsInf(x, 0) {
			rounded[i] = math.Copysign(65504, x)
		}
	}
	oracle := reference.New()
	defer oracle.Close()
	results := func(b kernels.Backend, d kernels.DType) (y, dy []float64) {
		o := &kernels.GatedGrad{Gate: holding(t, b, d, 1, n, rounded), Up: holding(t, b, d, 1, n, ones), DOut: holding(t, b, d, 1, n, ones),
			DGate: holding(t, b, d, 1, n, nil), DUp: holding(t, b, d, 1, n, nil), Act: act}
		f := &kernels.Gated{Gate: o.Gate, Up: o.Up, Out: holding(t, b, d, 1, n, nil), Act: act}
		run(t, b, o)
		run(t, b, f)
		y, dy = f.Out.Float64s(), o.DGate.Float64s()
		for i, v := range o.DUp.Float64s() {
			if v != y[i] {
				t.Errorf("act %d of %g is %g, but %g for the gradient", act, rounded[i], y[i], v)
			}
		}
		return y, dy
	}
	y, dy := results(b, d)
	wantY, wantDY := results(oracle, kernels.F64)
	worst, worstDY := 0.0, 0.0
	for i, x := range rounded {
		if e := math.Abs(y[i]-wantY[i]) / max(math.Abs(x), least); !(e <= worst) {
			worst = e
			if !(e <= tolerance) {
				t.Errorf("act %d of %g is %g, want %g", act, x, y[i], wantY[i])
			}
		}
		want := wantDY[i]
		if math.Abs(x) > 1e3 { // where the reference's cubes overflow
			want = max(0, math.Copysign(1, x))
		}
		if e := math.Abs(dy[i] - want); !(e <= worstDY) {
			worstDY = e
			if !(e <= tolerance) {
				t.Errorf("the derivative of act %d at %g is %g, want %g", act, x, dy[i], want)
			}
		}
	}
	t.Logf("act %d: largest error %.3g of the gate, %.3g of the derivative", act, worst, worstDY)
}
