package program

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/random"
	"graft/kernels/reference"
)

// fixture is a small program that has what is hard: a fused projection whose
// slices are used apart, a value that is used twice, adapters on a shared
// input, a residual stream, gathered rows, and a loss.
type fixture struct {
	*Program
	backend                 kernels.Backend
	params                  *Parameters
	tokens, bounds, rows    *Value
	targets, loss, fused, u *Value
}

const (
	vocab  = 11
	hidden = 8
	heads  = 2
)

func build(t *testing.T, recompute bool) *fixture {
	t.Helper()
	b := reference.New()
	t.Cleanup(func() { b.Close() })
	f := &fixture{Program: New(kernels.F64, kernels.F64), backend: b, params: NewParameters(kernels.F64)}
	add := func(name string, rows, cols int) *Parameter { return f.params.Add(name, rows, cols, rows > 1) }
	table, norm := add("table", vocab, hidden), add("norm", 1, hidden)
	qkv := add("qkv", 3*hidden, hidden)
	a1, a2 := add("a1", 2, hidden), add("a2", 3, hidden)
	b1, b2 := add("b1", hidden, 2), add("b2", hidden, 3)
	w1, w2, bias := add("w1", hidden, hidden), add("w2", hidden, hidden), add("bias", 1, hidden)
	down, side := add("down", hidden, hidden), add("side", hidden, hidden)
	stack := f.params.Stack("a", []*Parameter{a1, a2})
	if err := f.params.Allocate(b); err != nil {
		t.Fatal(err)
	}
	for i, q := range f.params.List() {
		v := make([]float64, q.Rows*q.Cols)
		for j := range v {
			v[j] = 0.5 * random.Normal(1, random.Init, uint32(i), uint64(j))
		}
		q.Value.SetFloat64s(v)
	}
	f.tokens, f.bounds = f.Input("tokens", Tokens), f.Input("bounds", Bounds)
	f.rows, f.targets = f.Input("rows", LossRows), f.Input("targets", LossRows)
	use := func(q *Parameter) *Value { return f.Use(q.Value) }
	x := f.Embed(f.tokens, use(table), 1)
	_, y := f.RMSNorm(x, nil, use(norm), 1e-5, 0)
	f.Block(recompute)
	f.fused = f.Linear(y, use(qkv), nil, nil, 1)
	q, k, v := f.Slice(f.fused, 0, hidden), f.Slice(f.fused, hidden, hidden), f.Slice(f.fused, 2*hidden, hidden)
	shape := kernels.AttentionShape{HeadDim: hidden / heads, Scale: 0.5}
	attended := f.Attention(q, k, v, f.bounds, shape)
	x, y = f.RMSNorm(x, attended, use(norm), 1e-5, 0) // the norm's weight is used twice
	f.At(0, "side")
	dropped := f.Linear(f.Dropout(y, 0.5, 1, 2), use(side), nil, nil, 1)
	f.At(0, "a")
	f.u = f.Linear(y, f.Use(stack), nil, nil, 1)
	f.At(0, "gate")
	gate := f.Linear(y, use(w1), nil, &Adapter{U: f.Slice(f.u, 0, 2), B: use(b1), Scale: 2}, 1)
	f.At(0, "up")
	up := f.Linear(y, use(w2), use(bias), &Adapter{U: f.Slice(f.u, 2, 3), B: use(b2), Scale: 0.5}, 1)
	z := f.Gated(gate, up, kernels.SiLU)
	f.At(0, "down")
	z = f.Add(f.Linear(z, use(down), nil, nil, 1), dropped)
	sum := f.Add(f.Add(z, gate), x) // gate is used twice
	f.Block(false)
	f.loss = f.CrossEntropy(f.Gather(f.rows, sum), use(table), f.targets, nil, 1, 0)
	f.Backward()
	return f
}

// prepare plans for more than it binds, as a run does.
func (f *fixture) prepare(t *testing.T) {
	t.Helper()
	plan := f.Plan(Counts{Tokens: 20, LossRows: 9, Sequences: 4})
	arena, err := f.backend.Alloc(plan.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plan.Place(arena)
	f.Bind(Step{Tokens: 7, LossRows: 4, Bounds: []int32{0, 4, 7}})
	f.tokens.SetInt32s([]int32{1, 5, 2, 10, 0, 5, 5})
	f.bounds.SetInt32s([]int32{0, 4, 7})
	f.rows.SetInt32s([]int32{0, 2, 4, 5})
	f.targets.SetInt32s([]int32{5, 10, 5, 5})
}

func (f *fixture) run(t *testing.T) float64 {
	t.Helper()
	if err := f.backend.Run(f.Ops, nil); err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, l := range f.loss.Float64s() {
		sum += l
	}
	return sum
}

// TestGradients compares every element with a central difference.
func TestGradients(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		f := build(t, recompute)
		f.prepare(t)
		f.run(t)
		var grads [][]float64
		for _, q := range f.params.List() {
			grads = append(grads, q.Value.Gradient().Float64s())
		}
		const h = 1e-5
		for i, q := range f.params.List() {
			v := q.Value.Float64s()
			for j, x := range v {
				v[j] = x + h
				q.Value.SetFloat64s(v)
				up := f.run(t)
				v[j] = x - h
				q.Value.SetFloat64s(v)
				want := (up - f.run(t)) / (2 * h)
				v[j] = x
				if got := grads[i][j]; math.Abs(got-want) > 1e-7*(1+math.Abs(want)) {
					t.Fatalf("recompute %v: %s[%d]: %v, difference quotient %v", recompute, q.Name, j, got, want)
				}
			}
			q.Value.SetFloat64s(v)
		}
	}
}

// TestPlan asks of every operation that what it writes overlaps nothing that
// is still needed, other than an input that it may be computed over.
func TestPlan(t *testing.T) {
	for _, recompute := range []bool{false, true} {
		f := build(t, recompute)
		plan := f.Plan(Counts{Tokens: 33, LossRows: 17, Sequences: 5})
		arena, err := f.backend.Alloc(plan.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		plan.Place(arena)
		f.Bind(Step{Tokens: 33, LossRows: 17, Bounds: []int32{0, 1, 2, 3, 4, 33}})
		if plan.Bytes >= plan.Held {
			t.Errorf("recompute %v: arena of %d bytes for values of %d", recompute, plan.Bytes, plan.Held)
		}
		last := map[*Value]int{}
		for i, op := range f.Ops {
			op.Operands(func(x **kernels.Tensor, _ kernels.Access) { last[f.value(*x).root] = i })
		}
		last[f.loss], last[f.tokens], last[f.bounds], last[f.rows], last[f.targets] = len(f.Ops), len(f.Ops), len(f.Ops), len(f.Ops), len(f.Ops)
		live := map[*Value]bool{f.tokens: true, f.bounds: true, f.rows: true, f.targets: true}
		for i, op := range f.Ops {
			allowed := map[[2]*Value]bool{}
			kernels.InPlace(op, func(out, in *kernels.Tensor) {
				allowed[[2]*Value{f.value(out).root, f.value(in).root}] = last[f.value(in).root] == i
			})
			op.Operands(func(x **kernels.Tensor, a kernels.Access) {
				v := f.value(*x).root
				if a == kernels.Read || v.param {
					return
				}
				for w := range live {
					if v != w && last[w] >= i && overlap(v, w) && !allowed[[2]*Value{v, w}] {
						t.Errorf("recompute %v: operation %d, %s: writes %v over %v, needed until %d", recompute, i, op.Kind(), v, w, last[w])
					}
				}
				live[v] = true
			})
		}
	}
}

// TestOutputsApart has an operation with two outputs, each of which may lie where the same
// input did: a gate that nothing trains and that is used twice, as is what it lets through.
func TestOutputsApart(t *testing.T) {
	b := reference.New()
	params := NewParameters(kernels.F64)
	up := params.Add("up", 8, 8, true)
	if err := params.Allocate(b); err != nil {
		t.Fatal(err)
	}
	p := New(kernels.F64, kernels.F64)
	constant := func(rows, cols int) *Value {
		buf, err := b.Alloc(8 * rows * cols)
		if err != nil {
			t.Fatal(err)
		}
		return p.Constant(kernels.Tensor{Name: "W", DType: kernels.F64, Rows: rows, Cols: cols, Stride: cols, Buf: buf})
	}
	x := p.Embed(p.Input("tokens", Tokens), constant(9, 8), 1)
	gate, through := p.Linear(x, constant(8, 8), nil, nil, 1), p.Linear(x, p.Use(up.Value), nil, nil, 1)
	first := p.Gated(gate, through, kernels.SiLU)
	second := p.Linear(p.Gated(gate, through, kernels.GELU), constant(8, 8), nil, nil, 1)
	p.CrossEntropy(p.Add(first, second), constant(9, 8), p.Input("targets", Tokens), nil, 1, 0)
	p.Backward()
	plan := p.Plan(Counts{Tokens: 10, LossRows: 10, Sequences: 1})
	found := 0
	for _, op := range p.Ops {
		if g, ok := op.(*kernels.GatedGrad); ok {
			found++
			if plan.slots[p.value(g.DGate)] == plan.slots[p.value(g.DUp)] {
				t.Error("both gradients of a gate have the same memory")
			}
		}
	}
	if found != 2 {
		t.Errorf("%d gradients of gates", found)
	}
}

func overlap(a, b *Value) bool {
	return a.Buf != nil && b.Buf != nil && &a.Buf.(kernels.Host)[0] == &b.Buf.(kernels.Host)[0] &&
		a.Off < b.Off+b.Bytes() && b.Off < a.Off+a.Bytes()
}

// TestOneProduct: the gradient of the input that two adapted layers and their
// stacked A's share is a single product of three terms.
func TestOneProduct(t *testing.T) {
	f := build(t, false)
	most := 0
	for _, op := range f.Ops {
		if p, ok := op.(*kernels.Product); ok {
			most = max(most, len(p.Terms))
		}
	}
	if most != 3 {
		t.Errorf("the longest product has %d terms, want 3", most)
	}
}

// TestMadeAgain: what norms and gates have not kept is made again by their gradients, but for what
// is needed before; and the gradients of weights that wait for it keep their labels.
func TestMadeAgain(t *testing.T) {
	f := build(t, false)
	made, again, module := 0, map[string]int{}, map[*kernels.Tensor]string{}
	for i, op := range f.Ops {
		if f.Labels[i].Pass == Recompute {
			again[op.Kind()]++
		}
		switch o := op.(type) {
		case *kernels.Product:
			for _, term := range o.Terms {
				if w := f.value(term.W); w.param && f.Labels[i].Pass == Forward {
					module[w.grad.T()] = f.Labels[i].Module
				}
			}
		case *kernels.WeightGrad:
			if got, want := f.Labels[i].Module, module[o.DW]; got != want {
				t.Errorf("the gradient of a weight of %q is labelled %q", want, got)
			}
		case *kernels.RMSNormGrad:
			if o.Out != nil {
				made++
			}
		case *kernels.GatedGrad:
			if o.Out != nil {
				made++
			}
		}
	}
	if made != 2 {
		t.Errorf("%d outputs are made again, want those of a norm and a gate", made)
	}
	if want := map[string]int{"dropout": 1, "rms_norm": 1}; !maps.Equal(again, want) {
		t.Errorf("computed again: %v, want %v", again, want)
	}
}

func TestPairs(t *testing.T) {
	bounds := []int32{0, 1, 5, 25}
	for window := range 30 {
		var want float64
		for s := 1; s < len(bounds); s++ {
			for i := bounds[s-1]; i < bounds[s]; i++ {
				for j := bounds[s-1]; j <= i; j++ {
					if window == 0 || j > i-int32(window) {
						want++
					}
				}
			}
		}
		if got := pairs(bounds, window); got != want {
			t.Errorf("window %d: %v pairs, want %v", window, got, want)
		}
	}
}

func TestMisuse(t *testing.T) {
	for want, misuse := range map[string]func(f *fixture){
		"program: Linear": func(f *fixture) { f.Linear(f.fused, f.fused, nil, nil, 1) },
		"program: Gated":  func(f *fixture) { f.Gated(f.fused, f.u, kernels.SiLU) },
		"program: slice":  func(f *fixture) { f.Slice(f.fused, 20, 9) },
		"is not a value of this program": func(f *fixture) {
			New(kernels.F64, kernels.F64).Add(f.fused, f.fused)
		},
		"arena of 1 bytes": func(f *fixture) { f.Plan(Counts{Tokens: 1, LossRows: 1, Sequences: 1}).Place(kernels.Host{0}) },
		"does not follow": func(f *fixture) {
			ps := NewParameters(kernels.F64)
			a, _, c := ps.Add("a", 1, 2, true), ps.Add("b", 1, 2, true), ps.Add("c", 1, 2, true)
			ps.Stack("ac", []*Parameter{a, c})
			_ = ps.Allocate(f.backend)
		},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, want) {
					t.Errorf("panic %q, want %q", r, want)
				}
			}()
			misuse(build(t, false))
		}()
	}
}

// TestGroups: what decays comes first, and the flat buffers cover everything.
func TestGroups(t *testing.T) {
	f := build(t, false)
	n := 0
	for i, g := range f.params.Groups() {
		if g.Decay != (i == 0) {
			t.Errorf("group %d: decay %v", i, g.Decay)
		}
		n += g.Value.Cols
	}
	if all := f.params.All(); n != f.params.Len() || all.Value.Cols != n {
		t.Errorf("groups of %d elements, %d in all", n, f.params.Len())
	}
	for _, q := range f.params.List() {
		if want := q.Rows > 1; (q.offset < f.params.decayed) != want {
			t.Errorf("%s lies at %d", q.Name, q.offset)
		}
	}
}
