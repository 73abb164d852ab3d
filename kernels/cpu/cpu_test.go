package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"graft/kernels"
	"graft/kernels/reference"
)

// maker makes operands of random numbers that float32 holds exactly.
type maker struct{ *rand.Rand }

func (m maker) tensor(name string, d kernels.DType, rows, cols int) *kernels.Tensor {
	stride := cols + m.IntN(3)
	h := make(kernels.Host, 0)
	if n := rows * stride * d.Size(); n > 0 {
		var err error
		if h, err = kernels.AllocHost(n); err != nil {
			panic(err)
		}
	}
	t := &kernels.Tensor{Name: name, DType: d, Rows: rows, Cols: cols, Stride: stride, Buf: h}
	row := make([]float64, cols)
	for i := range rows {
		for j := range row {
			row[j] = float64(float32(m.NormFloat64()))
		}
		kernels.EncodeFloat64(h[i*stride*d.Size():], row, d)
	}
	return t
}

// f makes a tensor of the reference's floats.
func (m maker) f(name string, rows, cols int) *kernels.Tensor {
	return m.tensor(name, kernels.F64, rows, cols)
}

// nothing makes rows without columns.
func (m maker) nothing(name string, rows int) *kernels.Tensor {
	t := m.f(name, rows, 0)
	t.Stride = 0
	return t
}

// w makes a weight at an odd address.
func (m maker) w(d kernels.DType, rows, cols int) *kernels.Tensor {
	t := m.tensor("W", d, rows, cols)
	h, err := kernels.AllocHost(t.Buf.Size() + 1)
	if err != nil {
		panic(err)
	}
	copy(h[1:], t.Buf.(kernels.Host))
	t.Buf, t.Off = h, 1
	if d == kernels.F64 { // the reference wants no alignment either
		t.Buf, t.Off = h[1:], 0
	}
	return t
}

func (m maker) ints(v ...int32) *kernels.Tensor {
	h, err := kernels.AllocHost(4 * len(v))
	if err != nil {
		panic(err)
	}
	t := &kernels.Tensor{Name: "ints", DType: kernels.I32, Rows: len(v), Cols: 1, Stride: 1, Buf: h}
	t.SetInt32s(v)
	return t
}

func (m maker) below(count, n int) *kernels.Tensor {
	v := make([]int32, count)
	for i := range v {
		v[i] = int32(m.IntN(n))
	}
	return m.ints(v...)
}

// narrow returns the operation on float32 copies of its floats, but for
// stored weights and frequencies.
func narrow(op kernels.Op) kernels.Op {
	c := op.Clone()
	seen := map[*kernels.Tensor]*kernels.Tensor{}
	var freqs *kernels.Tensor
	if t, ok := op.(*kernels.RotaryTable); ok {
		freqs = t.Freqs
	}
	c.Operands(func(t **kernels.Tensor, _ kernels.Access) {
		old := *t
		if old.DType != kernels.F64 || old == freqs || old.Name == "W" {
			return
		}
		if seen[old] == nil {
			h, _ := kernels.AllocHost((old.Rows + pairRows) * old.Stride * 4)
			for i := range floats(h) { // what follows is not to be used
				floats(h)[i] = float32(math.NaN())
			}
			n := &kernels.Tensor{Name: old.Name, DType: kernels.F32, Rows: old.Rows, Cols: old.Cols, Stride: old.Stride, Buf: h}
			n.SetFloat64s(old.Float64s())
			seen[old] = n
		}
		*t = seen[old]
	})
	return c
}

func largest(v []float64) (m float64) {
	for _, x := range v {
		m = max(m, math.Abs(x))
	}
	return m
}

func outputs(op kernels.Op) (out []*kernels.Tensor) {
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		if a != kernels.Read {
			out = append(out, *t)
		}
	})
	return out
}

// setsFor returns all instruction sets, and for products those with a library, with the
// micro-tiles of other processors, and those that cut all of them into halves.
func setsFor(op kernels.Op) []*vectors {
	switch op.(type) {
	case *kernels.Product, *kernels.WeightGrad, *kernels.CrossEntropy:
		return slices.Concat(available(), libraries(), otherwiseTiled(), halving())
	case *kernels.Attention, *kernels.AttentionGrad:
		return slices.Concat(available(), piecing())
	}
	return available()
}

func otherwiseTiled() (sets []*vectors) {
	for _, v := range available() {
		if v.tilePackedLarge != nil {
			other := *v
			other.name += " with other tiles"
			other.large = !v.large
			sets = append(sets, &other)
		}
	}
	return sets
}

// check runs an operation on every instruction set and thread count, against
// the reference, and compares the thread counts bit for bit.
func check(t *testing.T, name string, op kernels.Op, tolerance float64) {
	t.Helper()
	checkOn(t, setsFor(op), name, op, tolerance)
}

func checkOn(t *testing.T, sets []*vectors, name string, op kernels.Op, tolerance float64) {
	t.Helper()
	var first []kernels.Op
	for _, v := range sets {
		for _, threads := range []int{1, 2, 3} {
			first = append(first, narrow(op))
			b := &Backend{v: v, pool: newPool(threads)}
			if err := b.Run(first[len(first)-1:], nil); err != nil {
				t.Fatal(err)
			}
			if n := b.Scratch(first[len(first)-1:]); n != len(b.scratch) {
				t.Errorf("%s: Scratch says %d, took %d", name, n, len(b.scratch))
			}
			b.Close()
		}
	}
	if err := reference.New().Run([]kernels.Op{op}, nil); err != nil {
		t.Fatal(err)
	}
	want := outputs(op)
	for i, got := range first {
		isa := sets[i/3].name
		for k, o := range outputs(got) {
			g, w := o.Float64s(), want[k].Float64s()
			same := outputs(first[i/3*3])[k].Float64s()
			floor := max(0.1*largest(w), 0.05) // a row of almost nothing is judged by its neighbours
			for r := range o.Rows {
				worst, scale, at := 0.0, 0.0, 0
				for c := range o.Cols {
					j := r*o.Cols + c
					scale = max(scale, math.Abs(w[j]))
					if e := math.Abs(g[j] - w[j]); !(e <= worst) {
						worst, at = e, c
					}
					if math.Float64bits(g[j]) != math.Float64bits(same[j]) {
						t.Fatalf("%s, %s: %v: %d threads differ from one at [%d, %d]", name, isa, o, i%3+1, r, c)
					}
				}
				if !(worst <= tolerance*max(scale, floor)) {
					t.Fatalf("%s, %s: %v [%d, %d]: got %v, want %v (row's scale %g, error %.1e)", name, isa, o, r, at, g[r*o.Cols+at], w[r*o.Cols+at], scale, worst/scale)
				}
			}
		}
	}
}

func TestProduct(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	types := []kernels.DType{kernels.F32, kernels.BF16, kernels.F16, kernels.F64}
	for i, s := range [][3]int{{1, 1, 1}, {1, 70, 33}, {4, 130, 300}, {5, 40, 7}, {5, 17, 9}, {7, 16, 40}, {96, 16, 40}, {50, 30, 620}, {13, 48, 320}, {200, 230, 65}, {3, 20, 8}} {
		for n, d := range types {
			rows, cols, depth := s[0], s[1], s[2]
			op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{
				{X: m.f("X", rows, depth), W: m.w(d, cols, depth), Scale: 1},
				{X: m.f("U", rows, 5), W: m.w(types[(n+1)%4], 5, cols), Transposed: true, Scale: 1.5},
			}}
			if (i+n)%3 == 1 {
				op.Add = m.f("Add", rows, cols)
			}
			if (i+n)%2 == 1 {
				op.Bias = m.w(d, 1, cols)
			}
			if (i+n)%3 == 2 {
				op.Add = op.Out
			}
			check(t, fmt.Sprint("product ", s, d), op, 3e-6)
		}
	}
	for _, rows := range []int{3, 9} {
		check(t, "terms of nothing, then of something", &kernels.Product{Out: m.f("Out", rows, 70), Terms: []kernels.Term{
			{X: m.nothing("X", rows), W: m.nothing("W", 70), Scale: 1},
			{X: m.nothing("X", rows), W: m.w(kernels.BF16, 0, 70), Transposed: true, Scale: 1},
			{X: m.f("X", rows, 20), W: m.w(kernels.F32, 70, 20), Scale: 1},
		}}, 3e-6)
	}
	check(t, "sum without terms", &kernels.Product{Out: m.f("Out", 9, 70), Add: m.f("Add", 9, 70), Bias: m.w(kernels.F32, 1, 70)}, 1e-6)
}

// TestWeightGradBeside has a gradient of few columns in rows of a whole panel: what else is there
// stays as it is, to the sign of a zero.
func TestWeightGradBeside(t *testing.T) {
	const rows, n, k = 30, 200, 9
	m := maker{rand.New(rand.NewPCG(5, 6))}
	h, _ := kernels.AllocHost(4 * n * tileCols)
	defer kernels.FreeHost(h)
	negative := float32(math.Copysign(0, -1))
	for _, v := range available() {
		for i := range floats(h) {
			floats(h)[i] = negative
		}
		op := narrow(&kernels.WeightGrad{DY: m.f("DY", rows, n), X: m.f("X", rows, k), DW: m.f("DW", n, k), Scale: 1}).(*kernels.WeightGrad)
		op.DW = &kernels.Tensor{Name: "DW", DType: kernels.F32, Rows: n, Cols: k, Stride: tileCols, Buf: h}
		b := &Backend{v: v, pool: newPool(2)}
		if err := b.Run([]kernels.Op{op}, nil); err != nil {
			t.Fatal(err)
		}
		b.Close()
		for i, y := range floats(h) {
			if column := i % tileCols; column >= k && math.Float32bits(y) != math.Float32bits(negative) || column < k && y == 0 {
				t.Fatalf("%s: row %d, column %d is %v", v.name, i/tileCols, column, y)
			}
		}
	}
}

func TestWeightGrad(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(3, 4))}
	for _, s := range [][3]int{{1, 1, 1}, {9, 16, 40}, {330, 40, 16}, {64, 100, 90}, {700, 5, 130}, {30, 1024, 7}, {1300, 200, 20}, {2500, 16, 500}, {600, 1600, 4}} {
		rows, n, k := s[0], s[1], s[2]
		check(t, fmt.Sprint("weight grad ", s), &kernels.WeightGrad{DY: m.f("DY", rows, n), X: m.f("X", rows, k), DW: m.f("DW", n, k), Scale: 0.7}, 4e-6)
		check(t, fmt.Sprint("bias grad ", s), &kernels.BiasGrad{DY: m.f("DY", rows, n), DBias: m.f("DBias", 1, n)}, 4e-6)
	}
}

func TestAttention(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(5, 6))}
	for _, c := range []struct {
		heads, kv, dim, window int
		softCap                float64
		bounds                 []int32
	}{
		{1, 1, 8, 0, 0, []int32{0, 1, 3}},
		{4, 2, 8, 0, 0, []int32{0, 5, 5, 29, 30}},
		{3, 1, 64, 0, 0, []int32{0, 130}},
		{2, 2, 24, 0, 0, []int32{0, 97, 330}},
		{2, 1, 16, 20, 0, []int32{0, 33, 240}},
		{2, 1, 16, 150, 5, []int32{0, 201}},
		{2, 2, 32, 0, 3, []int32{0, 50, 100}},
		{1, 1, 16, 1, 0, []int32{0, 30}},
		{1, 1, 16, 0, 0, []int32{0, 1025}}, // rows are copied apart for its length alone
	} {
		rows := int(c.bounds[len(c.bounds)-1])
		shape := kernels.AttentionShape{HeadDim: c.dim, Scale: 1 / math.Sqrt(float64(c.dim)), Window: c.window, SoftCap: c.softCap}
		f := &kernels.Attention{Q: m.f("Q", rows, c.heads*c.dim), K: m.f("K", rows, c.kv*c.dim), V: m.f("V", rows, c.kv*c.dim),
			Bounds: m.ints(c.bounds...), Out: m.f("Out", rows, c.heads*c.dim), LSE: m.f("LSE", rows, c.heads), AttentionShape: shape}
		check(t, fmt.Sprint("attention ", c), f, 5e-6)
		check(t, fmt.Sprint("attention grad ", c), &kernels.AttentionGrad{Q: f.Q, K: f.K, V: f.V, Bounds: f.Bounds, Out: f.Out, LSE: f.LSE,
			DOut: m.f("DOut", rows, c.heads*c.dim), DQ: m.f("DQ", rows, c.heads*c.dim), DK: m.f("DK", rows, c.kv*c.dim), DV: m.f("DV", rows, c.kv*c.dim),
			AttentionShape: shape}, 3e-5)
	}
}

func TestCrossEntropy(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(7, 8))}
	for i, c := range []struct {
		n, k, vocab int
		softCap     float64
	}{{1, 8, 5, 0}, {7, 40, 321, 0}, {60, 20, 700, 0}, {110, 33, 1000, 4}, {5, 330, 650, 0}} {
		for _, d := range []kernels.DType{kernels.F32, kernels.BF16, kernels.F64} {
			op := &kernels.CrossEntropy{Targets: m.below(c.n, c.vocab), Loss: m.f("Loss", c.n, 1), LogitScale: 0.5, SoftCap: c.softCap, Terms: []kernels.HeadTerm{
				{X: m.f("X", c.n, c.k), W: m.w(d, c.vocab, c.k), Scale: 1, DX: m.f("DX", c.n, c.k)},
				{X: m.f("U", c.n, 4), W: m.f("B", c.vocab, 4), Scale: 0.5, DX: m.f("DU", c.n, 4), DW: m.f("DB", c.vocab, 4)},
			}}
			if i%2 == 1 {
				op.Terms[1].DW = nil
			}
			check(t, fmt.Sprint("cross entropy ", c, d), op, 2e-5)
		}
	}
}

// TestEmptyHead has terms without columns before one that has some.
func TestEmptyHead(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(17, 18))}
	check(t, "terms of nothing", &kernels.CrossEntropy{Targets: m.below(9, 70), Loss: m.f("Loss", 9, 1), LogitScale: 1, Terms: []kernels.HeadTerm{
		{X: m.nothing("X", 9), W: m.nothing("W", 70), Scale: 1, DX: m.nothing("DX", 9), DW: m.nothing("DW", 70)},
		{X: m.f("X", 9, 20), W: m.w(kernels.BF16, 70, 20), Scale: 1, DX: m.f("DX", 9, 20), DW: m.f("DW", 70, 20)},
	}}, 2e-5)
	for _, n := range []int{6, 400} {
		check(t, "nothing else", &kernels.CrossEntropy{Targets: m.below(n, 13), Loss: m.f("Loss", n, 1), LogitScale: 1, Terms: []kernels.HeadTerm{
			{X: m.nothing("X", n), W: m.nothing("W", 13), Scale: 1},
		}}, 1e-6)
	}
}

func TestRows(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(9, 10))}
	for _, s := range [][2]int{{1, 5}, {3, 8}, {17, 70}, {180, 96}} {
		rows, cols := s[0], s[1]
		tokens := m.below(rows, 11)
		check(t, "embed", &kernels.Embed{Tokens: tokens, Table: m.w(kernels.BF16, 11, cols), Out: m.f("Out", rows, cols), Scale: 2.5}, 1e-6)
		check(t, "embed grad", &kernels.EmbedGrad{Tokens: tokens, DOut: m.f("DOut", rows, cols), DTable: m.f("DTable", 11, cols), Scale: 0.5}, 4e-6)
		check(t, "gather", &kernels.Gather{Rows: m.below(5, rows), X: m.f("X", rows, cols), Out: m.f("Out", 5, cols)}, 1e-6)
		order := make([]int32, 0)
		for _, i := range m.Perm(rows)[:(rows+1)/2] {
			order = append(order, int32(i))
		}
		check(t, "scatter", &kernels.Scatter{Rows: m.ints(order...), X: m.f("X", len(order), cols), Out: m.f("Out", rows, cols)}, 1e-6)
		for _, groups := range []int{1, 3} {
			x := m.f("X", rows, groups*cols)
			n := &kernels.RMSNorm{X: x, Weight: m.w(kernels.BF16, 1, cols), Out: m.f("Out", rows, groups*cols), InvRMS: m.f("InvRMS", rows, groups), Eps: 1e-5, Offset: 1}
			check(t, "norm", n, 2e-6)
			r := n.Clone().(*kernels.RMSNorm)
			r.Residual, r.Sum = m.f("Residual", rows, groups*cols), m.f("Sum", rows, groups*cols)
			check(t, "norm with residual", r, 2e-6)
			g := &kernels.RMSNormGrad{X: x, InvRMS: n.InvRMS, Weight: n.Weight, DOut: m.f("DOut", rows, groups*cols), DX: m.f("DX", rows, groups*cols), DWeight: m.f("DWeight", 1, cols), Offset: 1}
			check(t, "norm grad", g, 5e-6)
			g = g.Clone().(*kernels.RMSNormGrad)
			g.Add, g.DX = m.f("Add", rows, groups*cols), g.DOut
			check(t, "norm grad, in place", g, 5e-6)
			g = g.Clone().(*kernels.RMSNormGrad)
			g.DX, g.DWeight = g.Add, nil
			check(t, "norm grad, in place of Add", g, 5e-6)
		}
		check(t, "sum", &kernels.Sum{A: m.f("A", rows, cols), B: m.f("B", rows, cols), Out: m.f("Out", rows, cols)}, 1e-6)
		check(t, "zero", &kernels.Zero{Out: m.f("Out", rows, cols)}, 0)
		check(t, "dropout", &kernels.Dropout{X: m.f("X", rows, cols), Out: m.f("Out", rows, cols), P: 0.3, Seed: 1 << 40, Stream: 7, Step: 12, Row: 5}, 1e-6)
		for _, act := range []kernels.Act{kernels.SiLU, kernels.GELU, kernels.GELUTanh} {
			gate, up := m.f("Gate", rows, cols), m.f("Up", rows, cols)
			check(t, fmt.Sprint("gated ", act), &kernels.Gated{Gate: gate, Up: up, Out: m.f("Out", rows, cols), Act: act}, 1e-6)
			check(t, fmt.Sprint("gated grad ", act), &kernels.GatedGrad{Gate: gate, Up: up, DOut: m.f("DOut", rows, cols), DGate: m.f("DGate", rows, cols), DUp: m.f("DUp", rows, cols), Act: act}, 1e-6)
		}
	}
}

func TestRotary(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(11, 12))}
	for _, rotated := range []int{4, 12, 16} {
		positions := m.below(40, 1_000_000)
		freqs := m.tensor("Freqs", kernels.F64, 1, rotated/2)
		table := &kernels.RotaryTable{Positions: positions, Freqs: freqs, Out: m.f("Table", 40, rotated), Scale: 1.25}
		check(t, "rotary table", table, 1e-6)
		for _, inverse := range []bool{false, true} {
			r := &kernels.Rotary{X: m.f("X", 40, 48), Table: m.f("Table", 40, rotated), Out: m.f("Out", 40, 48), HeadDim: 16, Inverse: inverse}
			check(t, "rotary", r, 1e-6)
			r.Out = r.X
			check(t, "rotary, in place", r, 1e-6)
		}
	}
}

func TestOptimizer(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(13, 14))}
	for _, n := range []int{1, 100, 4097, 50000} {
		grad := m.f("Grad", 1, n)
		clip := &kernels.ClipNorm{Grad: grad, Out: m.f("Clip", 1, 2), Divisor: 37, Max: 0.5}
		check(t, "clip norm", clip, 1e-6)
		v := m.f("V", 1, n)
		squares := v.Float64s()
		for i := range squares {
			squares[i] = float64(float32(squares[i] * squares[i]))
		}
		v.SetFloat64s(squares)
		check(t, "adamw", &kernels.AdamW{Grad: grad, Clip: clip.Out, P: m.f("P", 1, n), M: m.f("M", 1, n), V: v,
			LR: 0.01, Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, WeightDecay: 0.1, Step: 3}, 2e-6)
	}
}

// TestPool raises panics where the work was asked for, and goes on.
func TestPool(t *testing.T) {
	p := newPool(3)
	defer p.close()
	for range 50 {
		var c counted
		p.run(&c, 40)
		for i := range c.done {
			if c.done[i] != 1 {
				t.Fatalf("task %d ran %d times", i, c.done[i])
			}
		}
	}
	func() {
		defer func() {
			if v := recover(); v != "task 17" {
				t.Errorf("recovered %v", v)
			}
		}()
		p.run(&counted{bad: 17}, 40)
	}()
	time.Sleep(2 * p.spin) // workers sleep
	var c counted
	p.run(&c, 40)
	if c.done[39] != 1 {
		t.Error("no work after sleep")
	}
}

// TestGuided asks for as many ranges for each thread, none of them larger than
// what there is working memory for, and no single row where there are more.
func TestGuided(t *testing.T) {
	for _, most := range []int{leastPairs, lossRows, 20} {
		for n := range 400 {
			for threads := 1; threads <= 9; threads++ {
				cuts := guided(nil, n, most, threads)
				if cuts[0] != 0 || cuts[len(cuts)-1] != n {
					t.Fatalf("%d for %d threads: from %d to %d", n, threads, cuts[0], cuts[len(cuts)-1])
				}
				parts := min(n, threads)
				if parts > 0 && (len(cuts)-1)%parts != 0 {
					t.Fatalf("%d for %d threads: %d ranges", n, threads, len(cuts)-1)
				}
				for i := 1; i < len(cuts); i++ {
					if size := cuts[i] - cuts[i-1]; size < 1 || size > most || size == 1 && n%parts == 0 && n > parts {
						t.Fatalf("%d for %d threads: a range of %d", n, threads, size)
					}
				}
			}
		}
	}
}

// TestPoolSharesOut has a thread wait for a task that is its own to do.
func TestPoolSharesOut(t *testing.T) {
	p := newPool(2)
	defer p.close()
	for range 20 {
		j := &waiting{done: make(chan bool)}
		p.run(j, 10)
		if !j.ok {
			t.Fatal("nobody took what a busy thread had left")
		}
	}
}

type waiting struct {
	done chan bool
	ok   bool
}

func (j *waiting) do(_ *worker, task int) {
	switch task {
	case 0: // the first of the caller's range
		select {
		case <-j.done:
			j.ok = true
		case <-time.After(10 * time.Second):
		}
	case 4: // the last of it
		close(j.done)
	}
}

type counted struct {
	done [40]int
	bad  int
}

func (c *counted) do(_ *worker, task int) {
	if c.bad > 0 && task == c.bad {
		panic(fmt.Sprint("task ", task))
	}
	c.done[task]++
}

func TestRunAllocatesNothing(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(15, 16))}
	const rows, hidden, vocab = 70, 128, 500
	x, y, w := m.f("X", rows, hidden), m.f("Y", rows, hidden), m.w(kernels.BF16, hidden, hidden)
	inv, lse, bounds := m.f("InvRMS", rows, 1), m.f("LSE", rows, 8), m.ints(0, 30, rows)
	shape := kernels.AttentionShape{HeadDim: 16, Scale: 0.25}
	flat, clip := m.f("P", 1, 50000), m.f("Clip", 1, 2)
	ops := []kernels.Op{
		&kernels.Embed{Tokens: m.below(rows, hidden), Table: w, Out: x, Scale: 1},
		&kernels.EmbedGrad{Tokens: m.below(rows, hidden), DTable: m.f("DT", hidden, hidden), DOut: x, Scale: 1},
		&kernels.RMSNorm{X: x, Weight: m.w(kernels.F32, 1, hidden), Out: y, InvRMS: inv},
		&kernels.RMSNormGrad{X: x, Weight: m.w(kernels.F32, 1, hidden), DOut: y, DX: y, InvRMS: inv, DWeight: m.f("DW", 1, hidden)},
		&kernels.Product{Out: y, Terms: []kernels.Term{{X: x, W: w, Scale: 1}, {X: x, W: w, Transposed: true, Scale: 1}}, Bias: m.w(kernels.BF16, 1, hidden)},
		&kernels.Product{Out: m.f("U", rows, 8), Terms: []kernels.Term{{X: x, W: m.f("A", 8, hidden), Scale: 1}}},
		&kernels.WeightGrad{DY: x, X: y, DW: m.f("DW", hidden, hidden), Scale: 1},
		&kernels.WeightGrad{DY: m.f("G", rows, 8), X: y, DW: m.f("DA", 8, hidden), Scale: 1},
		&kernels.BiasGrad{DY: x, DBias: m.f("DB", 1, hidden)},
		&kernels.Attention{Q: x, K: x, V: x, Bounds: bounds, Out: y, LSE: lse, AttentionShape: shape},
		&kernels.AttentionGrad{Q: x, K: x, V: x, Bounds: bounds, Out: y, LSE: lse, DOut: y, DQ: m.f("DQ", rows, hidden), DK: m.f("DK", rows, hidden), DV: m.f("DV", rows, hidden), AttentionShape: shape},
		&kernels.Rotary{X: x, Table: m.f("Table", rows, 16), Out: x, HeadDim: 16},
		&kernels.RotaryTable{Positions: m.below(rows, 9), Freqs: m.tensor("Freqs", kernels.F64, 1, 8), Out: m.f("Table", rows, 16), Scale: 1},
		&kernels.Gated{Gate: x, Up: y, Out: y},
		&kernels.GatedGrad{Gate: x, Up: y, DOut: y, DGate: x, DUp: y},
		&kernels.Gather{Rows: m.below(9, rows), X: x, Out: m.f("Picked", 9, hidden)},
		&kernels.Scatter{Rows: m.ints(3, 1), X: m.f("Picked", 2, hidden), Out: x},
		&kernels.CrossEntropy{Targets: m.below(rows, vocab), Loss: m.f("Loss", rows, 1), LogitScale: 1,
			Terms: []kernels.HeadTerm{{X: x, W: m.f("Head", vocab, hidden), Scale: 1, DX: m.f("DX", rows, hidden), DW: m.f("DHead", vocab, hidden)}}},
		&kernels.Sum{A: x, B: y, Out: y},
		&kernels.Dropout{X: x, Out: y, P: 0.5},
		&kernels.Zero{Out: y},
		&kernels.ClipNorm{Grad: flat, Out: clip, Divisor: 1, Max: 1},
		&kernels.AdamW{Grad: flat, Clip: clip, P: flat, M: m.f("M", 1, 50000), V: m.f("V", 1, 50000), Step: 1},
	}
	for i := range ops {
		ops[i] = narrow(ops[i])
	}
	for _, v := range append(append(halving(), piecing()...), choose("")) {
		allocatesNothing(t, v, ops)
	}
	silent := withBLAS(plain, "", &blas{words: 1 << 10, rows: 16,
		worth: func(m, n, depth int) bool { return true },
		sgemm: func(_, _ bool, _, _, _ int, _ float32, _ []float32, _ int, _ []float32, _ int, _ float32, _ []float32, _ int) {
		}})
	allocatesNothing(t, &silent, ops)
}

func allocatesNothing(t *testing.T, v *vectors, ops []kernels.Op) {
	b := &Backend{v: v, pool: newPool(2)}
	defer b.Close()
	for i, op := range ops {
		one := ops[i : i+1]
		if n := testing.AllocsPerRun(3, func() { b.Run(one, nil) }); n != 0 {
			t.Errorf("%s: %v allocations", op.Kind(), n)
		}
	}
	before := len(b.scratch)
	if b.Run(ops, nil); len(b.scratch) != before || before != b.Scratch(ops) {
		t.Errorf("working memory: %d bytes, then %d, planned %d", before, len(b.scratch), b.Scratch(ops))
	}
}

func TestPeaks(t *testing.T) {
	for _, isa := range ISAs() {
		b := New(Options{ISA: isa})
		start := time.Now()
		flops, bytes := b.Peaks()
		t.Logf("%v: %.1f GFLOP/s, %.1f GB/s, measured in %v", b.Info().Detail, flops/1e9, bytes/1e9, time.Since(start))
		if flops < 1e8 || bytes < 1e8 || flops > 1e15 || bytes > 1e14 {
			t.Errorf("%s: peaks %g, %g", isa, flops, bytes)
		}
		b.Close()
	}
}

// TestChunks cuts sequences for attention's gradients into parts that take as long as each other,
// but for a block.
func TestChunks(t *testing.T) {
	for _, n := range []int{1, 48, 96, 97, 500, 2048, 5000} {
		for _, window := range []int{0, 1, 100, 3000} {
			a := &attentionGrad{heads: heads{shared: 3, shape: kernels.AttentionShape{Window: window}}}
			a.q.rows = n
			pairs := func(from, to int) (sum int) {
				for k := from; k < to; k++ {
					looking := n - k
					if window > 0 {
						looking = min(looking, window)
					}
					sum += looking
				}
				return sum
			}
			all, parts := pairs(0, n), a.parts(n)
			block := pairs(0, min(n, gradKeys))
			if a.chunkStart(n, 0) != 0 || a.chunkStart(n, parts) != n {
				t.Fatalf("%d keys, window %d: from %d to %d", n, window, a.chunkStart(n, 0), a.chunkStart(n, parts))
			}
			for i := range parts {
				from, to := a.chunkStart(n, i), a.chunkStart(n, i+1)
				if got := pairs(from, to); from%gradKeys != 0 || from > to || parts*got > all+parts*block || parts*got < all-parts*block {
					t.Errorf("%d keys, window %d: chunk %d of %d, from %d to %d, has %d of %d pairs", n, window, i, parts, from, to, got, all)
				}
			}
		}
	}
}
