package cpu

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"graft/kernels"
	"graft/kernels/kerneltest"
	"graft/kernels/reference"
)

// piecing returns the instruction sets with products in pieces, for which none is too small, and Go with loops that do the same,
// so that all around them is tested everywhere.
func piecing() (sets []*vectors) {
	for _, v := range available() {
		if v.pieces != nil {
			all, loops := *v, *v.pieces
			all.name += " in pieces"
			loops.least = goPieces.least
			all.pieces = &loops
			sets = append(sets, &all)
		}
	}
	v := plain
	v.name, v.pieces = "go in pieces", &goPieces
	return append(sets, &v)
}

// goPieces is what the assembly does.
var goPieces = pieceVectors{
	least: pieceLimits{rows: 1, side: 1, sequence: 16},
	splitRow: func(dst, src *float32, k int) {
		to, from := unsafe.Slice(dst, ceil(k, blockDepth)*leftBlock), unsafe.Slice(src, k)
		for block := 0; block*blockDepth < k; block++ {
			var row [blockDepth]float32
			copy(row[:], from[block*blockDepth:])
			for i := range lineWords {
				splitInto(to[block*leftBlock+i:], row[i], row[i+lineWords], mostPieces)
			}
		}
	},
	splitHalfRow: func(dst, src *float32, k int) {
		to, from := unsafe.Slice(dst, leftBlock), unsafe.Slice(src, k)
		for i := range lineWords {
			var x float32
			if i < k {
				x = from[i]
			}
			shareWords(to[i:], x, [][2]int{{0, 1}, {1, 0}, {2, 0}})
		}
	},
	splitColumns: [...]func(dst, src *float32, row, later, blocks, apart int){
		1: func(dst, src *float32, row, later, blocks, apart int) {
			goSplitColumns(1, dst, src, row, later, blocks, apart)
		},
		2: func(dst, src *float32, row, later, blocks, apart int) {
			goSplitColumns(2, dst, src, row, later, blocks, apart)
		},
		3: func(dst, src *float32, row, later, blocks, apart int) {
			goSplitColumns(3, dst, src, row, later, blocks, apart)
		},
	},
	joinColumns: goJoinColumns,
	splitAcross: perType(goSplitAcross(f32At, 4, mostPieces), goSplitAcross(f16At, 2, mostPieces), goSplitAcross(bf16At, 2, 1)),
	multiply:    goMultiplyPieces,
}

func goSplitColumns(pieces int, dst, src *float32, row, later, blocks, apart int) {
	at := func(p *float32, i int) *float32 { return (*float32)(unsafe.Add(unsafe.Pointer(p), 4*i)) }
	for block := range blocks {
		for line := range lineWords {
			for i := range tileCols {
				x := at(src, block*(tileCols*row+apart)+line*row+i)
				to := unsafe.Slice(at(dst, block*pieces*pieceWords+line*lineWords+i), (pieces-1)*pieceWords+1)
				if pieces == sharedPieces {
					shareWords(to, *x, [][2]int{{0, 1}, {0, 2}})
				} else {
					splitInto(to, *x, *at(x, later), pieces)
				}
			}
		}
	}
}

func goJoinColumns(dst *float32, src *byte, row, later, blocks, apart int) {
	at := func(i int) float32 { return bf16At(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), 2*i)), 2)) }
	for block := range blocks {
		for line := range lineWords {
			for i := range tileCols {
				x := block*(tileCols*row+apart) + line*row + i
				to := (*float32)(unsafe.Add(unsafe.Pointer(dst), 4*(block*pieceWords+line*lineWords+i)))
				splitInto(unsafe.Slice(to, 1), at(x), at(x+later), 1)
			}
		}
	}
}

func goSplitAcross(at func(b []byte) float32, size, pieces int) func(dst *float32, src *byte, stride, blocks int) {
	return func(dst *float32, src *byte, stride, blocks int) {
		from, to := unsafe.Slice(src, tileCols*stride), unsafe.Slice(dst, blocks*pieces*pieceWords)
		for block := range blocks {
			for line := range lineWords {
				for i := range tileCols {
					x := from[i*stride+(block*blockDepth+line)*size:]
					splitInto(to[block*pieces*pieceWords+line*lineWords+i:], at(x), at(x[lineWords*size:]), pieces)
				}
			}
		}
	}
}

// splitInto writes a word of each piece.
func splitInto(dst []float32, a, b float32, pieces int) {
	x, y := piecesOf(a, pieces), piecesOf(b, pieces)
	for i := range pieces {
		dst[i*pieceWords] = math.Float32frombits(x[i]>>16 | y[i])
	}
}

// shareWords writes words of two pieces.
func shareWords(dst []float32, a float32, shared [][2]int) {
	x := piecesOf(a, mostPieces)
	for i, two := range shared {
		dst[i*pieceWords] = math.Float32frombits(x[two[0]]>>16 | x[two[1]])
	}
}

func piecesOf(x float32, n int) (pieces [mostPieces]uint32) {
	for i := range n {
		bits := math.Float32bits(x)
		if i < n-1 {
			bits += 0x8000
		}
		pieces[i] = bits & 0xffff0000
		x -= math.Float32frombits(pieces[i])
	}
	return pieces
}

func goMultiplyPieces(m, n int, left, right *float32, one, two, three, apart int, sums, c *float32, ldc int, add bool) {
	halves := func(word float32) (float32, float32) {
		bits := math.Float32bits(word)
		return math.Float32frombits(bits << 16), math.Float32frombits(bits & 0xffff0000)
	}
	blocks := one + two + three
	a := unsafe.Slice(left, ceil(m, groupRows)*blocks*leftBlock)
	b := unsafe.Slice(right, (ceil(n, panelCols)-1)*apart+(one+2*two+3*three)*pieceWords)
	out := unsafe.Slice(c, (m-1)*ldc+n)
	for i := range m {
		for j := range n {
			var sum float32
			at := j / panelCols * apart
			for block := range blocks {
				pairs, size := [][2]int{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}, mostPieces
				switch {
				case block < one:
					pairs, size = [][2]int{{2, 0}, {1, 0}, {0, 0}}, 1
				case block < one+two:
					pairs, size = [][2]int{{2, 1}, {1, 0}, {0, 0}}, 2
				}
				for _, p := range pairs {
					x := a[(i/groupRows*blocks+block)*leftBlock+p[0]*pieceWords+i%groupRows*lineWords:]
					y := b[at+p[1]*pieceWords+j%panelCols/tileCols*pieceWords/2+j%tileCols:]
					exact := float64(sum) // the unit seems to round once for a block, too
					for k := range lineWords {
						x0, x1 := halves(x[k])
						y0, y1 := halves(y[k*tileCols])
						exact += float64(x0)*float64(y0) + float64(x1)*float64(y1)
					}
					sum = float32(exact)
				}
				at += size * pieceWords
			}
			if add {
				sum += out[i*ldc+j]
			}
			out[i*ldc+j] = sum
		}
	}
}

// TestPieces goes through incomplete groups, panels and blocks, several blocks of the depth at
// a time, and terms with one piece and with three, some of which share blocks.
func TestPieces(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	types := []kernels.DType{kernels.F32, kernels.BF16, kernels.F16, kernels.F64}
	for i, s := range [][3]int{{32, 64, 256}, {33, 70, 333}, {35, 200, 1100}, {70, 97, 2200}, {17, 64, 40}, {290, 65, 70}} {
		rows, cols, depth, d := s[0], s[1], s[2], types[i%4]
		rank := []int{5, 17, 16, 40}[i%4]
		op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{
			{X: m.f("U", rows, rank), W: m.w(types[(i+1)%4], rank, cols), Transposed: true, Scale: 1.5},
			{X: m.f("X", rows, depth), W: m.w(d, cols, depth), Scale: 1},
		}}
		switch i {
		case 1:
			op.Add, op.Bias = m.f("Add", rows, cols), m.w(d, 1, cols)
		case 2:
			op.Add = op.Out
		}
		checkOn(t, piecing(), fmt.Sprint("product ", s, d), op, 5e-6)
	}
	for _, d := range types { // whole blocks of rows as they are stored, and not whole ones
		checkOn(t, piecing(), fmt.Sprint("transposed ", d), &kernels.Product{Out: m.f("Out", 40, 150), Terms: []kernels.Term{
			{X: m.f("X", 40, 100), W: m.w(d, 100, 150), Transposed: true, Scale: 1},
		}}, 5e-6)
	}
	for _, s := range [][3]int{{64, 64, 64}, {70, 131, 33}, {390, 65, 1100}} {
		checkOn(t, piecing(), fmt.Sprint("weight gradient ", s),
			&kernels.WeightGrad{DY: m.f("DY", s[2], s[0]), X: m.f("X", s[2], s[1]), DW: m.f("DW", s[0], s[1]), Scale: 0.7}, 5e-6)
	}
}

func TestPiecesConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long under the race detector")
	}
	for _, v := range piecing() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := &Backend{v: v, pool: newPool(2)}
			defer b.Close()
			kerneltest.Kinds(t, b, 5e-6, []string{"product", "weight_grad", "cross_entropy", "attention", "attention_grad"}, func() bool { return false })
		})
	}
}

// TestSplit: pieces add up to what was split, and are the same in assembly.
func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	const k = 3*blockDepth - 5
	x := make([]float32, k)
	for i := range x {
		x[i] = math.Float32frombits(r.Uint32())
		if e := math.Float32bits(x[i]) >> 23 & 255; e > 250 || e < 30 {
			x[i] = float32(r.NormFloat64())
		}
	}
	copy(x, []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1 + 0x1p-23, 0x1.fffffep0, 0x1.ffff7ep9, 0x1.0101p-5})
	for _, v := range piecing() {
		rows := split(x, func(dst, src *float32) { v.pieces.splitRow(dst, src, k) })
		for i, want := range x {
			block, line := i/blockDepth, i%blockDepth%lineWords
			var sum float64
			for piece := range mostPieces {
				bits := math.Float32bits(rows[block*leftBlock+piece*pieceWords+line])
				if i%blockDepth < lineWords {
					bits <<= 16
				}
				sum += float64(math.Float32frombits(bits &^ 0xffff))
			}
			if sum != float64(want) {
				t.Errorf("%s: pieces of %g add up to %g", v.name, want, sum)
			}
		}
		if want := split(x, func(dst, src *float32) { goPieces.splitRow(dst, src, k) }); !sameBits(rows, want) {
			t.Errorf("%s: splits rows in another way", v.name)
		}
		for n := range blockDepth/2 + 1 {
			half := func(p *pieceVectors) []float32 {
				return split(x, func(dst, src *float32) { p.splitHalfRow(dst, src, n) })
			}
			got := half(v.pieces)
			for i, want := range x[:n] {
				first, third := math.Float32bits(got[i]), math.Float32bits(got[2*pieceWords+i])
				var sum float64
				for _, piece := range []uint32{first << 16, first &^ 0xffff, third << 16} {
					sum += float64(math.Float32frombits(piece))
				}
				if sum != float64(want) {
					t.Errorf("%s: pieces of %g in half a block add up to %g", v.name, want, sum)
				}
			}
			if !sameBits(got, half(&goPieces)) {
				t.Errorf("%s: splits half rows of %d in another way", v.name, n)
			}
		}
		joined := func(p *pieceVectors) []float32 {
			return split(x, func(dst, src *float32) { p.joinColumns(dst, (*byte)(unsafe.Pointer(src)), 2, 43, 2, 5) })
		}
		if !sameBits(joined(v.pieces), joined(&goPieces)) {
			t.Errorf("%s: joins columns in another way", v.name)
		}
		stored := make([]byte, 4*tileCols*70)
		for i := range stored {
			stored[i] = byte(r.Uint32()) &^ (0x60 * byte(i%2)) // nothing that is not finite, or infinite, in any type
		}
		for d, across := range v.pieces.splitAcross {
			if across == nil {
				continue
			}
			lines := func(p *pieceVectors) []float32 {
				return split(x, func(dst, _ *float32) { p.splitAcross[d](dst, &stored[0], kernels.DType(d).Size()*70, 2) })
			}
			if !sameBits(lines(v.pieces), lines(&goPieces)) {
				t.Errorf("%s: splits rows of %v across in another way", v.name, kernels.DType(d))
			}
		}
		for _, pieces := range []int{1, sharedPieces, mostPieces} {
			columns := func(p *pieceVectors) []float32 {
				return split(x, func(dst, src *float32) { p.splitColumns[pieces](dst, src, 1, 20, 2, 3) })
			}
			if !sameBits(columns(v.pieces), columns(&goPieces)) {
				t.Errorf("%s: splits columns into %d in another way", v.name, pieces)
			}
		}
	}
}

// split has x split into memory with a margin.
func split(x []float32, f func(dst, src *float32)) []float32 {
	dst := make([]float32, 4*leftBlock)
	f(&dst[0], &slices.Clone(x)[0])
	return dst
}

func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}

// TestPiecesNotFinite: what is not a number, or is infinite, spoils its own row or column, and
// no other.
func TestPiecesNotFinite(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(5, 6))}
	const n = 64
	for _, v := range piecing() {
		for _, bad := range []float32{float32(math.NaN()), math.Float32frombits(0x7fffffff), float32(math.Inf(1)), float32(math.Inf(-1)), math.MaxFloat32} {
			op := narrow(&kernels.Product{Out: m.f("Out", n, n), Terms: []kernels.Term{{X: m.f("X", n, n), W: m.w(kernels.F32, n, n), Scale: 1}}}).(*kernels.Product)
			view(op.Terms[0].X).row(20)[33] = bad
			binary.LittleEndian.PutUint32(weightsOf(op.Terms[0].W).at(7, 3), math.Float32bits(bad))
			b := &Backend{v: v, pool: newPool(2)}
			if err := b.Run([]kernels.Op{op}, nil); err != nil {
				t.Fatal(err)
			}
			b.Close()
			out := view(op.Out)
			for i := range n {
				for j, y := range out.row(i) {
					finite := !math.IsNaN(float64(y)) && !math.IsInf(float64(y), 0)
					if spoilt := i == 20 || j == 7; finite == spoilt && (spoilt && bad != math.MaxFloat32 || !spoilt) {
						t.Fatalf("%s, %g: element (%d, %d) is %g", v.name, bad, i, j, y)
					}
				}
			}
		}
	}
}

// TestPiecesErrors: against float64, errors are less than half of those of plain sums.
func TestPiecesErrors(t *testing.T) {
	const m, n = 64, 96
	for _, depth := range []int{256, 1024} {
		r := maker{rand.New(rand.NewPCG(7, uint64(depth)))}
		op := &kernels.Product{Out: r.f("Out", m, n), Terms: []kernels.Term{{X: r.f("X", m, depth), W: r.w(kernels.F32, n, depth), Scale: 1}}}
		if err := reference.New().Run([]kernels.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		want := op.Out.Float64s()
		rms := func(v *vectors) float64 {
			b := &Backend{v: v, pool: newPool(1)}
			defer b.Close()
			o := narrow(op).(*kernels.Product)
			if err := b.Run([]kernels.Op{o}, nil); err != nil {
				t.Fatal(err)
			}
			var sum float64
			for i, y := range o.Out.Float64s() {
				sum += (y - want[i]) * (y - want[i])
			}
			return math.Sqrt(sum / float64(len(want)))
		}
		for _, v := range piecing() {
			if got, plainly := rms(v), rms(&plain); got > plainly/2 {
				t.Errorf("%s: sums of %d: errors of %.2g, plain ones of %.2g", v.name, depth, got, plainly)
			} else {
				t.Logf("%s: sums of %d: errors of %.2g, plain ones of %.2g", v.name, depth, got, plainly)
			}
		}
	}
}
