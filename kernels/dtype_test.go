package kernels

import (
	"encoding/binary"
	"math"
	"testing"
)

// halfValue is the value of an IEEE half, from the definition.
func halfValue(h uint16) float64 {
	sign := 1.0
	if h>>15 == 1 {
		sign = -1
	}
	exp, frac := int(h>>10&31), float64(h&0x3ff)
	switch {
	case exp == 31 && frac != 0:
		return math.NaN()
	case exp == 31:
		return sign * math.Inf(1)
	case exp == 0:
		return sign * math.Ldexp(frac, -24)
	}
	return sign * math.Ldexp(1024+frac, exp-25)
}

// same compares bits, but takes any NaN for another.
func same(a, b float64) bool {
	return a != a && b != b || math.Float64bits(a) == math.Float64bits(b)
}

func TestEverySixteenBitValue(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		if got, want := float64(HalfToFloat32(h)), halfValue(h); !same(got, want) {
			t.Fatalf("half %#04x is %v, want %v", h, got, want)
		}
		if got := Float32ToHalf(HalfToFloat32(h)); got != h && halfValue(h) == halfValue(h) {
			t.Fatalf("half %#04x comes back as %#04x", h, got)
		}
		wide := math.Float32frombits(uint32(h) << 16)
		if got := BF16ToFloat32(h); math.Float32bits(got) != uint32(h)<<16 {
			t.Fatalf("bfloat %#04x is %v", h, got)
		}
		if got := Float32ToBF16(wide); got != h && wide == wide {
			t.Fatalf("bfloat %#04x comes back as %#04x", h, got)
		}
		if wide != wide && BF16ToFloat32(Float32ToBF16(wide)) == BF16ToFloat32(Float32ToBF16(wide)) {
			t.Fatalf("bfloat %#04x is no NaN any more", h)
		}
		if v := HalfToFloat32(h); v != v && Float32ToHalf(v)&0x7fff <= 0x7c00 {
			t.Fatalf("half %#04x is no NaN any more", h)
		}
	}
}

// TestRoundingBetweenNeighbours tries what lies between each value of a
// 16-bit type and the next: just below, at and just above the middle. In the
// middle the even one of the two wins. The value after the largest finite one
// is what the type would hold with one more exponent; it rounds to infinity.
func TestRoundingBetweenNeighbours(t *testing.T) {
	for _, c := range []struct {
		name     string
		infinity uint16
		wide     func(uint16) float64
		narrow   func(float32) uint16
	}{
		{"F16", 0x7c00, halfValue, Float32ToHalf},
		{"BF16", 0x7f80, func(h uint16) float64 { return float64(BF16ToFloat32(h)) }, Float32ToBF16},
	} {
		for h := uint16(0); h < c.infinity; h++ {
			low, high := c.wide(h), c.wide(h+1)
			if h+1 == c.infinity {
				high = 2*low - c.wide(h-1)
			}
			middle := float32((low + high) / 2) // exact: float32 has more bits than either type
			even := h + h&1
			for _, try := range []struct {
				v    float32
				want uint16
			}{
				{math.Nextafter32(middle, 0), h},
				{middle, even},
				{math.Nextafter32(middle, math.MaxFloat32), h + 1},
			} {
				if got := c.narrow(try.v); got != try.want {
					t.Fatalf("%s of %v is %#04x, want %#04x", c.name, try.v, got, try.want)
				}
				if got := c.narrow(-try.v); got != try.want|0x8000 {
					t.Fatalf("%s of %v is %#04x, want %#04x", c.name, -try.v, got, try.want|0x8000)
				}
			}
		}
		for _, v := range []float64{math.Inf(1), math.MaxFloat32} {
			if got := c.narrow(float32(v)); got != c.infinity {
				t.Errorf("%s of %v is %#04x, want infinity", c.name, v, got)
			}
		}
	}
}

// TestNaNPayload narrows NaNs whose payload lies in bits that are cut off:
// without care they become infinities.
func TestNaNPayload(t *testing.T) {
	for _, bits := range []uint32{0x7f800001, 0xff800001, 0x7fc00000, 0x7fffffff} {
		v := math.Float32frombits(bits)
		if got := HalfToFloat32(Float32ToHalf(v)); got == got {
			t.Errorf("F16 of NaN %#x is %v", bits, got)
		}
		if got := BF16ToFloat32(Float32ToBF16(v)); got == got {
			t.Errorf("BF16 of NaN %#x is %v", bits, got)
		}
	}
}

func TestEncodeAndDecode(t *testing.T) {
	values := []float64{0, math.Copysign(0, -1), 1, -1.5, 0.1, 65504, 1e-7, 3.0e38, math.Inf(-1)}
	for _, c := range []struct {
		d    DType
		want func(v float64) float64
	}{
		{F64, func(v float64) float64 { return v }},
		{F32, func(v float64) float64 { return float64(float32(v)) }},
		{F16, func(v float64) float64 { return halfValue(Float32ToHalf(float32(v))) }},
		{BF16, func(v float64) float64 { return float64(BF16ToFloat32(Float32ToBF16(float32(v)))) }},
	} {
		b := make([]byte, 1+len(values)*c.d.Size())[1:] // unaligned, as files are
		EncodeFloat64(b, values, c.d)
		wide, narrow := make([]float64, len(values)), make([]float32, len(values))
		DecodeFloat64(wide, b, c.d)
		DecodeFloat32(narrow, b, c.d)
		for i, v := range values {
			if want := c.want(v); !same(wide[i], want) || !same(float64(narrow[i]), float64(float32(want))) {
				t.Errorf("%v: %v comes back as %v and %v", c.d, v, wide[i], narrow[i])
			}
		}
	}
	for _, f := range []func(){
		func() { DecodeFloat64(make([]float64, 1), make([]byte, 8), I64) },
		func() { DecodeFloat32(make([]float32, 1), make([]byte, 8), Bool) },
		func() { EncodeFloat64(make([]byte, 8), []float64{1}, U8) },
	} {
		mustPanic(t, "not a floating type", f)
	}
}

func TestDTypeNames(t *testing.T) {
	for d := F32; d <= Bool; d++ {
		got, ok := ParseDType(d.String())
		if !ok || got != d {
			t.Errorf("%v is parsed as %v", d, got)
		}
		if float := d.String() == "F32" || d.String() == "F64" || d.String() == "F16" || d.String() == "BF16"; d.Float() != float {
			t.Errorf("%v: Float is %v", d, d.Float())
		}
	}
	for _, name := range []string{"", "f32", "F8_E4M3", "DType(0)"} {
		if d, ok := ParseDType(name); ok {
			t.Errorf("%q is parsed as %v", name, d)
		}
	}
	mustPanic(t, "no size", func() { DType(0).Size() })
	mustPanic(t, "no size", func() { (Bool + 1).Size() })
}

func TestTensorAccess(t *testing.T) {
	for _, d := range []DType{F32, F64, F16, BF16} {
		h := make(Host, 64)
		x := &Tensor{Name: "x", DType: d, Rows: 2, Cols: 2, Stride: 3, Buf: h, Off: 8}
		x.SetFloat64s([]float64{1, 2, 3, 4})
		at := func(i int) float64 {
			v := make([]float64, 1)
			DecodeFloat64(v, h[8+i*d.Size():], d)
			return v[0]
		}
		if at(0) != 1 || at(1) != 2 || at(2) != 0 || at(3) != 3 || at(4) != 4 {
			t.Errorf("%v: memory % x", d, h)
		}
		if v := x.Float64s(); len(v) != 4 || v[0] != 1 || v[1] != 2 || v[2] != 3 || v[3] != 4 {
			t.Errorf("%v: %v", d, v)
		}
		mustPanic(t, "not adjacent", func() { x.Raw() })
		mustPanic(t, "3 values", func() { x.SetFloat64s(make([]float64, 3)) })
	}
}

func TestView(t *testing.T) {
	h, err := AllocHost(64)
	if err != nil {
		t.Fatal(err)
	}
	defer FreeHost(h)
	binary.LittleEndian.PutUint32(h[8:], math.Float32bits(7))
	x := &Tensor{Name: "x", DType: F32, Rows: 2, Cols: 2, Stride: 3, Buf: h, Off: 8}
	if v := View[float32](x); len(v) != 5 || v[0] != 7 {
		t.Errorf("%v", v)
	}
	if v := View[float32](&Tensor{DType: F32, Cols: 3, Stride: 3, Buf: h}); v != nil {
		t.Errorf("a view of no rows: %v", v)
	}
	mustPanic(t, "no host view", func() { View[float64](x) })
	mustPanic(t, "unaligned", func() { View[float32](&Tensor{DType: F32, Rows: 1, Cols: 1, Stride: 1, Buf: h, Off: 2}) })
	mustPanic(t, "out of range", func() { View[float32](&Tensor{DType: F32, Rows: 6, Cols: 3, Stride: 3, Buf: h}) })
}
