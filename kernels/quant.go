package kernels

import (
	"encoding/binary"
	"fmt"
	"math"
)

// The quantised types hold blocks of elements that share scales, as ggml stores
// them (ggml-common.h, ggml-quants.c), or MLX's with their scales beside them. Elements of a row are decoded in groups of
// Group; every block is some whole groups.

// Group is how many elements of a quantised type are decoded at a time.
const Group = 32

// DecodeRange decodes elements of a quantised type from element j on of a row that
// starts at row, to float32, as ggml rounds.
func DecodeRange(dst []float32, row []byte, j int, d DType) {
	block := d.Block()
	var group [Group]float32
	for len(dst) > 0 {
		decodeGroup(&group, row[d.Bytes(j-j%block):][:d.Bytes(block)], j%block/Group, d)
		n := copy(dst, group[j%Group:])
		dst, j = dst[n:], j+n
	}
}

// decodeGroup decodes one group of a block.
func decodeGroup(dst *[Group]float32, b []byte, g int, d DType) {
	switch d {
	case Q8_0:
		scale := halfAt(b)
		for i := range dst {
			dst[i] = scale * float32(int8(b[2+i]))
		}
	case Q4_0:
		nibbles(dst, halfAt(b), -8*halfAt(b), b[2:18])
	case Q4_1:
		nibbles(dst, halfAt(b), halfAt(b[2:]), b[4:20])
	case Q5_0:
		fifths(dst, halfAt(b), -16*halfAt(b), b[2:6], b[6:22])
	case Q5_1:
		fifths(dst, halfAt(b), halfAt(b[2:]), b[4:8], b[8:24])
	case Q4_K, Q5_K, Q6_K:
		f := FieldsOf(b, g, d)
		for i := range dst {
			q := f.Low[i]>>f.LowShift&15 | f.High[i]>>f.HighShift&f.HighMask<<4
			dst[i] = f.Scale[i/(Group/2)]*float32(int8(q)-f.Bias) - f.Least
		}
	case Affine4:
		scale, offset := floatAt(b), floatAt(b[4:])
		for i := range dst {
			dst[i] = float32(scale*float32(b[8+i/2]>>(i%2*4)&15)) + offset // rounded twice on every machine
		}
	case Affine8:
		scale, offset := floatAt(b), floatAt(b[4:])
		for i := range dst {
			dst[i] = float32(scale*float32(b[8+i])) + offset
		}
	default:
		panic(fmt.Sprintf("kernels: %v is not a quantised type", d))
	}
}

func floatAt(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }

func halfAt(b []byte) float32 { return HalfToFloat32(binary.LittleEndian.Uint16(b)) }

// nibbles decodes a block of 32: the low halves of the bytes, then the high ones.
func nibbles(dst *[Group]float32, scale, offset float32, q []byte) {
	for i, b := range q[:Group/2] {
		dst[i] = scale*float32(b&15) + offset
		dst[i+Group/2] = scale*float32(b>>4) + offset
	}
}

// fifths is nibbles with a fifth bit each.
func fifths(dst *[Group]float32, scale, offset float32, bits, q []byte) {
	high := binary.LittleEndian.Uint32(bits)
	for i, b := range q[:Group/2] {
		dst[i] = scale*float32(uint32(b&15)|high>>i&1<<4) + offset
		dst[i+Group/2] = scale*float32(uint32(b>>4)|high>>(i+Group/2)&1<<4) + offset
	}
}

// Fields is how a group of 32 elements of a K type is stored: element i is
// Scale·(q - Bias) - Least, where four bits of q are of Low[i] and up to two more of
// High[i]. Each half of the group has a scale.
type Fields struct {
	Low, High                     []byte
	LowShift, HighShift, HighMask uint8
	Bias                          int8
	Scale                         [2]float32
	Least                         float32
}

// K reports whether d is a type whose groups FieldsOf describes.
func (d DType) K() bool { return d == Q4_K || d == Q5_K || d == Q6_K }

// FieldsOf returns where group g of a block of a K type lies.
func FieldsOf(b []byte, g int, d DType) Fields {
	switch d {
	case Q4_K:
		scale, least := scaleOfK(b, g)
		low := b[16+g/2*Group:][:Group]
		return Fields{Low: low, High: low, LowShift: uint8(g % 2 * 4), Scale: [2]float32{scale, scale}, Least: least}
	case Q5_K:
		scale, least := scaleOfK(b, g)
		return Fields{Low: b[48+g/2*Group:][:Group], High: b[16:48], LowShift: uint8(g % 2 * 4), HighShift: uint8(g), HighMask: 1,
			Scale: [2]float32{scale, scale}, Least: least}
	case Q6_K:
		half, quarter := g/4, g%4 // of 128 elements, of 32
		scales, scale := b[192+2*g:], halfAt(b[208:])
		return Fields{Low: b[half*64+quarter%2*Group:][:Group], High: b[128+half*Group:][:Group],
			LowShift: uint8(quarter / 2 * 4), HighShift: uint8(quarter * 2), HighMask: 3, Bias: 32,
			Scale: [2]float32{scale * float32(int8(scales[0])), scale * float32(int8(scales[1]))}}
	}
	panic(fmt.Sprintf("kernels: %v is not a K type", d))
}

// scaleOfK returns the scale and the offset of a group of Q4_K or Q5_K: six bits
// each, packed into twelve bytes behind the scale and the offset of the block.
func scaleOfK(b []byte, g int) (scale, least float32) {
	packed := b[4:16]
	var s, m byte
	if g < 4 {
		s, m = packed[g]&63, packed[g+4]&63
	} else {
		s = packed[g+4]&15 | packed[g-4]>>6<<4
		m = packed[g+4]>>4 | packed[g]>>6<<4
	}
	return halfAt(b) * float32(s), halfAt(b[2:]) * float32(m)
}

// decodeWide is DecodeRange from the start of a row, to float64.
func decodeWide(dst []float64, src []byte, d DType) {
	var group [Group]float32
	for j := 0; j < len(dst); j += Group {
		part := group[:min(Group, len(dst)-j)]
		DecodeRange(part, src, j, d)
		for i, v := range part {
			dst[j+i] = float64(v)
		}
	}
}

// Block returns how many elements are stored together, 1 but for quantised
// types: rows of such a type are whole blocks.
func (d DType) Block() int {
	if int(d) >= len(dtypes) || d == 0 {
		panic(fmt.Sprintf("kernels: no block for %v", d))
	}
	return max(1, dtypes[d].block)
}

// Bytes returns the bytes of n elements, whole blocks of them.
func (d DType) Bytes(n int) int {
	block := d.Block()
	if block == 1 {
		return n * dtypes[d].size
	}
	if n%block != 0 {
		panic(fmt.Sprintf("kernels: %d elements of %v are no whole blocks", n, d))
	}
	return n / block * dtypes[d].size
}
