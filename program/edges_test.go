package program

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/random"
	"graft/kernels/reference"
)

// TestPlace lays out random slots: two that are alive at the same time never
// overlap, and the height lies between the most that is alive at one time and
// the sum of all.
func TestPlace(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var list []*slot
		sum, most := 0, 0
		for range 1 + r.IntN(40) {
			first := r.IntN(30)
			s := &slot{bytes: alignment * r.IntN(20), first: first, last: first + r.IntN(10)}
			list = append(list, s)
			sum += s.bytes
		}
		for at := range 40 {
			n := 0
			for _, s := range list {
				if s.first <= at && at <= s.last {
					n += s.bytes
				}
			}
			most = max(most, n)
		}
		apart := r.IntN(3)
		height := place(list, apart)
		if height < most || height > sum {
			t.Fatalf("height %d, alive at one time %d, in all %d", height, most, sum)
		}
		for i, a := range list {
			if a.offset < 0 || a.offset%alignment != 0 || a.offset+a.bytes > height {
				t.Fatalf("%+v in an arena of %d", a, height)
			}
			for _, b := range list[:i] {
				if a.first <= b.last+apart && b.first <= a.last+apart && a.offset < b.offset+b.bytes && b.offset < a.offset+a.bytes {
					t.Fatalf("%+v and %+v overlap", a, b)
				}
			}
		}
	}
}

// TestBind: every value has the rows of the step at hand, and fixed ones keep
// theirs.
func TestBind(t *testing.T) {
	f := build(t, true)
	plan := f.Plan(Counts{Tokens: 20, LossRows: 9, Sequences: 4})
	arena, err := f.backend.Alloc(plan.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plan.Place(arena)
	for _, s := range []Step{
		{Tokens: 7, LossRows: 4, Bounds: []int32{0, 4, 7}}, {Tokens: 20, LossRows: 9, Bounds: []int32{0, 1, 2, 3, 20}},
		{Tokens: 2, LossRows: 1, Bounds: []int32{0, 2}},
	} {
		f.Bind(s)
		for _, v := range f.values {
			want := map[Count]int{Fixed: v.fixed, Tokens: s.Tokens, LossRows: s.LossRows, Bounds: len(s.Bounds)}[v.count]
			if v.Rows != want {
				t.Errorf("%v has %d rows, want %d", v, v.Rows, want)
			}
			if end := v.Off + v.Bytes(); v.root == v && plan.slots[v] != nil && plan.slots[v].first >= 0 && end > plan.Bytes {
				t.Errorf("%v ends at %d of %d bytes", v, end, plan.Bytes)
			}
		}
		for _, op := range f.Ops {
			kernels.Check(op)
			if a, ok := op.(*kernels.Attention); ok && a.Pairs != pairs(s.Bounds, a.Window) {
				t.Errorf("%v pairs", a.Pairs)
			}
		}
	}
}

// TestBindDropout: masks depend on the place of a row in the optimizer step,
// each kind of row counted apart, and not on the micro-batch.
func TestBindDropout(t *testing.T) {
	p := New(kernels.F64, kernels.F64)
	x := p.Embed(p.Input("tokens", Tokens), p.Constant(*matrix("table", 3, 4)), 1)
	d := p.Dropout(x, 0.5, 1, 2)
	p.Dropout(p.Gather(p.Input("rows", LossRows), d), 0.5, 1, 3)
	p.Bind(Step{Tokens: 5, LossRows: 2, Bounds: []int32{0, 5}, Number: 9, TokensBefore: 70, LossRowsBefore: 30})
	var got []string
	for _, op := range p.Ops {
		if d, ok := op.(*kernels.Dropout); ok {
			got = append(got, fmt.Sprint(d.Step, d.Row))
		}
	}
	if !slices.Equal(got, []string{"9 70", "9 30"}) {
		t.Errorf("steps and rows %q", got)
	}
}

func matrix(name string, rows, cols int) *kernels.Tensor {
	return &kernels.Tensor{Name: name, DType: kernels.F64, Rows: rows, Cols: cols, Stride: cols, Buf: make(kernels.Host, 8*rows*cols)}
}

// TestSizeOfPlan: what is computed does not depend on the size planned for,
// nor on what ran before in the same memory.
func TestSizeOfPlan(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		var want []float64
		for _, c := range []Counts{{Tokens: 7, LossRows: 4, Sequences: 2}, {Tokens: 20, LossRows: 9, Sequences: 4}, {Tokens: 64, LossRows: 64, Sequences: 30}} {
			f := build(t, recompute)
			plan := f.Plan(c)
			arena, err := f.backend.Alloc(plan.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			dirt := make([]byte, plan.Bytes)
			for i := range dirt {
				dirt[i] = 0xff // NaNs
			}
			arena.Write(dirt, 0)
			plan.Place(arena)
			f.Bind(Step{Tokens: 7, LossRows: 4, Bounds: []int32{0, 4, 7}})
			f.tokens.SetInt32s([]int32{1, 5, 2, 10, 0, 5, 5})
			f.bounds.SetInt32s([]int32{0, 4, 7})
			f.rows.SetInt32s([]int32{0, 2, 4, 5})
			f.targets.SetInt32s([]int32{5, 10, 5, 5})
			got := []float64{f.run(t)}
			for _, q := range f.params.List() {
				got = append(got, q.Value.Gradient().Float64s()...)
			}
			if want == nil {
				want = got
			}
			if !slices.Equal(got, want) {
				t.Errorf("recompute %v: a plan for %+v gives other values", recompute, c)
			}
		}
	}
}

// chain is a program of one table, whose rows go through f to a loss.
func chain(t *testing.T, f func(p *Program, x *Value) *Value) (loss func() float64, q *Parameter) {
	t.Helper()
	b := reference.New()
	t.Cleanup(func() { b.Close() })
	params := NewParameters(kernels.F64)
	q = params.Add("table", vocab, hidden, true)
	if err := params.Allocate(b); err != nil {
		t.Fatal(err)
	}
	v := make([]float64, vocab*hidden)
	for i := range v {
		v[i] = random.Normal(2, random.Init, 0, uint64(i))
	}
	q.Value.SetFloat64s(v)
	p := New(kernels.F64, kernels.F64)
	tokens, targets := p.Input("tokens", Tokens), p.Input("targets", Tokens)
	y := f(p, p.Embed(tokens, p.Use(q.Value), 1))
	head := matrix("head", vocab, y.Cols)
	for i := range vocab * y.Cols {
		v := random.Normal(3, random.Init, 0, uint64(i))
		kernels.EncodeFloat64(head.Buf.(kernels.Host)[8*i:8*i+8], []float64{v}, kernels.F64)
	}
	l := p.CrossEntropy(y, p.Constant(*head), targets, nil, 1, 0)
	p.Backward()
	plan := p.Plan(Counts{Tokens: 4, Sequences: 1})
	arena, err := b.Alloc(plan.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plan.Place(arena)
	p.Bind(Step{Tokens: 4, Bounds: []int32{0, 4}})
	tokens.SetInt32s([]int32{3, 1, 4, 1})
	targets.SetInt32s([]int32{5, 9, 2, 6})
	return func() float64 {
		if err := b.Run(p.Ops, nil); err != nil {
			t.Fatal(err)
		}
		var sum float64
		for _, x := range l.Float64s() {
			sum += x
		}
		return sum
	}, q
}

// TestUses takes the gradient of values that are used in unusual ways, against
// central differences.
func TestUses(t *testing.T) {
	for title, f := range map[string]func(p *Program, x *Value) *Value{
		"once":             func(p *Program, x *Value) *Value { return x },
		"twice by one":     func(p *Program, x *Value) *Value { return p.Add(x, x) },
		"three times":      func(p *Program, x *Value) *Value { return p.Add(p.Add(x, x), x) },
		"gate and up":      func(p *Program, x *Value) *Value { return p.Gated(x, x, kernels.SiLU) },
		"halves":           func(p *Program, x *Value) *Value { return p.Gated(p.Slice(x, 0, 4), p.Slice(x, 4, 4), kernels.SiLU) },
		"halves, the same": func(p *Program, x *Value) *Value { return p.Add(p.Slice(x, 4, 4), p.Slice(x, 0, 4)) },
		"a slice of a slice": func(p *Program, x *Value) *Value {
			h := p.Slice(x, 2, 6)
			return p.Add(p.Gated(p.Slice(h, 0, 2), p.Slice(h, 4, 2), kernels.SiLU), p.Add(p.Slice(x, 0, 2), p.Slice(h, 2, 2)))
		},
		"a slice twice": func(p *Program, x *Value) *Value {
			a, b := p.Slice(x, 0, 4), p.Slice(x, 4, 4)
			return p.Add(p.Gated(a, b, kernels.SiLU), p.Add(a, a))
		},
		"slices and whole": func(p *Program, x *Value) *Value {
			s := p.Add(x, x)
			g := p.Gated(p.Slice(x, 0, 4), p.Slice(x, 4, 4), kernels.SiLU)
			return p.Add(g, p.Gated(p.Slice(s, 4, 4), p.Slice(s, 0, 4), kernels.SiLU))
		},
	} {
		t.Run(title, func(t *testing.T) {
			loss, q := chain(t, f)
			loss()
			got := q.Value.Gradient().Float64s()
			v := q.Value.Float64s()
			for i, x := range v {
				const h = 1e-5
				v[i] = x + h
				q.Value.SetFloat64s(v)
				up := loss()
				v[i] = x - h
				q.Value.SetFloat64s(v)
				want := (up - loss()) / (2 * h)
				v[i] = x
				if math.Abs(got[i]-want) > 1e-7*(1+math.Abs(want)) {
					t.Fatalf("element %d: %v, difference quotient %v", i, got[i], want)
				}
			}
		})
	}
}

// TestSlicesThatOverlap: gradients of slices lie side by side, so slices that
// overlap, or leave columns out, are refused even where their widths add up.
func TestSlicesThatOverlap(t *testing.T) {
	for title, f := range map[string]func(p *Program, x *Value) *Value{
		"overlap": func(p *Program, x *Value) *Value { return p.Gated(p.Slice(x, 0, 4), p.Slice(x, 2, 4), kernels.SiLU) },
		"gap":     func(p *Program, x *Value) *Value { return p.Gated(p.Slice(x, 0, 3), p.Slice(x, 5, 3), kernels.SiLU) },
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, "program: Backward") {
					t.Errorf("%s: panic %q", title, r)
				}
			}()
			chain(t, f)
		}()
	}
}

func TestMisuseMore(t *testing.T) {
	for _, c := range []struct {
		want   string
		misuse func(f *fixture)
	}{
		{"program: Embed", func(f *fixture) { f.Embed(f.fused, f.Constant(*matrix("m", 3, 4)), 1) }},
		{"program: RMSNorm", func(f *fixture) { f.RMSNorm(f.fused, nil, f.Constant(*matrix("m", 2, 8)), 1e-5, 0) }},
		{"program: RMSNorm", func(f *fixture) { f.RMSNorm(f.fused, f.u, f.Constant(*matrix("m", 1, 8)), 1e-5, 0) }},
		{"program: Linear: bias", func(f *fixture) {
			f.Linear(f.u, f.Constant(*matrix("m", 3, 5)), f.Constant(*matrix("b", 1, 4)), nil, 1)
		}},
		{"program: Linear: adapter", func(f *fixture) {
			f.Linear(f.u, f.Constant(*matrix("m", 3, 5)), nil, &Adapter{U: f.u, B: f.Constant(*matrix("b", 4, 5)), Scale: 1}, 1)
		}},
		{"program: RotaryTable", func(f *fixture) { f.RotaryTable(f.tokens, f.Constant(*matrix("m", 2, 2)), 1) }},
		{"program: Attention", func(f *fixture) { f.Attention(f.fused, f.fused, f.fused, f.tokens, kernels.AttentionShape{HeadDim: 4}) }},
		{"program: Attention", func(f *fixture) { f.Attention(f.fused, f.fused, f.fused, f.bounds, kernels.AttentionShape{HeadDim: 5}) }},
		{"program: Add: columns", func(f *fixture) { f.Add(f.fused, f.u) }},
		{"program: Add: rows", func(f *fixture) { f.Add(f.tokens, f.rows) }},
		{"program: Dropout", func(f *fixture) { f.Dropout(f.u, 1, 0, 0) }},
		{"program: Dropout", func(f *fixture) { f.Dropout(f.u, math.NaN(), 0, 0) }},
		{"program: CrossEntropy", func(f *fixture) { f.CrossEntropy(f.u, f.Constant(*matrix("m", 3, 5)), f.targets, nil, 1, 0) }},
		{"program: slice", func(f *fixture) { f.Slice(f.u, -1, 2) }},
		{"program: slice", func(f *fixture) { f.Slice(f.u, 0, 0) }},
		{"program: slice", func(f *fixture) { f.Slice(f.u, 1, math.MaxInt) }},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, c.want) {
					t.Errorf("panic %q, want %q", r, c.want)
				}
			}()
			c.misuse(build(t, false))
		}()
	}
}
