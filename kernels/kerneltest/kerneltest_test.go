package kerneltest

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/reference"
)

func TestReference(t *testing.T) {
	b := reference.New()
	defer b.Close()
	Forward(t, b, 0)
	Gradients(t, b)
}

// kindsOf remembers the kinds of the operations that a backend is given.
type kindsOf struct {
	*reference.Backend
	seen map[reflect.Type]bool
}

func (k kindsOf) Run(ops []kernels.Op, clock kernels.Clock) error {
	for _, op := range ops {
		k.seen[reflect.TypeOf(op)] = true
	}
	return k.Backend.Run(ops, clock)
}

// TestQuick: fewer cases, of all kinds.
func TestQuick(t *testing.T) {
	quick := kindsOf{reference.New(), map[reflect.Type]bool{}}
	defer quick.Close()
	tried, kinds := Quick(t, quick, 0)
	if tried < kinds || tried > len(cases())/6 {
		t.Errorf("%d cases of %d, called %d kinds", tried, len(cases()), kinds)
	}
	for _, c := range cases() {
		if kind := reflect.TypeOf(c.make(&rig{backend: quick, round: kernels.F64})); !quick.seen[kind] {
			t.Fatalf("no %v, which %s is", kind, c.name)
		}
	}
}

// recorder is a Reporter that remembers.
type recorder struct{ lines []string }

func (*recorder) Helper()                     {}
func (r *recorder) Errorf(f string, a ...any) { r.lines = append(r.lines, fmt.Sprintf(f, a...)) }

// faulty is a reference backend with a fault.
type faulty struct {
	*reference.Backend
	before, after func(op kernels.Op)
}

func (f faulty) Run(ops []kernels.Op, clock kernels.Clock) error {
	for i := range ops {
		if f.before != nil {
			f.before(ops[i])
		}
		if err := f.Backend.Run(ops[i:i+1], clock); err != nil {
			return err
		}
		if f.after != nil {
			f.after(ops[i])
		}
	}
	return nil
}

// written calls f with every tensor that op writes and that is not empty.
func written(op kernels.Op, f func(t *kernels.Tensor)) {
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		if a != kernels.Read && (*t).Len() > 0 {
			f(*t)
		}
	})
}

// TestFaults plants faults that real kernels have, and asks that the suite
// finds each.
func TestFaults(t *testing.T) {
	runs := 0
	for _, c := range []struct {
		name  string
		fault faulty
		want  string
	}{
		{"last element slightly wrong", faulty{after: func(op kernels.Op) {
			written(op, func(t *kernels.Tensor) {
				v := t.Float64s()
				v[len(v)-1] = v[len(v)-1]*(1+1e-3) + 1e-3
				t.SetFloat64s(v)
			})
		}}, "of the row's scale"},
		{"last row not written", faulty{after: func(op kernels.Op) {
			written(op, func(t *kernels.Tensor) {
				v := t.Float64s()
				for j := range t.Cols {
					v[len(v)-1-j] = math.NaN()
				}
				t.SetFloat64s(v)
			})
		}}, "NaN"},
		{"writes past the end", faulty{after: func(op kernels.Op) {
			written(op, func(t *kernels.Tensor) {
				end := t.Off + ((t.Rows-1)*t.Stride+t.Cols)*t.DType.Size()
				t.Buf.Write([]byte{1}, end)
			})
		}}, "has changed"},
		{"writes between rows", faulty{after: func(op kernels.Op) {
			written(op, func(t *kernels.Tensor) {
				if t.Stride > t.Cols && t.Rows > 1 {
					t.Buf.Write([]byte{1}, t.Off+t.Cols*t.DType.Size())
				}
			})
		}}, "has changed"},
		{"changes an input", faulty{after: func(op kernels.Op) {
			op.Operands(func(t **kernels.Tensor, a kernels.Access) {
				if a == kernels.Read && (*t).DType == kernels.F64 && (*t).Len() > 0 {
					(*t).Buf.Write([]byte{7}, (*t).Off)
				}
			})
		}}, "has changed"},
		{"depends on what ran before", faulty{after: func(op kernels.Op) {
			written(op, func(t *kernels.Tensor) {
				runs++
				v := t.Float64s()
				v[0] += 1e-12 * float64(runs)
				t.SetFloat64s(v)
			})
		}}, "other bits"},
		{"ignores the stride", faulty{before: func(op kernels.Op) {
			if o, ok := op.(*kernels.Sum); ok {
				c := *o.A
				c.Stride = c.Cols
				o.A = &c
			}
		}}, "sum"},
		{"adds to what was there", faulty{before: func(op kernels.Op) {
			if o, ok := op.(*kernels.Product); ok && o.Add == nil {
				o.Add = o.Out
			}
		}}, "product"},
		{"sees one key too many", faulty{before: func(op kernels.Op) {
			if o, ok := op.(*kernels.Attention); ok && o.Window > 0 {
				o.Window++
			}
		}}, "attention"},
		{"forgets the second term", faulty{before: func(op kernels.Op) {
			if o, ok := op.(*kernels.Product); ok && len(o.Terms) > 1 {
				o.Terms = o.Terms[:1]
			}
		}}, "product"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.fault.Backend = reference.New()
			defer c.fault.Close()
			var r recorder
			Quick(&r, c.fault, 1e-5)
			for _, line := range r.lines {
				if strings.Contains(line, c.want) {
					return
				}
			}
			t.Errorf("%d findings, none with %q", len(r.lines), c.want)
		})
	}
}

// TestGradientFault plants a wrong gradient.
func TestGradientFault(t *testing.T) {
	b := faulty{Backend: reference.New(), before: func(op kernels.Op) {
		if o, ok := op.(*kernels.AttentionGrad); ok {
			o.Scale *= 1 + 1e-5
		}
	}}
	defer b.Close()
	var r recorder
	Gradients(&r, b)
	if len(r.lines) == 0 {
		t.Error("not found")
	}
}
