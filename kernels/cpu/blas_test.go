package cpu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"graft/kernels"
	"graft/kernels/kerneltest"
)

// elementsOf returns the elements of a matrix, which must lie in memory whole.
func elementsOf(name string, rows, cols int, trans bool, x []float32, ld int) func(i, j int) *float32 {
	down, along := ld, 1
	if trans {
		rows, cols, down, along = cols, rows, 1, ld
	}
	if rows <= 0 || cols <= 0 || ld < cols || len(x) < (rows-1)*ld+cols {
		panic(fmt.Sprintf("sgemm: %s is %d×%d, rows %d apart, in %d elements", name, rows, cols, ld, len(x)))
	}
	return func(i, j int) *float32 { return &x[i*down+j*along] }
}

// plainSgemm is the sgemm of BLAS.
func plainSgemm(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
	at, bt, ct := elementsOf("A", m, k, transA, a, lda), elementsOf("B", k, n, transB, b, ldb), elementsOf("C", m, n, false, c, ldc)
	for i := range m {
		for j := range n {
			var sum, old float32
			for p := range k {
				sum += *at(i, p) * *bt(p, j)
			}
			if beta != 0 {
				old = beta * *ct(i, j)
			}
			*ct(i, j) = alpha*sum + old
		}
	}
}

// awkwardSgemm returns one that goes over the depths from the last to the first,
// adding to C each time, and bears no second caller while it runs.
func awkwardSgemm() sgemm {
	var busy atomic.Bool
	return func(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
		if busy.Swap(true) {
			panic("sgemm: called while it runs")
		}
		defer busy.Store(false)
		at, bt, ct := elementsOf("A", m, k, transA, a, lda), elementsOf("B", k, n, transB, b, ldb), elementsOf("C", m, n, false, c, ldc)
		for p := k - 1; p >= 0; p-- {
			for i := m - 1; i >= 0; i-- {
				for j := range n {
					if p == k-1 && beta == 0 {
						*ct(i, j) = 0
					}
					*ct(i, j) += alpha * *at(i, p) * *bt(p, j)
				}
			}
		}
	}
}

// libraries returns instruction sets with a library that takes products of any
// size, in small blocks and in large ones.
func libraries() []*vectors {
	all := func(m, n, depth int) bool { return true }
	best := choose("")
	small := withBLAS(*best, best.name+" with an awkward sgemm", &blas{sgemm: awkwardSgemm(), worth: all, words: 1500, rows: 24})
	large := withBLAS(plain, "go with sgemm", &blas{sgemm: plainSgemm, worth: all, words: 1 << 20, rows: 1 << 10})
	return []*vectors{&small, &large}
}

func TestConformanceWithLibrary(t *testing.T) {
	if testing.Short() {
		t.Skip("see TestConformance")
	}
	t.Parallel()
	b := &Backend{v: libraries()[0], pool: newPool(2)}
	defer b.Close()
	kerneltest.Forward(t, b, 5e-6)
}

// call is what sgemm was asked.
type call struct {
	transA, transB bool
	m, n, k        int
	alpha, beta    float32
}

// recorder returns a library that takes products of at least so many
// multiply-adds, and the list of what it is asked.
func recorder(v vectors, least, words int) (*Backend, *[]call) {
	var calls []call
	l := &blas{words: words, rows: 10, worth: func(m, n, depth int) bool { return m*n*depth >= least }}
	l.sgemm = func(transA, transB bool, m, n, k int, alpha float32, a []float32, lda int, b []float32, ldb int, beta float32, c []float32, ldc int) {
		calls = append(calls, call{transA, transB, m, n, k, alpha, beta})
		plainSgemm(transA, transB, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
	}
	set := withBLAS(v, "recorder", l)
	return &Backend{v: &set, pool: newPool(2)}, &calls
}

// TestCalls holds the library to what is said of it: products that are large,
// one call for a weight that lies in float32, blocks for others, a term after
// the other.
func TestCalls(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(21, 22))}
	f32 := func(rows, cols int) *kernels.Tensor { return m.tensor("W", kernels.F32, rows, cols) }
	bf16 := func(rows, cols int) *kernels.Tensor { return m.tensor("W", kernels.BF16, rows, cols) }
	x, u, out := m.f("X", 20, 50), m.f("U", 20, 4), m.f("Out", 20, 60)
	product := func(o kernels.Product, terms ...kernels.Term) *kernels.Product {
		o.Out, o.Terms = out, terms
		return &o
	}
	loss := &kernels.CrossEntropy{Targets: m.below(20, 60), Loss: m.f("Loss", 20, 1), LogitScale: 2,
		Terms: []kernels.HeadTerm{{X: x, W: bf16(60, 50), Scale: 1, DX: m.f("DX", 20, 50), DW: m.f("DW", 60, 50)}}}
	for _, c := range []struct {
		name string
		op   kernels.Op
		want []call
	}{
		{"float32", product(kernels.Product{}, kernels.Term{X: x, W: f32(60, 50), Scale: 3}), []call{{false, true, 20, 60, 50, 3, 0}}},
		{"float32, transposed", product(kernels.Product{Add: out}, kernels.Term{X: x, W: f32(50, 60), Transposed: true, Scale: 1}), []call{{false, false, 20, 60, 50, 1, 1}}},
		{"low-rank term", product(kernels.Product{}, kernels.Term{X: x, W: f32(60, 50), Scale: 1}, kernels.Term{X: u, W: f32(60, 4), Scale: 2}),
			[]call{{false, true, 20, 60, 50, 1, 0}, {false, true, 20, 60, 4, 2, 1}}},
		{"bias", product(kernels.Product{Bias: bf16(1, 60)}, kernels.Term{X: x, W: f32(60, 50), Scale: 1}), []call{{false, true, 20, 60, 50, 1, 1}}},
		{"blocks of 25 columns", product(kernels.Product{}, kernels.Term{X: x, W: bf16(60, 50), Scale: 1}),
			[]call{{false, true, 20, 25, 50, 1, 0}, {false, true, 20, 25, 50, 1, 0}, {false, true, 20, 10, 50, 1, 0}}},
		{"blocks of 20 depths", product(kernels.Product{}, kernels.Term{X: x, W: bf16(50, 60), Transposed: true, Scale: 1}),
			[]call{{false, false, 20, 60, 20, 1, 0}, {false, false, 20, 60, 20, 1, 1}, {false, false, 20, 60, 10, 1, 1}}},
		{"a row is more than a block", &kernels.Product{Out: m.f("Out", 20, 33), Terms: []kernels.Term{{X: m.f("X", 20, 2000), W: bf16(33, 2000), Scale: 1}}},
			slices.Repeat([]call{{false, true, 20, 1, 2000, 1, 0}}, 33)},
		{"small", &kernels.Product{Out: m.f("Out", 10, 60), Terms: []kernels.Term{{X: m.f("X", 10, 50), W: f32(60, 50), Scale: 1}}}, nil},
		{"few rows", &kernels.Product{Out: m.f("Out", fewRows, 600), Terms: []kernels.Term{{X: m.f("X", fewRows, 50), W: f32(600, 50), Scale: 1}}}, nil},
		{"few columns", &kernels.Product{Out: m.f("Out", 200, fewCols), Terms: []kernels.Term{{X: m.f("X", 200, 50), W: f32(fewCols, 50), Scale: 1}}}, nil},
		{"gradient", &kernels.WeightGrad{DY: m.f("DY", 20, 70), X: m.f("X", 20, 80), DW: m.f("DW", 70, 80), Scale: 3}, []call{{true, false, 70, 80, 20, 3, 1}}},
		{"thin gradient", &kernels.WeightGrad{DY: m.f("DY", 20, 8), X: m.f("X", 20, 800), DW: m.f("DW", 8, 800), Scale: 3}, nil},
		{"loss", loss, slices.Concat(
			lossCalls(25, 0, false), lossCalls(25, 1, false), lossCalls(10, 1, false),
			lossCalls(25, 1, true), lossCalls(25, 1, true), lossCalls(10, 1, true))},
	} {
		b, calls := recorder(plain, 20*60*50, 1250)
		if err := b.Run([]kernels.Op{narrow(c.op)}, nil); err != nil {
			t.Error(err)
		}
		b.Close()
		if !slices.Equal(*calls, c.want) {
			t.Errorf("%s: %v, want %v", c.name, *calls, c.want)
		}
	}
}

// lossCalls are the products of a block of words: of two blocks of rows the logits,
// and then a gradient.
func lossCalls(words int, beta float32, weights bool) []call {
	logits, gradient := call{false, true, 10, words, 50, 2, 0}, call{false, false, 10, 50, words, 2, beta}
	if weights {
		gradient = call{true, false, words, 50, 10, 2, 1}
	}
	return []call{logits, gradient, logits, gradient}
}

// TestLibraryMemory finds that memory does not grow with the weights.
func TestLibraryMemory(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(23, 24))}
	b, _ := recorder(plain, 0, 1<<14)
	defer b.Close()
	for _, n := range []int{400, 4000} {
		scratch := func(op kernels.Op) int { return b.Scratch([]kernels.Op{narrow(op)}) }
		x, w := m.f("X", 20, 64), m.tensor("W", kernels.BF16, n, 64)
		p := scratch(&kernels.Product{Out: m.f("Out", 20, n), Terms: []kernels.Term{{X: x, W: w, Scale: 1}}})
		l := scratch(&kernels.CrossEntropy{Targets: m.below(20, n), Loss: m.f("Loss", 20, 1), LogitScale: 1, Terms: []kernels.HeadTerm{{X: x, W: w, Scale: 1}}})
		if p != 4<<14 || l > 4*(3<<14) {
			t.Errorf("%d rows of weights: %d and %d bytes", n, p, l)
		}
	}
}

// TestPeakOfLibrary has one that takes a millisecond.
func TestPeakOfLibrary(t *testing.T) {
	v := withBLAS(plain, "sleep", &blas{sgemm: func(_, _ bool, m, n, k int, _ float32, _ []float32, _ int, _ []float32, _ int, _ float32, _ []float32, _ int) {
		time.Sleep(time.Millisecond)
	}})
	b := &Backend{v: &v, pool: newPool(1)}
	defer b.Close()
	if flops, _ := b.Peaks(); flops < 1e11 || flops > 2.2e12 {
		t.Errorf("%g floating point operations per second", flops)
	}
}
