package cpu

import (
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

// TestStrassen goes through incomplete pairs, blocks and halves, several blocks of the
// depth, and terms that end within either half.
func TestStrassen(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	types := []kernels.DType{kernels.F32, kernels.BF16, kernels.F16, kernels.F64}
	for i, s := range [][3]int{{24, 64, 256}, {25, 70, 333}, {35, 200, 1100}, {140, 191, 2200}, {7, 64, 40}} {
		rows, cols, depth, d := s[0], s[1], s[2], types[i%4]
		op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{
			{X: m.f("X", rows, depth), W: m.w(d, cols, depth), Scale: 1},
			{X: m.f("U", rows, 5), W: m.w(types[(i+1)%4], 5, cols), Transposed: true, Scale: 1.5},
		}}
		switch i {
		case 1:
			op.Add, op.Bias = m.f("Add", rows, cols), m.w(d, 1, cols)
		case 2:
			op.Add = op.Out
		case 3, 4:
			slices.Reverse(op.Terms)
		}
		check(t, fmt.Sprint("product ", s, d), op, 5e-6)
	}
}

// TestStrassenInPlace has weights whose rows are those of panels: terms end within either half,
// one has a scale, and one's rows lie further apart.
func TestStrassenInPlace(t *testing.T) {
	const rows, cols = 35, 200
	m := maker{rand.New(rand.NewPCG(13, 14))}
	all := m.w(kernels.F32, 500, cols)
	part := func(row, rows int) *kernels.Tensor {
		w := *all
		w.Off, w.Rows = w.Off+4*row*w.Stride, rows
		return &w
	}
	apart := m.w(kernels.F32, 40, cols+64)
	apart.Cols = cols
	for _, c := range []struct {
		weights []*kernels.Tensor
		scale   float64 // of the last one
		direct  []int   // how many depths go in place, piece by piece
	}{
		{[]*kernels.Tensor{part(0, 300)}, 1, []int{148, 0}},
		{[]*kernels.Tensor{part(0, 300), part(300, 77), part(377, 45)}, 1.5, []int{84, 77, 0}},
		{[]*kernels.Tensor{part(0, 300), apart}, 1, []int{124, 0}},
		{[]*kernels.Tensor{apart, m.w(kernels.BF16, 100, cols)}, 1, []int{0}},
	} {
		op := &kernels.Product{Out: m.f("Out", rows, cols)}
		for i, w := range c.weights {
			op.Terms = append(op.Terms, kernels.Term{X: m.f("X", rows, w.Rows), W: w, Transposed: true, Scale: 1})
			if i == len(c.weights)-1 {
				op.Terms[i].Scale = c.scale
			}
		}
		check(t, fmt.Sprint("product in place ", c.direct), op, 5e-6)
		for _, v := range halving() {
			x := halves{v: v, m: rows, depth: productDepth(op), h: half(productDepth(op))}
			for _, term := range narrow(op).(*kernels.Product).Terms {
				x.terms = append(x.terms, productTerm(term))
			}
			dst, from := make([]float32, rightSize(x.h)), 0
			for _, want := range c.direct {
				got := x.streamInPlace(dst, 0, from, x.h-from)
				if got != want {
					t.Errorf("%s: of %v, %d depths go in place from %d on, want %d", v.name, c.direct, got, from, want)
				}
				from += got
			}
		}
	}
}

// halving returns the instruction sets that have Strassen's product, with no product too
// small for it that has a whole block.
func halving() (sets []*vectors) {
	for _, v := range available() {
		if v.strassen != nil {
			all, loops := *v, *v.strassen
			all.name += " by halves"
			loops.rows, loops.saved = 0, math.Inf(1)
			all.strassen = &loops
			sets = append(sets, &all)
		}
	}
	return sets
}

func TestStrassenConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("the suite is long under the race detector")
	}
	for _, v := range halving() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := &Backend{v: v, pool: newPool(2)}
			defer b.Close()
			kerneltest.Kinds(t, b, 5e-6, []string{"product", "cross_entropy"}, func() bool { return false })
		})
	}
}

// TestWorthHalves has shapes for which it was measured.
func TestWorthHalves(t *testing.T) {
	for _, s := range []struct {
		m, n, depth  int
		avx512, avx2 bool
	}{{1024, 1536, 592, true, true}, {1024, 576, 3104, true, true}, {1024, 192, 592, true, true}, {768, 192, 592, false, true}, {1024, 64, 592, false, false},
		{1024, 1536, 64, false, true}, {512, 1536, 592, false, false}, {4, 1 << 20, 1 << 20, false, false}} {
		for saved, want := range map[float64]bool{1: s.avx512, 1.4: s.avx2} {
			if got := (&strassenVectors{rows: leastHalved, saved: saved}).worth(s.m, s.n, s.depth); got != want {
				t.Errorf("%v: %v where %g are saved", s, got, saved)
			}
		}
	}
}

// TestStrassenRows has rows of very different size side by side: each is as exact as
// its own size allows, and a row of zeros is nothing but zeros.
func TestStrassenRows(t *testing.T) {
	const rows, cols, depth = 200, 64, 300
	m := maker{rand.New(rand.NewPCG(3, 4))}
	size := func(i int) float64 {
		if i%7 == 3 {
			return 0
		}
		return math.Pow(10, float64(i%5*15-30))
	}
	op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{{X: m.f("X", rows, depth), W: m.w(kernels.F32, cols, depth), Scale: 1}}}
	x := op.Terms[0].X.Float64s()
	for i := range x {
		x[i] = float64(float32(x[i] * size(i/depth)))
	}
	op.Terms[0].X.SetFloat64s(x)
	w := op.Terms[0].W.Float64s()
	for _, v := range halving() {
		got := narrow(op).(*kernels.Product)
		b := &Backend{v: v, pool: newPool(2)}
		if err := b.Run([]kernels.Op{got}, nil); err != nil {
			t.Fatal(err)
		}
		b.Close()
		for i := range rows {
			for j := range cols {
				want := 0.0
				for p := range depth {
					want += x[i*depth+p] * w[j*depth+p]
				}
				out := got.Out.Float64s()[i*cols+j]
				if math.Abs(out-want) > 2e-4*size(i) || size(i) == 0 && out != 0 {
					t.Fatalf("%s: row %d, of size %g: element %d is %g, want %g", v.name, i, size(i), j, out, want)
				}
			}
		}
	}
}

// TestStrassenLargest has rows that no power of two brings to 1 and back.
func TestStrassenLargest(t *testing.T) {
	const rows, cols, depth = 24, 64, 256
	m := maker{rand.New(rand.NewPCG(11, 12))}
	for _, v := range halving() {
		op := narrow(&kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{{X: m.f("X", rows, depth), W: m.w(kernels.F32, cols, depth), Scale: 1e-4}}}).(*kernels.Product)
		x, w := op.Terms[0].X.Float64s(), op.Terms[0].W.Float64s()
		for i := range x {
			x[i] = float64(float32(math.Copysign(2e38, x[i])))
		}
		op.Terms[0].X.SetFloat64s(x)
		b := &Backend{v: v, pool: newPool(2)}
		if err := b.Run([]kernels.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		b.Close()
		for i, out := range op.Out.Float64s() {
			want := 0.0
			for p := range depth {
				want += 1e-4 * x[i/cols*depth+p] * w[i%cols*depth+p]
			}
			if math.Abs(out-want) > 1e-4*2e34*16 {
				t.Fatalf("%s: element %d is %g, want %g", v.name, i, out, want)
			}
		}
	}
}

// TestStrassenInfinite has a number that is not finite in one row: it must show there.
func TestStrassenInfinite(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(5, 6))}
	for _, v := range halving() {
		for _, bad := range []float64{math.NaN(), math.Inf(-1)} {
			op := narrow(&kernels.Product{Out: m.f("Out", 192, 64), Terms: []kernels.Term{{X: m.f("X", 192, 256), W: m.w(kernels.F32, 64, 256), Scale: 1}}}).(*kernels.Product)
			x := op.Terms[0].X.Float64s()
			x[100*256+17] = bad
			op.Terms[0].X.SetFloat64s(x)
			b := &Backend{v: v, pool: newPool(1)}
			if err := b.Run([]kernels.Op{op}, nil); err != nil {
				t.Fatal(err)
			}
			b.Close()
			for j := range 64 {
				if y := op.Out.Float64s()[100*64+j]; !math.IsNaN(y) && !math.IsInf(y, 0) {
					t.Fatalf("%s: %v became %v", v.name, bad, y)
				}
			}
		}
	}
}

// TestStrassenLoss has words that are no whole blocks, runs of words that are shorter
// than others, several blocks of the depth, a soft cap, and trained weights.
func TestStrassenLoss(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(7, 8))}
	for _, c := range []struct {
		n, vocab, width int
		softCap         float64
		dx, dw          bool
	}{{24, 64, 64, 0, true, false}, {29, 1100, 128, 0, true, false}, {32, 200, 1088, 0, true, false}, {73, 650, 320, 2, true, true}, {60, 330, 256, 3, false, false}} {
		term := kernels.HeadTerm{X: m.f("X", c.n, c.width), W: m.w(kernels.BF16, c.vocab, c.width), Scale: 2 / math.Sqrt(float64(c.width))}
		if c.dx {
			term.DX = m.f("DX", c.n, c.width)
		}
		if c.dw {
			term.DW = m.f("DW", c.vocab, c.width)
		}
		op := &kernels.CrossEntropy{Targets: m.below(c.n, c.vocab), Loss: m.f("Loss", c.n, 1), LogitScale: 1.5, SoftCap: c.softCap,
			Terms: []kernels.HeadTerm{term, {X: m.f("U", c.n, 5), W: m.w(kernels.F32, c.vocab, 5), Scale: 0.2}}}
		check(t, fmt.Sprint("cross_entropy ", c), op, 2e-5)
	}
}

// TestStrassenErrors holds what docs/exactness.md says of them.
func TestStrassenErrors(t *testing.T) {
	const rows, cols = 120, 64
	m := maker{rand.New(rand.NewPCG(9, 10))}
	for _, depth := range []int{256, 1024, 2500} {
		op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{{X: m.f("X", rows, depth), W: m.w(kernels.F32, cols, depth), Scale: 1}}}
		if err := reference.New().Run([]kernels.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		want := op.Out.Float64s()
		errors := func(v *vectors) float64 { // root mean square, of the row's largest element
			got := narrow(op).(*kernels.Product)
			b := &Backend{v: v, pool: newPool(1)}
			defer b.Close()
			if err := b.Run([]kernels.Op{got}, nil); err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for i, out := range got.Out.Float64s() {
				e := (out - want[i]) / largest(want[i/cols*cols:][:cols])
				sum += e * e
			}
			return math.Sqrt(sum / (rows * cols))
		}
		for _, v := range halving() {
			plain := *v
			plain.strassen = nil
			if halves, whole := errors(v), errors(&plain); !(halves < 1.8*whole && halves < 4e-7) {
				t.Errorf("%s, depth %d: %.2g, plainly %.2g", v.name, depth, halves, whole)
			}
		}
	}
}

// What products ask for together has to be all that is needed: a gap would show in no
// result, only as time.
func TestAskedFor(t *testing.T) {
	const pairs = 12
	for _, blocks := range []int{8, 9, 24, 31, 90} {
		t.Run(fmt.Sprint("left ", blocks), func(t *testing.T) {
			const rows, row = 400, pairs * pairRows
			x, u := matrix{make([]float32, rows*576), rows, 576, 576}, matrix{make([]float32, rows*16), rows, 16, 16}
			var next nextLeft
			next.set(&halves{m: rows, depth: 592, h: half(592), terms: []term{{left: factor{weights: bytesOf(x)}, depth: 576}, {left: factor{weights: bytesOf(u)}, depth: 16}}}, row, blocks)
			asked := map[uintptr]bool{}
			for block := range blocks {
				var asks [packedSums]rowsAhead
				next.part(&asks, block, pairs)
				for _, p := range asks {
					for i := range pairs * p.each {
						for j := range blockCols {
							asked[p.at+uintptr(4*(i*p.stride+j))] = true
						}
					}
				}
			}
			for i := range rows {
				for _, m := range []matrix{x, u} {
					for j := range m.cols {
						needed, here := row <= i && i < row+pairs*pairRows, asked[uintptr(unsafe.Pointer(&m.row(i)[j]))]
						beyond := m.cols < blockCols // what is asked for there is in the rows that follow
						if needed && !here || here && !needed && !beyond {
							t.Fatalf("(%d, %d) of %d columns is asked for: %v", i, j, m.cols, here)
						}
					}
				}
			}
		})
	}
	for _, v := range halving() {
		t.Run("moved on "+v.name, func(t *testing.T) {
			const h, stride = 16, 100
			for pairs := 1; pairs <= 5; pairs++ {
				rows := make([]float32, 1<<16)
				x, far := halves{v: v, h: h}, [packedSums]rowsAhead{}
				start := uintptr(unsafe.Pointer(&rows[0]))
				for n := range far {
					far[n] = rowsAhead{start, stride, n % 3}
				}
				x.multiply(pairs*pairRows, make([]float32, pairs*leftSize(h)), pairs*tileRows*h, make([]float32, rightSize(h)), make([]float32, blockSize(pairs)),
					make([]float32, pairs*pairRows*blockCols), blockCols, make([]float32, pairs*pairRows), false, &far)
				for n := range far {
					if moved := int(far[n].at-start) / 4; moved != pairs*(n%3)*stride {
						t.Errorf("%d pairs: product %d moved %d elements on, want %d", pairs, n, moved, pairs*(n%3)*stride)
					}
				}
			}
		})
	}
	for _, d := range []kernels.DType{kernels.F32, kernels.BF16} {
		for _, along := range []bool{false, true} {
			t.Run(fmt.Sprint("right ", d, " along ", along), func(t *testing.T) {
				const n, depth, h, from, depths = 192, 640, 320, 64, 96
				w := weights{data: make([]byte, d.Bytes(n*depth)), dtype: d, rows: n, cols: depth, stride: depth}
				if along {
					w.rows, w.cols, w.stride = depth, n, n
				}
				x := halves{depth: depth, h: h, terms: []term{{right: factor{weights: w, along: along}, depth: depth}}}
				asked := map[uintptr]bool{}
				for half := range 2 {
					ahead, step, advance, turn := x.rightAhead(half*h+from, blockCols)
					at := uintptr(unsafe.Pointer(ahead))
					for k := range depths {
						if k > 0 && k%tileCols == 0 {
							at += uintptr(turn)
						}
						for i := range 4 {
							for b := range d.Bytes(tileCols) {
								asked[at+uintptr(i*step+b)] = true
							}
						}
						at += uintptr(advance)
					}
				}
				for p := range depth {
					for j := blockCols; j < 2*blockCols; j++ {
						b := &w.at(j, p)[0]
						if along {
							b = &w.at(p, j)[0]
						}
						if in := p%h >= from && p%h < from+depths; in != asked[uintptr(unsafe.Pointer(b))] {
							t.Fatalf("column %d, depth %d is asked for: %v", j, p, !in)
						}
					}
				}
			})
		}
	}
}
