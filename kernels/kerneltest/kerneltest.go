// Package kerneltest is the one conformance suite that every backend passes.
//
//	func TestConformance(t *testing.T) {
//		b := cpu.New(cpu.Options{})
//		defer b.Close()
//		kerneltest.Forward(t, b, 5e-6)
//	}
//
// Forward runs every kind of operation at many shapes on the backend and on
// the reference, with the same inputs, and compares what they write. Around
// that it checks what a wrong kernel would get away with: outputs start as
// NaN, every tensor lies between guard bytes (also in the gaps between rows),
// inputs must be left as they were, and a second run must give the same bits;
// of a backend that may run neighbours as one, beside another operation of the
// kind.
//
// Gradients compares the gradient kinds of a float64 backend with difference
// quotients of the forward kinds.
package kerneltest

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strings"

	"graft/kernels"
	"graft/kernels/random"
	"graft/kernels/reference"
)

// Reporter takes what the suite finds; a *testing.T is one.
type Reporter interface {
	Helper()
	Errorf(format string, args ...any)
}

// Forward checks all kinds. tolerance bounds the error of every element,
// relative to the largest value of its row.
func Forward(r Reporter, b kernels.Backend, tolerance float64) {
	r.Helper()
	for _, c := range cases() {
		forward(r, b, c, tolerance)
	}
}

// Kinds is Forward on the cases of some kinds of operations. It stops after the
// first case for which the reporter says so.
func Kinds(r Reporter, b kernels.Backend, tolerance float64, kinds []string, stop func() bool) {
	r.Helper()
	for _, c := range cases() {
		if stop() {
			return
		}
		if slices.Contains(kinds, c.kind()) {
			forward(r, b, c, tolerance)
		}
	}
}

// Quick is Forward on some cases of each kind, for a look at a machine rather
// than for tests. It returns how many cases of how many kinds those were.
func Quick(r Reporter, b kernels.Backend, tolerance float64) (tried, kinds int) {
	r.Helper()
	const nth = 7
	of := byKind(cases())
	for _, kind := range slices.Sorted(maps.Keys(of)) {
		// From the end: the first cases of many kinds have no rows.
		for i := len(of[kind]) - 1; i >= 0; i -= nth {
			forward(r, b, of[kind][i], tolerance)
			tried++
		}
	}
	return tried, len(of)
}

// testCase makes an operation from a rig's tensors. It is called once for each
// backend and must ask for the same tensors each time.
type testCase struct {
	name string
	make func(g *rig) kernels.Op
	// slack multiplies the tolerance, where the inputs are such that their
	// rounding alone moves the result further. 0 means 1.
	slack float64
	// floor is the size of terms that may cancel: errors are not judged by
	// less.
	floor float64
	// beside is a case of the same kind, and of other sizes where there are some.
	beside *testCase
}

// kind is what cases of one kind of operation have in common.
func (c *testCase) kind() string {
	kind, _, _ := strings.Cut(c.name, " ")
	return kind
}

// byKind returns cases by their kind.
func byKind(all []*testCase) map[string][]*testCase {
	of := map[string][]*testCase{}
	for _, c := range all {
		of[c.kind()] = append(of[c.kind()], c)
	}
	return of
}

// forward runs one case. In half of them, by name, there are gaps between rows.
func forward(r Reporter, b kernels.Backend, c *testCase, tolerance float64) {
	r.Helper()
	padding := 3 * int(crc32.ChecksumIEEE([]byte(c.name))&1)
	name := fmt.Sprintf("%s, gaps of %d", c.name, padding)
	oracle := reference.New()
	defer oracle.Close()
	on := func(b kernels.Backend, round kernels.DType) *rig {
		return &rig{backend: b, round: round, padding: padding}
	}
	round := b.Info().Activations()
	want, first, second, beside := on(oracle, round), on(b, round), on(b, round), on(b, round)
	run := func(g *rig, ops ...kernels.Op) {
		if err := g.backend.Run(ops, nil); err != nil {
			r.Errorf("%s: %v", name, err)
		}
	}
	run(want, c.make(want))
	run(first, c.make(first))
	if b.Info().Apart > 0 {
		run(second, c.beside.make(beside), c.make(second))
	} else {
		run(second, c.make(second))
	}
	first.checkMemory(r, name)
	beside.checkMemory(r, fmt.Sprintf("%s, beside %s", c.beside.name, name))
	tolerance *= max(1, c.slack)
	for i, t := range first.tensors {
		if t.role != input {
			compare(r, fmt.Sprintf("%s: %s", name, t.t.Name), t.t, want.tensors[i].t, tolerance, max(c.floor, tiny(t.t.DType)))
		}
		if !bytes.Equal(t.memory(), second.tensors[i].memory()) {
			r.Errorf("%s: %s: a second run, beside %s, gave other bits", name, t.t.Name, c.beside.name)
		}
	}
}

// tiny is the floor where a case names none: below it a type runs out of
// exponents.
func tiny(d kernels.DType) float64 {
	if d == kernels.F16 {
		return 0x1p-14
	}
	return 1e-30
}

// overflows reports whether a type rounds x to infinity.
func overflows(d kernels.DType, x float64) bool { return d == kernels.F16 && math.Abs(x) >= 65520 }

// compare reports the first row with an error above tolerance.
func compare(r Reporter, name string, got, want *kernels.Tensor, tolerance, floor float64) {
	r.Helper()
	g, w := got.Float64s(), want.Float64s()
	all := floor
	for _, v := range w {
		all = max(all, math.Abs(v))
	}
	for i := range want.Rows {
		row := w[i*want.Cols : (i+1)*want.Cols]
		// A row of almost nothing is judged by its neighbours, and so are rows
		// of few elements, which may all be small differences of large terms.
		scale := max(floor, 1e-3*all)
		if len(row) < 16 {
			scale = all
		}
		for _, v := range row {
			scale = max(scale, math.Abs(v))
		}
		for j, v := range row {
			x := g[i*want.Cols+j]
			if overflows(got.DType, v) && math.IsInf(x, int(math.Copysign(1, v))) {
				continue
			}
			if d := math.Abs(x - v); !(d <= tolerance*scale) {
				r.Errorf("%s: element (%d, %d) is %v, want %v (%.2g of the row's scale %.3g)", name, i, j, x, v, d/scale, scale)
				return
			}
		}
	}
}

type role uint8

const (
	input  role = iota
	output      // starts as NaN
	update      // starts with values, and is changed
)

// tensor is a tensor of a rig, with what its memory held before the run.
type tensor struct {
	t      *kernels.Tensor
	role   role
	before []byte
}

func (t tensor) memory() []byte {
	b := make([]byte, t.t.Buf.Size())
	t.t.Buf.Read(b, 0)
	return b
}

// rig makes tensors on a backend. Two rigs that are asked for the same tensors
// hold the same values.
type rig struct {
	backend kernels.Backend
	round   kernels.DType // the type that all values are rounded to
	padding int           // elements between rows
	tensors []tensor
	draws   uint64
}

const guardBytes = 64

// float is the type of statistics and of what is trained, activation of what
// has a row for each token.
func (g *rig) float() kernels.DType      { return g.backend.Info().Float }
func (g *rig) activation() kernels.DType { return g.backend.Info().Activations() }

// add makes a tensor between guards. values are row-major, without gaps.
func (g *rig) add(name string, role role, d kernels.DType, rows, cols, padding int, values []float64) *kernels.Tensor {
	stride := cols + padding
	if padding > 0 {
		stride += len(g.tensors) // matrices as wide have other strides, lest one pass for another
	}
	size := d.Size()
	data := bytes.Repeat([]byte{0xa5}, 2*guardBytes+rows*stride*size)
	t := &kernels.Tensor{Name: name, DType: d, Rows: rows, Cols: cols, Stride: stride, Off: guardBytes}
	for i := range rows {
		row := data[guardBytes+i*stride*size:][:cols*size]
		if role == output {
			for j := range cols {
				kernels.EncodeFloat64(row[j*size:], []float64{math.NaN()}, d)
			}
		} else {
			kernels.EncodeFloat64(row, values[i*cols:(i+1)*cols], d)
		}
	}
	g.place(t, role, data)
	return t
}

func (g *rig) place(t *kernels.Tensor, role role, data []byte) {
	buf, err := g.backend.Alloc(len(data))
	if err != nil {
		panic(err)
	}
	buf.Write(data, 0)
	t.Buf = buf
	g.tensors = append(g.tensors, tensor{t, role, data})
}

// normal draws values of about a standard normal distribution (the sum of four
// uniform ones) times scale.
func (g *rig) normal(n int, scale float64) []float64 {
	v := make([]float64, n)
	for i := range v {
		g.draws++
		w := random.At(11, random.Init, 0, g.draws)
		sum := float64(w[0]) + float64(w[1]) + float64(w[2]) + float64(w[3])
		v[i] = scale * math.Sqrt(3) * (sum/(1<<32) - 2)
	}
	return g.rounded(v)
}

// picking draws rows of small numbers with one of some size in a column of each.
func (g *rig) picking(cols []int32, width int, size float64) []float64 {
	v := g.normal(len(cols)*width, 0.01)
	for i, c := range cols {
		v[i*width+int(c)] = size
	}
	return v
}

// rounded rounds v to what an activation can hold.
func (g *rig) rounded(v []float64) []float64 {
	b := make([]byte, len(v)*g.round.Size())
	kernels.EncodeFloat64(b, v, g.round)
	kernels.DecodeFloat64(v, b, g.round)
	return v
}

// in returns an activation of random values.
func (g *rig) in(name string, rows, cols int) *kernels.Tensor { return g.scaled(name, rows, cols, 1) }

func (g *rig) scaled(name string, rows, cols int, scale float64) *kernels.Tensor {
	return g.add(name, input, g.activation(), rows, cols, g.padding, g.normal(rows*cols, scale))
}

// out returns an activation to be written, which holds NaN until it is.
func (g *rig) out(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, output, g.activation(), rows, cols, g.padding, nil)
}

// change returns an activation that the operation reads and writes.
func (g *rig) change(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, update, g.activation(), rows, cols, g.padding, g.normal(rows*cols, 1))
}

// known, found and trained are in, out and change for statistics, parameters and
// their gradients.
func (g *rig) known(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, input, g.float(), rows, cols, g.padding, g.normal(rows*cols, 1))
}

func (g *rig) found(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, output, g.float(), rows, cols, g.padding, nil)
}

func (g *rig) trained(name string, rows, cols int) *kernels.Tensor {
	return g.add(name, update, g.float(), rows, cols, g.padding, g.normal(rows*cols, 1))
}

// flat is change without gaps, for what is always one row.
func (g *rig) flat(name string, role role, n int, values []float64) *kernels.Tensor {
	return g.add(name, role, g.float(), 1, n, 0, values)
}

// weight returns a frozen weight of a stored type. Rows are adjacent, as in
// files. The values are those that the type can hold.
func (g *rig) weight(name string, d kernels.DType, rows, cols int) *kernels.Tensor {
	// Files align tensors to eight bytes, or not at all.
	skew := 4 * (rows + cols) % 16
	b := make([]byte, skew+d.Bytes(rows*cols))[skew:]
	if d.Quantised() {
		g.blocks(b, d)
	} else {
		kernels.EncodeFloat64(b, g.normal(rows*cols, 1), d)
	}
	t := &kernels.Tensor{Name: name, DType: d, Rows: rows, Cols: cols, Stride: cols}
	buf, err := g.backend.Wrap(b)
	if err != nil {
		panic(err)
	}
	t.Buf = buf
	g.tensors = append(g.tensors, tensor{t, input, b})
	return t
}

// blocks fills blocks of a quantised type with any bytes, and their scales with
// small numbers.
func (g *rig) blocks(b []byte, d kernels.DType) {
	for i := range b {
		g.draws++
		b[i] = byte(random.At(11, random.Init, 2, g.draws)[0])
	}
	at, n, scale, of := 0, 2, 0.01, kernels.F16 // where in a block, how many, of what size and type
	switch d {
	case kernels.Q8_0, kernels.Q4_0, kernels.Q5_0:
		n = 1
	case kernels.Q6_K:
		at, n, scale = 208, 1, 1e-4
	case kernels.Affine4, kernels.Affine8:
		of = kernels.F32
	}
	for block := d.Bytes(d.Block()); len(b) > 0; b = b[block:] {
		kernels.EncodeFloat64(b[at:][:n*of.Size()], g.normal(n, scale), of)
	}
}

// indices returns a column of I32.
func (g *rig) indices(name string, v []int32) *kernels.Tensor {
	data := bytes.Repeat([]byte{0xa5}, 2*guardBytes+4*len(v))
	t := &kernels.Tensor{Name: name, DType: kernels.I32, Rows: len(v), Cols: 1, Stride: 1, Off: guardBytes}
	g.place(t, input, data)
	t.SetInt32s(v)
	t.Buf.Read(data, 0)
	return t
}

// below draws n numbers from 0 to limit-1.
func (g *rig) below(n, limit int) []int32 {
	v := make([]int32, n)
	for i := range v {
		g.draws++
		v[i] = int32(random.At(11, random.Init, 1, g.draws)[0] % uint32(limit))
	}
	return v
}

// checkMemory looks for bytes that changed and must not have: all of an input,
// and what lies around the elements of the others.
func (g *rig) checkMemory(r Reporter, name string) {
	r.Helper()
	for _, t := range g.tensors {
		now := t.memory()
		if t.role != input { // forget the elements
			size := t.t.DType.Size()
			for i := range t.t.Rows {
				at := t.t.Off + i*t.t.Stride*size
				copy(now[at:at+t.t.Cols*size], t.before[at:])
			}
		}
		for i := range now {
			if now[i] != t.before[i] {
				r.Errorf("%s: %s: byte %d, which is not the operation's to write, has changed", name, t.t.Name, i-t.t.Off)
				break
			}
		}
	}
}
