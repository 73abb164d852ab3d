package profile

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graft/kernels"
	"graft/program"
)

// TestNoTime: a coarse clock may see no time pass, and a run may have had no
// operations; neither prints what is no number.
func TestNoTime(t *testing.T) {
	idle := New()
	idle.Recorder([]kernels.Op{&kernels.Zero{Out: tensor(1, 1)}}, []program.Label{{Layer: -1}})
	instant := New()
	instant.Recorder([]kernels.Op{&kernels.Zero{Out: tensor(1, 1)}}, []program.Label{{Layer: -1}}).Clock(0, 0)
	for title, p := range map[string]*Profile{"new": New(), "idle": idle, "instant": instant} {
		for _, peaks := range []Peaks{{}, {FLOPs: 1e9, Bytes: 1e9}} {
			var table, json strings.Builder
			if err := errors.Join(p.Table(&table, peaks), p.JSON(&json, peaks)); err != nil {
				t.Errorf("%s: %v", title, err)
			}
			if s := table.String(); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") || !strings.Contains(s, "operation") {
				t.Errorf("%s:\n%s", title, s)
			}
		}
	}
	if rows := idle.Rows(); len(rows) != 0 {
		t.Errorf("what never ran is counted: %+v", rows)
	}
}

// TestMore: modules beyond the first dozen become one line, and nothing is
// lost.
func TestMore(t *testing.T) {
	var ops []kernels.Op
	var labels []program.Label
	for i := range 20 {
		ops = append(ops, &kernels.Zero{Out: tensor(1, 1)})
		labels = append(labels, program.Label{Module: fmt.Sprintf("m%02d", i), Layer: -1, Pass: program.Forward})
	}
	p := New()
	r := p.Recorder(ops, labels)
	for i := range ops {
		r.Clock(i, time.Duration(20-i)*time.Second)
	}
	var b strings.Builder
	if err := p.Table(&b, Peaks{}); err != nil {
		t.Fatal(err)
	}
	rest := fmt.Sprintf("%-26s %8d %10.1f", "(8 more)", 8, 1e3*(1+2+3+4+5+6+7+8))
	if s := b.String(); !strings.Contains(s, rest) || !strings.Contains(s, "m11") || strings.Contains(s, "m12") || strings.Contains(s, "layer ") {
		t.Errorf("want %q in\n%s", rest, s)
	}
	var sum float64
	for _, row := range Group(p.Rows(), ByModule) {
		sum += row.Seconds
	}
	if math.Abs(sum-210) > 1e-9 {
		t.Errorf("%v s of 210", sum)
	}
}

// TestActualSizes: an operation counts at the size it has when it runs.
func TestActualSizes(t *testing.T) {
	out := tensor(10, 3)
	p := New()
	r := p.Recorder([]kernels.Op{&kernels.Zero{Out: out}}, []program.Label{{Layer: -1}})
	for _, rows := range []int{10, 2, 0} {
		out.Rows = rows
		r.Clock(0, time.Millisecond)
	}
	if row := p.Rows()[0]; row.Calls != 3 || row.Bytes != 4*3*(10+2) {
		t.Errorf("%+v", row)
	}
}

// TestTwoPrograms: recorders of one profile are summed up together, but each
// has its own passes.
func TestTwoPrograms(t *testing.T) {
	p := New()
	op := []kernels.Op{&kernels.Zero{Out: tensor(1, 1)}}
	a := p.Recorder(op, []program.Label{{Layer: -1, Pass: program.Forward}})
	b := p.Recorder(op, []program.Label{{Layer: -1, Pass: program.Backward}})
	a.Clock(0, time.Second)
	b.Clock(0, 3*time.Second)
	if kinds := Group(p.Rows(), ByKind); len(kinds) != 1 || kinds[0].Calls != 2 || kinds[0].Seconds != 4 {
		t.Errorf("%+v", kinds)
	}
	if a.Passes(program.Backward) != 0 || b.Passes(program.Backward) != 3*time.Second {
		t.Error("passes of another program")
	}
	b.Begin()
	if b.Passes(program.Backward) != 0 || len(p.Rows()) != 2 {
		t.Error("Begin forgets the passes' times, and only those")
	}
}

// TestClockAllocatesNothing is of dense operations: the few sparse ones ask
// kernels.Traffic each time.
func TestClockAllocatesNothing(t *testing.T) {
	_, r := recorded()
	for i := 1; i < 4; i++ {
		if n := testing.AllocsPerRun(10, func() { r.Clock(i, time.Millisecond) }); n != 0 {
			t.Errorf("operation %d: %v allocations", i, n)
		}
	}
}

// closed refuses everything after left bytes.
type closed struct{ left int }

func (c *closed) Write(p []byte) (int, error) {
	if c.left -= len(p); c.left < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

func TestWriteErrors(t *testing.T) {
	p, _ := recorded()
	for _, n := range []int{0, 50, 300} {
		if err := p.Table(&closed{n}, Peaks{}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("table, %d bytes: %v", n, err)
		}
	}
	if err := p.JSON(&closed{}, Peaks{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("JSON: %v", err)
	}
}

// TestUselessCache: limits that are none are measured again, a place that
// cannot be written costs only the measurement, and nothing is left behind.
func TestUselessCache(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	for _, peaks := range []string{`{"flops":0,"bytes":1}`, `{"flops":-1,"bytes":-1}`, `{"flops":1e999,"bytes":1}`, `null`, `7`} {
		m := &machine{peaks: Peaks{10, 20}}
		if err := os.WriteFile(file, fmt.Appendf(nil, "{%q:%s}", key(m), peaks), 0o644); err != nil {
			t.Fatal(err)
		}
		if p := Measure(m, file); p != m.peaks || m.asked != 1 {
			t.Errorf("cache %s: %+v, measured %d times", peaks, p, m.asked)
		}
		if p := Measure(m, file); p != m.peaks || m.asked != 1 {
			t.Errorf("cache %s is not mended: measured %d times", peaks, m.asked)
		}
	}
	folder := filepath.Join(dir, "folder")
	if err := os.MkdirAll(filepath.Join(folder, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, cache := range []string{folder, filepath.Join(file, "below", "a file")} {
		m := &machine{peaks: Peaks{10, 20}}
		if p := Measure(m, cache); p != m.peaks {
			t.Errorf("%s: %+v", cache, p)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("left: %v (%v)", entries, err)
	}
}

// TestCacheKeepsOthers: one file holds the limits of several backends.
func TestCacheKeepsOthers(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "peaks.json")
	other := `{"gpu; x": {"flops": 5, "bytes": 6}}`
	if err := os.WriteFile(cache, []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	Measure(&machine{peaks: Peaks{10, 20}}, cache)
	if known := load(cache); len(known) != 2 || known["gpu; x"] != (Peaks{5, 6}) {
		t.Errorf("%+v", known)
	}
}

// costly is a backend whose clock costs: it tells each operation a second.
type costly struct {
	kernels.Backend
	clocked, runs int
}

func (c *costly) Info() kernels.Info { return kernels.Info{ClockCosts: true} }

func (c *costly) Run(ops []kernels.Op, clock kernels.Clock) error {
	c.runs++
	if clock == nil {
		time.Sleep(time.Millisecond)
		return nil
	}
	c.clocked++
	for i := range ops {
		clock(i, time.Duration(1+2*i)*time.Second)
	}
	return nil
}

// TestSomeRuns: where the clock costs, some runs are measured, and the others are
// divided among the passes like those.
func TestSomeRuns(t *testing.T) {
	p := New()
	zero := func() kernels.Op { return &kernels.Zero{Out: tensor(1, 1)} }
	r := p.Recorder([]kernels.Op{zero(), zero()}, []program.Label{{Pass: program.Forward}, {Pass: program.Backward}})
	b := &costly{}
	for i := range 70 {
		r.Begin()
		if err := r.Run(b); err != nil {
			t.Fatal(err)
		}
		f, back := r.Passes(program.Forward), r.Passes(program.Backward)
		if i%32 == 0 {
			if f != time.Second || back != 3*time.Second {
				t.Errorf("run %d: %v and %v", i, f, back)
			}
			continue
		}
		if f < time.Millisecond/4 || back < 3*f-time.Microsecond || back > 3*f+time.Microsecond {
			t.Errorf("run %d: %v and %v", i, f, back)
		}
	}
	if b.runs != 70 || b.clocked != 3 {
		t.Errorf("%d of %d runs were measured", b.clocked, b.runs)
	}
	var out strings.Builder
	if err := p.Table(&out, Peaks{}); err != nil || !strings.Contains(out.String(), "one in 32") {
		t.Errorf("%v\n%s", err, &out)
	}
}
