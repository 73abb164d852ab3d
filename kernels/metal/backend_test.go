package metal

import (
	"math"
	"testing"
	"time"

	"graft/kernels"
)

// idle is a device that counts what it gives and runs nothing.
type idle struct{ given []int }

func (d *idle) Info() DeviceInfo { return DeviceInfo{} }

func (d *idle) Alloc(n int) (Memory, error) {
	d.given = append(d.given, n)
	return &paper{size: n}, nil
}

func (d *idle) Wrap(b []byte) (Memory, error)       { return &paper{size: len(b)}, nil }
func (d *idle) Check(*Launch) error                 { return nil }
func (d *idle) Run([]Launch, []time.Duration) error { return nil }
func (d *idle) Close() error                        { return nil }

// TestWorkingMemory: what was asked for beforehand is allocated once, though lists come that need
// more and more.
func TestWorkingMemory(t *testing.T) {
	d := &idle{}
	b := New(d, Options{})
	loss := func(rows int) []kernels.Op {
		f := func(rows, cols int) *kernels.Tensor {
			return &kernels.Tensor{DType: kernels.F32, Rows: rows, Cols: cols, Stride: cols, Buf: &paper{size: 4 * rows * cols}}
		}
		targets := &kernels.Tensor{DType: kernels.I32, Rows: rows, Cols: 1, Stride: 1, Buf: &paper{size: 4 * rows}}
		return []kernels.Op{&kernels.CrossEntropy{Targets: targets, Loss: f(rows, 1), LogitScale: 1,
			Terms: []kernels.HeadTerm{{X: f(rows, 8), W: f(5000, 8), Scale: 1, DX: f(rows, 8)}}}}
	}
	planned := b.Scratch(loss(64))
	for rows := 8; rows <= 64; rows += 8 {
		if err := b.Run(loss(rows), nil); err != nil {
			t.Fatal(err)
		}
	}
	if len(d.given) != 1 || d.given[0] != planned {
		t.Errorf("allocated %v bytes, planned were %d", d.given, planned)
	}
}

// TestDropsAll: so large a part is all but one of 2^32.
func TestDropsAll(t *testing.T) {
	e := &encoder{b: New(&idle{}, Options{}), list: &list{}}
	x := &kernels.Tensor{DType: kernels.F32, Rows: 1, Cols: 8, Stride: 8, Buf: &paper{size: 32}}
	e.dropout(&kernels.Dropout{X: x, Out: x, P: math.Nextafter(1, 0)})
	if p := e.launches[0].Params; string(p[40:44]) != "\xff\xff\xff\xff" {
		t.Errorf("elements below % x of 2^32 are dropped", p[40:44])
	}
}
