package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
)

// DType is the type of a stored element.
type DType uint8

// The element types that files and kernels know. Names follow safetensors, and
// ggml for the quantised ones, which are of frozen weights only. Affine4 and
// Affine8 are MLX's groups: a float32 scale and offset, and 32 numbers of four
// or eight bits.
const (
	F32 DType = iota + 1
	F64
	F16
	BF16
	I64
	I32
	I16
	I8
	U8
	Bool
	Q8_0
	Q4_0
	Q4_1
	Q5_0
	Q5_1
	Q4_K
	Q5_K
	Q6_K
	Affine4
	Affine8
)

var dtypes = [...]struct {
	name  string
	size  int // of an element, or a block
	block int // elements, of a quantised type
}{
	F32: {"F32", 4, 0}, F64: {"F64", 8, 0}, F16: {"F16", 2, 0}, BF16: {"BF16", 2, 0},
	I64: {"I64", 8, 0}, I32: {"I32", 4, 0}, I16: {"I16", 2, 0}, I8: {"I8", 1, 0}, U8: {"U8", 1, 0}, Bool: {"BOOL", 1, 0},
	Q8_0: {"Q8_0", 34, 32}, Q4_0: {"Q4_0", 18, 32}, Q4_1: {"Q4_1", 20, 32}, Q5_0: {"Q5_0", 22, 32}, Q5_1: {"Q5_1", 24, 32},
	Q4_K: {"Q4_K", 144, 256}, Q5_K: {"Q5_K", 176, 256}, Q6_K: {"Q6_K", 210, 256},
	Affine4: {"AFFINE4", 24, 32}, Affine8: {"AFFINE8", 40, 32},
}

// ParseDType returns the type that safetensors calls name.
func ParseDType(name string) (DType, bool) {
	for d := range dtypes {
		if dtypes[d].name == name && name != "" && dtypes[d].block == 0 {
			return DType(d), true
		}
	}
	return 0, false
}

func (d DType) String() string {
	if int(d) >= len(dtypes) || d == 0 {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Size returns the bytes of one element of a type that is not quantised.
func (d DType) Size() int {
	if int(d) >= len(dtypes) || d == 0 || dtypes[d].block > 0 {
		panic(fmt.Sprintf("kernels: no size for %v", d))
	}
	return dtypes[d].size
}

// Float reports whether d holds floating point numbers.
func (d DType) Float() bool { return d == F32 || d == F64 || d == F16 || d == BF16 }

// Quantised reports whether d holds blocks that decode to floating point numbers.
func (d DType) Quantised() bool { return int(d) < len(dtypes) && dtypes[d].block > 0 }

// DecodeFloat64 decodes little-endian elements of a floating or quantised type
// into dst, exactly, or as ggml rounds. src must hold len(dst) elements.
func DecodeFloat64(dst []float64, src []byte, d DType) {
	switch d {
	case F64:
		for i := range dst {
			dst[i] = math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:]))
		}
	case F32:
		for i := range dst {
			dst[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:])))
		}
	case F16:
		for i := range dst {
			dst[i] = float64(HalfToFloat32(binary.LittleEndian.Uint16(src[2*i:])))
		}
	case BF16:
		for i := range dst {
			dst[i] = float64(BF16ToFloat32(binary.LittleEndian.Uint16(src[2*i:])))
		}
	default:
		if !d.Quantised() {
			panic(fmt.Sprintf("kernels: %v is not a floating type", d))
		}
		decodeWide(dst, src, d)
	}
}

// DecodeFloat32 decodes little-endian elements of a floating type into dst;
// exactly but for F64, which is rounded to nearest.
func DecodeFloat32(dst []float32, src []byte, d DType) {
	switch d {
	case F64:
		for i := range dst {
			dst[i] = float32(math.Float64frombits(binary.LittleEndian.Uint64(src[8*i:])))
		}
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = HalfToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = BF16ToFloat32(binary.LittleEndian.Uint16(src[2*i:]))
		}
	default:
		panic(fmt.Sprintf("kernels: %v is not a floating type", d))
	}
}

// BF16ToFloat32 widens a bfloat16.
func BF16ToFloat32(h uint16) float32 { return math.Float32frombits(uint32(h) << 16) }

// HalfToFloat32 widens an IEEE half, subnormals, infinities and NaN payloads
// included.
func HalfToFloat32(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10)&31, uint32(h&0x3ff)
	switch exp {
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	case 0: // zero or subnormal: frac · 2⁻²⁴, exact in float32
		v := float32(frac) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(v) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}

// Float32ToBF16 rounds to nearest, ties to even; a NaN stays one.
func Float32ToBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if f != f {
		return uint16(u>>16) | 0x40
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}

// Float32ToHalf rounds to nearest, ties to even; overflow becomes infinity
// and a NaN stays one.
func Float32ToHalf(f float32) uint16 {
	u := math.Float32bits(f)
	sign, abs := uint16(u>>16&0x8000), u&0x7fffffff
	switch {
	case abs > 0x7f800000:
		return sign | 0x7e00 | uint16(abs>>13&0x3ff)
	case abs >= 0x477ff000: // rounds to 65536 or more
		return sign | 0x7c00
	case abs < 0x38800000: // subnormal: count in units of 2⁻²⁴
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(abs))*(1<<24)))
	}
	return sign | uint16((abs+0xfff+abs>>13&1-0x38000000)>>13)
}

// EncodeFloat64 writes v as little-endian elements of a floating type,
// rounded to nearest. Float32 narrows once; the 16-bit types narrow by way of
// float32, which is exact for values that came from them.
func EncodeFloat64(dst []byte, v []float64, d DType) {
	switch d {
	case F64:
		for i, x := range v {
			binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(x))
		}
	case F32:
		for i, x := range v {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(float32(x)))
		}
	case F16:
		for i, x := range v {
			binary.LittleEndian.PutUint16(dst[2*i:], Float32ToHalf(float32(x)))
		}
	case BF16:
		for i, x := range v {
			binary.LittleEndian.PutUint16(dst[2*i:], Float32ToBF16(float32(x)))
		}
	default:
		panic(fmt.Sprintf("kernels: %v is not a floating type", d))
	}
}
