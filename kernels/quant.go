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
	case Q4_K:
		scale, least := scaleOfK(b, g)
		for i, q := range b[16+g/2*Group:][:Group] {
			dst[i] = scale*float32(q>>(g%2*4)&15) - least
		}
	case Q5_K:
		scale, least := scaleOfK(b, g)
		high := b[16:48]
		for i, q := range b[48+g/2*Group:][:Group] {
			dst[i] = scale*float32(q>>(g%2*4)&15|high[i]>>g&1<<4) - least
		}
	case Q6_K:
		decodeQ6K(dst, b, g)
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

// decodeQ6K decodes a group of a block that has four low bits, two high bits, a
// signed scale for each 16 elements, and a scale.
func decodeQ6K(dst *[Group]float32, b []byte, g int) {
	half, quarter := g/4, g%4 // of 128 elements, of 32
	low, high := b[half*64+quarter%2*Group:], b[128+half*Group:]
	scales := b[192+half*8+quarter*2:]
	scale := halfAt(b[208:])
	for i := range dst {
		q := low[i]>>(quarter/2*4)&15 | high[i]>>(quarter*2)&3<<4
		dst[i] = scale * float32(int8(scales[i/16])) * float32(int8(q)-32)
	}
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
