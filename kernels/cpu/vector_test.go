package cpu

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"graft/kernels"
)

// loops runs each inner loop on slices of equal length, and returns its result.
var loops = map[string]func(v *vectors, s [][]float32) float64{
	"scale": func(v *vectors, s [][]float32) float64 { v.scale(s[0], 1.5); return 0 },
	"add":   func(v *vectors, s [][]float32) float64 { v.add(s[0], s[1], s[2]); return 0 },
	"maxOf": func(v *vectors, s [][]float32) float64 { return float64(v.maxOf(s[0])) },
	"exp":   func(v *vectors, s [][]float32) float64 { return float64(v.exp(s[0], s[1], 0.5, 2)) },
	"expMax": func(v *vectors, s [][]float32) float64 {
		sum, top := v.expMax(s[0], s[1], s[2], s[3], 0.5, 2, 1.5)
		for i := range s[0] { // what is left of the factor that it may have
			s[0][i] /= sum
		}
		return float64(top)
	},
	"cap":          func(v *vectors, s [][]float32) float64 { v.cap(s[0], 0.5); return 0 },
	"sumSquares":   func(v *vectors, s [][]float32) float64 { return float64(v.sumSquares(s[0])) },
	"sumSquares64": func(v *vectors, s [][]float32) float64 { return v.sumSquares64(s[0]) },
	"normalizeSum": func(v *vectors, s [][]float32) float64 { return float64(v.normalizeSum(s[0], s[1], s[2], s[3], 0.3)) },
	"dot3":         func(v *vectors, s [][]float32) float64 { return float64(v.dot3(s[0], s[1], s[2])) },
	"normGrad":     func(v *vectors, s [][]float32) float64 { v.normGrad(s[0], s[1], s[2], s[3], 0.3, 0.7); return 0 },
	"weightGrad":   func(v *vectors, s [][]float32) float64 { v.weightGrad(s[0], s[1], s[2], 0.3); return 0 },
	"rotate":       func(v *vectors, s [][]float32) float64 { v.rotate(s[0], s[1], s[0], s[1], s[4], s[5]); return 0 },
	"unrotate":     func(v *vectors, s [][]float32) float64 { v.unrotate(s[0], s[1], s[2], s[3], s[4], s[5]); return 0 },
	"SiLU":         func(v *vectors, s [][]float32) float64 { v.gated[kernels.SiLU](s[0], s[1], s[2]); return 0 },
	"GELU":         func(v *vectors, s [][]float32) float64 { v.gated[kernels.GELU](s[0], s[1], s[2]); return 0 },
	"GELUTanh":     func(v *vectors, s [][]float32) float64 { v.gated[kernels.GELUTanh](s[0], s[1], s[2]); return 0 },
	"SiLU grad": func(v *vectors, s [][]float32) float64 {
		v.gatedGrad[kernels.SiLU](s[0], s[1], s[5], s[2], s[3], s[4])
		return 0
	},
	"GELU grad": func(v *vectors, s [][]float32) float64 {
		v.gatedGrad[kernels.GELU](s[0], s[1], s[5], s[2], s[3], s[4])
		return 0
	},
	"GELUTanh grad": func(v *vectors, s [][]float32) float64 {
		v.gatedGrad[kernels.GELUTanh](s[0], s[1], s[5], s[2], s[3], s[4])
		return 0
	},
	"dropout": func(v *vectors, s [][]float32) float64 {
		// The positions' upper words change within a vector.
		v.dropout(s[0], s[1], &mask{seed: 5<<32 | 7, stream: 3, start: 1<<33 - 3, perRow: 1, least: 1 << 30, factor: 4. / 3}, 0, 0)
		return 0
	},
	"adam": func(v *vectors, s [][]float32) float64 {
		for i := range s[2] {
			s[2][i] *= s[2][i]
		}
		v.adam(s[0], s[1], s[2], s[3], &adamFactors{0.5, 0.99, 0.9, 0.1, 0.999, 0.001, 0.01, 1.5, 1e-8})
		return 0
	},
}

// TestVectors compares every inner loop with its plain twin at every length
// that has its own path, and what lies behind the slices.
func TestVectors(t *testing.T) {
	for name, run := range loops {
		everyLength(t, name, func(v *vectors, s [][]float32, _ []byte) float64 { return run(v, s) })
	}
	for _, d := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
		stored := func(f func(v *vectors, s [][]float32, w *byte) float64) func(v *vectors, s [][]float32, w []byte) float64 {
			return func(v *vectors, s [][]float32, w []byte) float64 {
				x := make([]float64, len(s[5])+1) // an element at least, for its address
				for i, y := range s[5] {
					x[i] = float64(y)
				}
				kernels.EncodeFloat64(w[1:], x, d) // weights lie at any address
				return f(v, s, &w[1])
			}
		}
		everyLength(t, "widen "+d.String(), stored(func(v *vectors, s [][]float32, w *byte) float64 { v.widen[d](s[0], w); return 0 }))
		everyLength(t, "dot "+d.String(), stored(func(v *vectors, s [][]float32, w *byte) float64 { return float64(v.dot[d](s[0], w)) }))
		everyLength(t, "axpy "+d.String(), stored(func(v *vectors, s [][]float32, w *byte) float64 { v.axpy[d](s[0], w, 1.5); return 0 }))
	}
}

func everyLength(t *testing.T, name string, run func(v *vectors, s [][]float32, w []byte) float64) {
	for _, v := range available()[1:] {
		for n := range 100 {
			want, wantAll := runOn(&plain, n, run)
			got, all := runOn(v, n, run)
			if !near(got, want) {
				t.Errorf("%s, %s of %d: %v, want %v", v.name, name, n, got, want)
			}
			for i, w := range wantAll {
				for j := range w {
					if !near(float64(all[i][j]), float64(w[j])) {
						t.Fatalf("%s, %s of %d: slice %d, element %d is %v, want %v", v.name, name, n, i, j, all[i][j], w[j])
					}
				}
			}
		}
	}
}

// runOn returns the result, and the slices with what lies behind them.
func runOn(v *vectors, n int, run func(v *vectors, s [][]float32, w []byte) float64) (float64, [][]float32) {
	r := rand.New(rand.NewPCG(uint64(n), 1))
	all, s := make([][]float32, 6), make([][]float32, 6)
	for i := range all {
		all[i] = make([]float32, n+9)
		for j := range all[i] {
			all[i][j] = float32(r.NormFloat64())
			if r.IntN(8) == 0 {
				all[i][j] *= 20
			}
		}
		s[i] = slices.Clip(all[i][:n])
	}
	return run(v, s, make([]byte, 4*n+5)), all
}

func near(a, b float64) bool { return a == b || math.Abs(a-b) <= 2e-5*(0.1+math.Abs(b)) }

// TestNotANumber goes through what must show it, and past what must not.
func TestNotANumber(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, v := range available() {
		x := []float32{1, nan, 3, -inf, 2, nan, -1, 0, nan}
		if m := v.maxOf(x); m != 3 {
			t.Errorf("%s: the largest is %v", v.name, m)
		}
		out := make([]float32, len(x))
		if sum := v.exp(out, x, 1, 0); sum == sum || out[1] == out[1] || out[8] == out[8] || out[3] > 1e-37 || !near(float64(out[6]), 1/math.E) {
			t.Errorf("%s: exp is %v, of sum %v", v.name, out, sum)
		}
	}
}

// scores returns the sum of softmaxRows of the n elements of one row.
func scores(v *vectors, s []float32, n int) float32 {
	top, next, sum := float32(math.Inf(-1)), float32(0), float32(0)
	v.softmaxRows(1, &s[0], 0, &extent{0, int32(n)}, &top, &next, &sum)
	return sum
}

// rowsOf are random rows of some elements, and room behind them.
type rowsOf struct {
	count, ld int
	extents   []extent
	s, ds     []float32
	a, b      []float32 // an element for each row, every so many
}

func newRowsOf(seed uint64) *rowsOf {
	r := rand.New(rand.NewPCG(seed, 2))
	x := &rowsOf{count: 1 + r.IntN(9), ld: 70 + rowSpare}
	fill := func(n int) []float32 {
		y := make([]float32, n)
		for i := range y {
			y[i] = float32(3 * r.NormFloat64())
		}
		return y
	}
	x.s, x.ds = fill(x.count*x.ld), fill(x.count*x.ld)
	x.a, x.b = fill(3*x.count), fill(3*x.count)
	for range x.count {
		lo := r.IntN(20) * r.IntN(2)
		x.extents = append(x.extents, extent{int32(lo), int32(lo + r.IntN(71-lo))})
	}
	return x
}

// each calls f for the elements of extents, and those behind that are to be cleared, and
// checks that those elsewhere are still those of old.
func (x *rowsOf) each(t *testing.T, what string, s, old []float32, f func(row, col int, y float32)) {
	for i, e := range x.extents {
		for j, y := range s[i*x.ld:][:x.ld] {
			switch at := int32(j); {
			case at >= e[0] && at < e[1]:
				f(i, j, y)
			case at >= e[1] && at < e[1]+tileRows:
				if y != 0 {
					t.Fatalf("%s: row %d of %v: element %d is %v", what, i, e, j, y)
				}
			case at < e[0] || at >= e[1]+rowSpare-1:
				if y != old[i*x.ld+j] {
					t.Fatalf("%s: row %d of %v: element %d has changed", what, i, e, j)
				}
			}
		}
	}
}

// TestScores compares softmaxRows and scoreRows with their formulas.
func TestScores(t *testing.T) {
	for _, v := range available() {
		for seed := range uint64(300) {
			x, old := newRowsOf(seed), newRowsOf(seed)
			next, sums := make([]float32, x.count), make([]float32, x.count)
			v.softmaxRows(x.count, &x.s[0], x.ld, &x.extents[0], &x.a[0], &next[0], &sums[0])
			want, left := slices.Clone(x.a[:x.count]), make([]float64, x.count)
			for i, e := range x.extents {
				for _, y := range old.s[i*x.ld:][e[0]:e[1]] {
					want[i] = max(want[i], y)
				}
				left[i] = float64(sums[i])
			}
			if !slices.Equal(next, want) {
				t.Fatalf("%s: largest %v, want %v", v.name, next, want)
			}
			x.each(t, v.name+", softmax", x.s, old.s, func(i, j int, y float32) {
				w := math.Exp(float64(old.s[i*x.ld+j]) - float64(want[i]))
				left[i] -= w
				if !near(float64(y), w) {
					t.Fatalf("%s: softmax of row %d, element %d is %v, want %v", v.name, i, j, y, w)
				}
			})
			for i, d := range left {
				if math.Abs(d) > 1e-5 {
					t.Fatalf("%s: sum of row %d is %v off", v.name, i, d)
				}
			}

			x = newRowsOf(seed)
			const ic2 = 1e-2
			v.scoreRows(x.count, &x.s[0], &x.ds[0], x.ld, &x.extents[0], &x.a[0], 3, &x.b[0], 2, ic2)
			p := func(i, j int) (p, s float64) {
				s = float64(old.s[i*x.ld+j])
				return math.Exp(s - float64(x.a[3*i])), s
			}
			x.each(t, v.name+", p", x.s, old.s, func(i, j int, y float32) {
				if w, _ := p(i, j); !near(float64(y), w) {
					t.Fatalf("%s: p of row %d, element %d is %v, want %v", v.name, i, j, y, w)
				}
			})
			x.each(t, v.name+", ds", x.ds, old.ds, func(i, j int, y float32) {
				p, s := p(i, j)
				if w := p * (float64(old.ds[i*x.ld+j]) - float64(x.b[2*i])) * (1 - s*s*ic2); math.Abs(float64(y)-w) > 1e-5*max(1, p) {
					t.Fatalf("%s: ds of row %d, element %d is %v, want %v", v.name, i, j, y, w)
				}
			})
		}
	}
}

// TestDotAndScaleRows compares dotRows and scaleRows with their formulas.
func TestDotAndScaleRows(t *testing.T) {
	const count, outStep, xStep, yStep = 3, 97, 99, 101
	for _, v := range available() {
		for n := 1; n < 90; n++ {
			r := rand.New(rand.NewPCG(uint64(n), 3))
			x, y, factors := make([]float32, count*xStep), make([]float32, count*yStep), make([]float32, count)
			for _, s := range [][]float32{x, y, factors} {
				for i := range s {
					s[i] = float32(r.NormFloat64())
				}
			}
			dots, out := make([]float32, count+1), make([]float32, count*outStep)
			v.dotRows(count, &x[0], xStep, &y[0], yStep, n, &dots[0])
			v.scaleRows(count, &out[0], outStep, &x[0], xStep, n, &factors[0])
			for i := range count {
				var want float64
				for j := range n {
					want += float64(x[i*xStep+j]) * float64(y[i*yStep+j])
					if got, want := out[i*outStep+j], x[i*xStep+j]*factors[i]; got != want {
						t.Fatalf("%s: element %d of row %d of %d is %v, want %v", v.name, j, i, n, got, want)
					}
				}
				if math.Abs(float64(dots[i])-want) > 1e-5*math.Sqrt(float64(n)) {
					t.Fatalf("%s: product of row %d of %d is %v, want %v", v.name, i, n, dots[i], want)
				}
				for j := n; j < outStep; j++ {
					if out[i*outStep+j] != 0 {
						t.Fatalf("%s: row %d of %d: element %d was written", v.name, i, n, j)
					}
				}
			}
			if dots[count] != 0 {
				t.Fatalf("%s: wrote beyond the last product", v.name)
			}
		}
	}
}

// TestNotANumberStays has those that arithmetic makes, and others that a file may hold.
func TestNotANumberStays(t *testing.T) {
	isNaN := func(x float32) bool { return x != x }
	for _, v := range available() {
		for _, bits := range []uint32{0x7fc00000, 0xffc00000, 0x7fc00001, 0xffffffff, 0x7fc000ff} {
			for n := 1; n < 40; n++ {
				filled := func() []float32 {
					x := make([]float32, n)
					for i := range x {
						x[i] = float32(i%5) - 2
					}
					return x
				}
				bad := n / 2
				with := func() []float32 {
					x := filled()
					x[bad] = math.Float32frombits(bits)
					return x
				}
				out, other := filled(), filled()
				for name, got := range map[string]func() float32{
					"exp":          func() float32 { return v.exp(out, with(), 1, 2) },
					"expMax":       func() float32 { sum, _ := v.expMax(out, with(), filled(), filled(), 1, 2, 1); return sum },
					"softmax rows": func() float32 { return scores(v, append(with(), make([]float32, rowSpare)...), n) },
					"score rows": func() float32 {
						s, ds := append(with(), make([]float32, rowSpare)...), append(filled(), make([]float32, rowSpare)...)
						one := float32(1)
						v.scoreRows(1, &s[0], &ds[0], 0, &extent{0, int32(n)}, &one, 0, &one, 0, 0.1)
						return s[bad]
					},
					"cap":  func() float32 { out = with(); v.cap(out, 3); return out[bad] },
					"SiLU": func() float32 { v.gated[kernels.SiLU](out, with(), filled()); return out[bad] },
					"GELU": func() float32 { v.gated[kernels.GELU](out, with(), filled()); return out[bad] },
					"tanh": func() float32 { v.gated[kernels.GELUTanh](out, with(), filled()); return out[bad] },
					"gradient": func() float32 {
						again := filled()
						v.gatedGrad[kernels.SiLU](out, other, again, with(), filled(), filled())
						for _, y := range []float32{other[bad], again[bad]} {
							if !isNaN(y) {
								return y
							}
						}
						return out[bad]
					},
				} {
					if y := got(); !isNaN(y) {
						t.Fatalf("%s: %s of %d with %#x at %d: %v", v.name, name, n, bits, bad, y)
					}
				}
			}
		}
	}
}

// TestSoftmaxOfLarge has rows on either side of expMaxLimit, and differences that only an
// exact difference from the largest shows.
func TestSoftmaxOfLarge(t *testing.T) {
	const rows, cols = 5, 40
	for _, v := range available() {
		for _, scale := range []float32{-0.125, 1e-3, 0.125, 1, 30} {
			for _, offset := range []float32{0, -3e4, 5e5, 3e6, -1e7} {
				x, out := make([]float32, rows*cols), make([]float32, rows*cols)
				for i := range x {
					x[i] = offset/scale + float32(i*7%13)/scale
				}
				s := softmaxRows{v: v, x: matrix{x, rows, cols, cols}, out: matrix{out, rows, cols, cols}, scale: scale}
				s.whole(0, rows)
				for r := range rows {
					var sum float64
					row := s.x.row(r)
					e := func(y float32) float64 { return math.Exp(float64(scale) * (float64(y) - float64(slices.Max(row)))) }
					for _, y := range row {
						sum += e(y)
					}
					for i, y := range row {
						if got, want := float64(s.out.row(r)[i]), e(y)/sum; math.Abs(got-want) > 1e-6 {
							t.Fatalf("%s: scale %v, offset %v: element %d of row %d is %v, want %v", v.name, scale, offset, i, r, got, want)
						}
					}
				}
			}
		}
	}
}

// TestBlocks decodes whole blocks to the bits that DecodeRange gives.
func TestBlocks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, v := range available() {
		for i, decode := range v.blocks {
			d := kernels.DType(i)
			for n := 0; decode != nil && n <= 3*kernels.Group; n += kernels.Group {
				src := make([]byte, 1+d.Bytes(n)+1) // blocks lie at any address
				for j := range src {
					src[j] = byte(r.Uint32()) &^ 0x40 // no infinite scales
				}
				got, want := make([]float32, n+1), make([]float32, n+1)
				got[n], want[n] = 7, 7
				decode(got[:n], &src[1])
				kernels.DecodeRange(want[:n], src[1:], 0, d)
				if !slices.Equal(got, want) {
					t.Errorf("%s, %d of %v: %v, want %v", v.name, n, d, got, want)
				}
			}
		}
	}
}

func TestLog(t *testing.T) {
	for bits := uint32(0x00800000); bits < 0x7f800000; bits += 9973 {
		x := math.Float32frombits(bits)
		if want := math.Log(float64(x)); math.Abs(float64(log32(x))-want) > 1e-7*max(1, math.Abs(want)) {
			t.Fatalf("log of %g: %g, want %g", x, log32(x), want)
		}
	}
	if v := log32(float32(math.Inf(1))); !math.IsInf(float64(v), 1) {
		t.Errorf("log of infinity: %g", v)
	}
	if v := log32(float32(math.NaN())); v == v {
		t.Errorf("log of NaN: %g", v)
	}
}
