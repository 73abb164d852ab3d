package cpu

import (
	"encoding/binary"
	"math"
	"unsafe"

	"golang.org/x/sys/cpu"

	"graft/kernels"
)

//go:generate go -C gen run . -out ../kernels_amd64.s -stubs ../kernels_stubs_amd64.go -pkg cpu

// available returns the instruction sets of this machine, the best last.
func available() []*vectors {
	if !cpu.X86.HasAVX2 || !cpu.X86.HasFMA || !cpu.X86.HasF16C {
		return []*vectors{&plain}
	}
	if !cpu.X86.HasAVX512F || !cpu.X86.HasAVX512DQ || !cpu.X86.HasBMI2 {
		return []*vectors{&plain, &avx2}
	}
	if !cpu.X86.HasAMXTile || !cpu.X86.HasAMXBF16 || !permitTiles() {
		return []*vectors{&plain, &avx2, &avx512}
	}
	return []*vectors{&plain, &avx2, &avx512, &amx}
}

// family returns the maker of the processor and the number of its design.
func family() (maker string, number uint32) {
	_, b, c, d := cpuid(0)
	name := binary.LittleEndian.AppendUint32(nil, b)
	name = binary.LittleEndian.AppendUint32(name, d)
	name = binary.LittleEndian.AppendUint32(name, c)
	a, _, _, _ := cpuid(1)
	if number = a >> 8 & 15; number == 15 {
		number += a >> 20 & 255
	}
	return string(name), number
}

// secondCache returns the bytes of a core's second cache, as far as they are plausible: a
// virtual machine's processor may say anything.
func secondCache() int {
	const leaf, least, most = 0x80000006, 512 << 10, 2 << 20
	if last, _, _, _ := cpuid(0x80000000); last < leaf {
		return least
	}
	_, _, c, _ := cpuid(leaf)
	return min(max(least, int(c>>16)<<10), most)
}

// pairsCache is strassenVectors.cache, a line through what was best with 512 KiB (400, on Zen 3) and
// with 1 MiB (640, on Zen 5).
func pairsCache() int { return 160<<10 + secondCache()*15/32 }

// processors returns how many there are in a package, at most, whatever of them a process may use.
func processors() int {
	const hyperthreads = 1 << 28
	_, b, _, d := cpuid(1)
	if d&hyperthreads == 0 {
		return 1
	}
	return int(b >> 16 & 255)
}

// isIntel says that the processor is one of Intel's.
var isIntel = func() bool {
	maker, _ := family()
	return maker == "GenuineIntel"
}()

// halvedRows returns strassenVectors.rows: from where on memory is quick enough, beside the
// multiply-adds, for products of halves to take less time. So it is on Zen 3 and 4, which share a
// family, and on Zen 5, the next one. On Intel's servers all processors read the right factor
// from a cache that is slow, so that each is to have so many rows: with 1024 rows two of an Emerald
// Rapids gain 10 % in AVX2 and 6 % in AVX-512; of a Sapphire Rapids eight gain nothing in AVX2,
// nor do four in AVX-512, and more lose.
func halvedRows(each int) int {
	if isIntel && secondCache() >= 1<<20 {
		return max(leastHalved, each*processors())
	}
	if maker, number := family(); maker == "AuthenticAMD" && number >= 0x19 {
		return leastHalved
	}
	return math.MaxInt
}

// amx is AVX-512 with a unit for matrices of bfloat16.
var amx = withPieces(avx512)

func withPieces(v vectors) vectors {
	v.name, v.strassen = "amx", nil
	v.pieces = &pieceVectors{
		least:        pieceLimits{rows: 16, side: 128, work: 1 << 22, sequence: 256},
		splitRow:     amxSplitRow,
		splitHalfRow: amxSplitHalfRow,
		splitColumns: [...]func(dst, src *float32, row, later, blocks, apart int){1: amxSplitColumn, 2: amxSplitHalfColumns, 3: amxSplitColumns},
		joinColumns:  amxJoinColumns,
		splitAcross:  perType(amxSplitAcrossF32, amxSplitAcrossF16, amxSplitAcrossBF16),
		multiply:     amxMultiply,
	}
	v.peak = func(rounds int) float64 {
		const products = 6 // for one of float32
		amxProducts(rounds)
		return float64(rounds) * 4 * 2 * 16 * 16 * blockDepth / products
	}
	return v
}

// avx512 is AVX2 but for what gains by vectors of sixteen.
var avx512 = wide(avx2)

func wide(v vectors) vectors {
	v.name = "avx512"
	v.tileWide, v.tilePackedWide, v.tileTall = avx512TileWide, avx512TilePackedWide, avx512TileTall
	v.outer, v.outerDepth = avx512Outer, 16
	// On Sapphire Rapids large tiles take 4 to 15 % off packed products, on Zen 5 nothing.
	v.tilePackedLarge, v.large = avx512TilePackedLarge, isIntel
	s := *v.strassen
	s.rows, s.saved = halvedRows(400), 1
	s.rowSquares, s.packPair, s.stream, s.multiply = avx512RowSquares, avx512PackPair, avx512Stream, avx512Multiply
	v.strassen = &s
	v.across = perType(avx512AcrossF32, avx512AcrossF16, avx512AcrossBF16)
	v.along = perType(avx512AlongF32, avx512AlongF16, avx512AlongBF16)
	v.widen = perType(plain.widen[kernels.F32], withTail(16, 2, avx512WidenF16, v.widen[kernels.F16]), withTail(16, 2, avx512WidenBF16, v.widen[kernels.BF16]))
	v.dot = perType(
		dotWithTail(16, 4, avx512DotF32, v.dot[kernels.F32]),
		dotWithTail(16, 2, avx512DotF16, v.dot[kernels.F16]),
		dotWithTail(16, 2, avx512DotBF16, v.dot[kernels.BF16]))
	v.axpy = perType(
		axpyWithTail(16, 4, avx512AxpyF32, v.axpy[kernels.F32]),
		axpyWithTail(16, 2, avx512AxpyF16, v.axpy[kernels.F16]),
		axpyWithTail(16, 2, avx512AxpyBF16, v.axpy[kernels.BF16]))
	v.scale, v.add, v.maxOf, v.exp, v.expMax, v.cap = avx512Scale, avx512Add, avx512Max, avx512Exp, avx512ExpMax, avx512Cap
	v.softmaxRows, v.scoreRows, v.dotRows, v.scaleRows = avx512SoftmaxRows, avx512ScoreRows, avx512DotRows, avx512ScaleRows
	v.sumSquares, v.normalizeSum, v.dot3, v.normGrad, v.weightGrad = avx512SumSquares, avx512NormalizeSum, avx512Dot3, avx512NormGrad, avx512WeightGrad
	v.rotate, v.unrotate = avx512Rotate, avx512Unrotate
	v.gated = [3]func(out, gate, up []float32){avx512SiLU, avx512GELU, avx512GELUTanh}
	v.gatedGrad = [3]func(dgate, dup, out, gate, up, dout []float32){avx512SiLUGrad, avx512GELUGrad, avx512GELUTanhGrad}
	v.adam = func(p, m, v, g []float32, c *adamFactors) { avx512Adam(p, m, v, g, &c.clip) }
	v.peak = func(rounds int) float64 {
		avx512FMA(rounds)
		return float64(rounds) * 12 * 32
	}
	return v
}

// avx2 is AVX2 with fused multiply-add and half-precision conversion.
var avx2 = vectors{
	name:       "avx2",
	tile:       avx2Tile,
	tilePacked: avx2TilePacked,
	outer:      avx2Outer,
	outerDepth: 12,
	strassen: &strassenVectors{rows: halvedRows(200), saved: 1.4, cache: pairsCache(),
		rowSquares: avx2RowSquares, packPair: avx2PackPair, stream: avx2Stream, multiply: avx2Multiply},
	across:  perType(avx2AcrossF32, avx2AcrossF16, avx2AcrossBF16),
	across6: avx2Across6,
	along:   perType(avx2AlongF32, avx2AlongF16, avx2AlongBF16),
	blocks: [kernels.Affine8 + 1]func([]float32, *byte){kernels.Q8_0: avx2BlocksQ8_0, kernels.Q4_0: avx2BlocksQ4_0, kernels.Q4_1: avx2BlocksQ4_1,
		kernels.Affine4: avx2BlocksAffine4, kernels.Affine8: avx2BlocksAffine8},
	fields: avx2Fields,
	blocksAlong: [kernels.Affine8 + 1]func(*float32, int, *byte, int, int){kernels.Q8_0: avx2BlocksAlongQ8_0, kernels.Q4_0: avx2BlocksAlongQ4_0,
		kernels.Q4_1: avx2BlocksAlongQ4_1, kernels.Affine4: avx2BlocksAlongAffine4, kernels.Affine8: avx2BlocksAlongAffine8},
	widen: perType(
		plain.widen[kernels.F32],
		withTail(8, 2, avx2WidenF16, plain.widen[kernels.F16]),
		withTail(8, 2, avx2WidenBF16, plain.widen[kernels.BF16])),
	dot: perType(
		dotWithTail(8, 4, avx2DotF32, plain.dot[kernels.F32]),
		dotWithTail(8, 2, avx2DotF16, plain.dot[kernels.F16]),
		dotWithTail(8, 2, avx2DotBF16, plain.dot[kernels.BF16])),
	axpy: perType(
		axpyWithTail(8, 4, avx2AxpyF32, plain.axpy[kernels.F32]),
		axpyWithTail(8, 2, avx2AxpyF16, plain.axpy[kernels.F16]),
		axpyWithTail(8, 2, avx2AxpyBF16, plain.axpy[kernels.BF16])),
	scale:        avx2Scale,
	add:          avx2Add,
	maxOf:        avx2Max,
	exp:          avx2Exp,
	expMax:       avx2ExpMax,
	cap:          avx2Cap,
	softmaxRows:  avx2SoftmaxRows,
	scoreRows:    avx2ScoreRows,
	dotRows:      avx2DotRows,
	scaleRows:    avx2ScaleRows,
	sumSquares:   avx2SumSquares,
	sumSquares64: avx2SumSquares64,
	normalizeSum: avx2NormalizeSum,
	dot3:         avx2Dot3,
	normGrad:     avx2NormGrad,
	weightGrad:   avx2WeightGrad,
	rotate:       avx2Rotate,
	unrotate:     avx2Unrotate,
	gated:        [3]func(out, gate, up []float32){avx2SiLU, avx2GELU, avx2GELUTanh},
	gatedGrad:    [3]func(dgate, dup, out, gate, up, dout []float32){avx2SiLUGrad, avx2GELUGrad, avx2GELUTanhGrad},
	dropout:      dropoutWithTail(avx2Dropout),
	adam: func(p, m, v, g []float32, c *adamFactors) {
		avx2Adam(p, m, v, g, &c.clip)
	},
	peak: func(rounds int) float64 {
		avx2FMA(rounds)
		return float64(rounds) * 12 * 16
	},
}

// rest returns the place of element n.
func rest(w *byte, n, size int) *byte { return (*byte)(unsafe.Add(unsafe.Pointer(w), n*size)) }

// withTail makes a function of any length from one of whole vectors, of so many lanes, and
// elements of so many bytes.
func withTail(lanes, size int, whole, tail func([]float32, *byte)) func([]float32, *byte) {
	return func(dst []float32, src *byte) {
		n := len(dst) &^ (lanes - 1)
		whole(dst[:n], src)
		if n < len(dst) {
			tail(dst[n:], rest(src, n, size))
		}
	}
}

func dotWithTail(lanes, size int, whole, tail func([]float32, *byte) float32) func([]float32, *byte) float32 {
	return func(x []float32, w *byte) float32 {
		n := len(x) &^ (lanes - 1)
		sum := whole(x[:n], w)
		if n < len(x) {
			sum += tail(x[n:], rest(w, n, size))
		}
		return sum
	}
}

func axpyWithTail(lanes, size int, whole, tail func([]float32, *byte, float32)) func([]float32, *byte, float32) {
	return func(y []float32, w *byte, a float32) {
		n := len(y) &^ (lanes - 1)
		whole(y[:n], w, a)
		if n < len(y) {
			tail(y[n:], rest(w, n, size), a)
		}
	}
}
