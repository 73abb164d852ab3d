// Package profile says where the time of a run goes: how long every operation
// of every step took, summed by kind, module, layer and pass, against what the
// machine can do at most.
//
//	prof := profile.New()
//	rec := prof.Recorder(prog.Ops, prog.Labels)
//	rec.Begin()                       // before each step
//	rec.Run(backend)
//	prof.Table(os.Stdout, peaks)
//
// FLOPs and bytes are those of each operation's formula at its actual size
// (kernels.Op.FLOPs, kernels.Traffic): a kernel that moves or computes more
// than it needs to shows as a lower rate.
package profile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"graft/kernels"
	"graft/program"
)

// Peaks are what a machine can do at most.
type Peaks struct {
	FLOPs float64 `json:"flops"` // floating point operations per second
	Bytes float64 `json:"bytes"` // memory traffic per second, out of cache
}

// Best returns the higher of each.
func (p Peaks) Best(o Peaks) Peaks { return Peaks{max(p.FLOPs, o.FLOPs), max(p.Bytes, o.Bytes)} }

// Row sums up operations.
type Row struct {
	Kind    string  `json:"kind"`
	Module  string  `json:"module,omitempty"`
	Layer   int     `json:"layer"`
	Pass    string  `json:"pass,omitempty"`
	Calls   int     `json:"calls"`
	Seconds float64 `json:"seconds"`
	FLOPs   float64 `json:"flops"`
	Bytes   float64 `json:"bytes"`
}

func (r *Row) add(o Row) {
	r.Calls += o.Calls
	r.Seconds += o.Seconds
	r.FLOPs += o.FLOPs
	r.Bytes += o.Bytes
}

// Share returns the part of the machine's limit that r reached: of the
// arithmetic or of the memory, whichever binds.
func (r Row) Share(p Peaks) float64 {
	if r.Seconds == 0 || p.FLOPs == 0 || p.Bytes == 0 {
		return 0
	}
	return max(r.FLOPs/p.FLOPs, r.Bytes/p.Bytes) / r.Seconds
}

// Profile collects the operations of a run. It is not safe for concurrent use.
type Profile struct {
	recorders []*Recorder
}

// New returns an empty profile.
func New() *Profile { return &Profile{} }

// Recorder collects one program. It is the clock of the program's runs.
type Recorder struct {
	ops    []kernels.Op
	labels []program.Label
	moved  [][]*kernels.Tensor // what each operation moves, twice where it reads and writes; nil: ask Traffic
	sums   []sum
	times  []time.Duration // of each operation since Begin

	runs       int
	some       bool          // the clock costs, so only some runs are measured
	unmeasured time.Duration // of the other runs since Begin
}

// measuredEvery is how often a run is measured where the clock costs.
const measuredEvery = 32

type sum struct {
	calls        int
	took         time.Duration
	flops, bytes float64
}

// Recorder returns the collector for a program.
func (p *Profile) Recorder(ops []kernels.Op, labels []program.Label) *Recorder {
	r := &Recorder{ops: ops, labels: labels, moved: make([][]*kernels.Tensor, len(ops)), sums: make([]sum, len(ops)),
		times: make([]time.Duration, len(ops))}
	for i, op := range ops {
		if kernels.Sparse(op) {
			continue
		}
		op.Operands(func(t **kernels.Tensor, a kernels.Access) {
			r.moved[i] = append(r.moved[i], *t)
			if a == kernels.Update {
				r.moved[i] = append(r.moved[i], *t)
			}
		})
	}
	p.recorders = append(p.recorders, r)
	return r
}

// Run runs the program and measures its operations; where that takes longer, in
// the first run and in every 32nd from there.
func (r *Recorder) Run(b kernels.Backend) error {
	if r.runs == 0 {
		r.some = b.Info().ClockCosts
	}
	r.runs++
	if !r.some || r.runs%measuredEvery == 1 {
		return b.Run(r.ops, r.Clock)
	}
	began := time.Now()
	err := b.Run(r.ops, nil)
	r.unmeasured += time.Since(began)
	return err
}

// Begin forgets the times that Passes sums up.
func (r *Recorder) Begin() {
	clear(r.times)
	r.unmeasured = 0
}

// Passes returns the time in a pass since Begin. Runs that were not measured
// count with the share that the pass has in those that were.
func (r *Recorder) Passes(p program.Pass) (sum time.Duration) {
	for i, d := range r.times {
		if r.labels[i].Pass == p {
			sum += d
		}
	}
	if r.unmeasured == 0 {
		return sum
	}
	var pass, all time.Duration
	for i, s := range r.sums {
		all += s.took
		if r.labels[i].Pass == p {
			pass += s.took
		}
	}
	return sum + time.Duration(ratio(float64(pass), float64(all))*float64(r.unmeasured))
}

// Clock is a kernels.Clock. It runs after every operation, so it allocates
// nothing and looks nothing up.
func (r *Recorder) Clock(i int, d time.Duration) {
	s := &r.sums[i]
	s.calls++
	s.took += d
	s.flops += r.ops[i].FLOPs()
	s.bytes += r.traffic(i)
	r.times[i] += d
}

func (r *Recorder) traffic(i int) float64 {
	if r.moved[i] == nil {
		return kernels.Traffic(r.ops[i])
	}
	n := 0
	for _, t := range r.moved[i] {
		n += t.Bytes()
	}
	return float64(n)
}

// Rows returns one row for every operation of every program.
func (p *Profile) Rows() []Row {
	var out []Row
	for _, r := range p.recorders {
		for i, s := range r.sums {
			if s.calls == 0 {
				continue
			}
			l := r.labels[i]
			out = append(out, Row{Kind: r.ops[i].Kind(), Module: l.Module, Layer: l.Layer, Pass: string(l.Pass),
				Calls: s.calls, Seconds: s.took.Seconds(), FLOPs: s.flops, Bytes: s.bytes})
		}
	}
	return out
}

// Exceeds says whether a kind of operation was faster than the arithmetic's
// limit, which then was measured too low. (Memory traffic may well be: what
// lies in caches is faster.)
func (p *Profile) Exceeds(peaks Peaks) bool {
	for _, r := range Group(p.Rows(), ByKind) {
		if peaks.FLOPs > 0 && r.FLOPs > r.Seconds*peaks.FLOPs {
			return true
		}
	}
	return false
}

// Group sums rows that agree in what key returns, the longest time first.
func Group(rows []Row, key func(Row) Row) []Row {
	sums := map[Row]*Row{}
	var out []*Row
	for _, r := range rows {
		k := key(r)
		s := sums[k]
		if s == nil {
			c := k
			s = &c
			sums[k] = s
			out = append(out, s)
		}
		s.add(r)
	}
	slices.SortStableFunc(out, func(a, b *Row) int { return cmp.Compare(b.Seconds, a.Seconds) })
	list := make([]Row, len(out))
	for i, r := range out {
		list[i] = *r
	}
	return list
}

// ByKind, ByModule, ByLayer and ByPass are keys for Group. Modules of
// different layers count as one.
func ByKind(r Row) Row { return Row{Kind: r.Kind, Layer: -1} }

// ByModule keeps the module's path within its layer, and the pass.
func ByModule(r Row) Row {
	m := r.Module
	if r.Layer >= 0 {
		m = strings.TrimPrefix(m, fmt.Sprintf("model.layers.%d.", r.Layer))
	}
	return Row{Module: m, Layer: -1}
}

// ByLayer keeps the layer; -1 is what lies outside of the layers.
func ByLayer(r Row) Row { return Row{Layer: r.Layer} }

// ByPass keeps the pass.
func ByPass(r Row) Row { return Row{Pass: r.Pass, Layer: -1} }

// Table prints the run by kind of operation, by module and by pass.
func (p *Profile) Table(w io.Writer, peaks Peaks) error {
	rows := p.Rows()
	t := table{w: w, peaks: peaks}
	for _, r := range p.recorders {
		if r.some {
			t.printf("measured in the first run of each program and one in %d from there, since measuring takes longer here\n", measuredEvery)
			break
		}
	}
	for _, r := range rows {
		t.total += r.Seconds
	}
	t.print("operation", Group(rows, ByKind), func(r Row) string { return r.Kind }, 0)
	t.print("pass", Group(rows, ByPass), func(r Row) string { return r.Pass }, 0)
	t.print("module", Group(rows, ByModule), func(r Row) string { return r.Module }, 12)
	if layers := Group(rows, ByLayer); len(layers) > 1 {
		slices.SortFunc(layers, func(a, b Row) int { return cmp.Compare(a.Layer, b.Layer) })
		t.print("layer", layers, func(r Row) string {
			if r.Layer < 0 {
				return "outside"
			}
			return fmt.Sprint(r.Layer)
		}, 0)
	}
	return t.err
}

// table prints sections of rows with the same columns.
type table struct {
	w     io.Writer
	peaks Peaks
	total float64
	err   error
}

func (t *table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// print prints at most most rows (0: all) and sums up the rest.
func (t *table) print(title string, rows []Row, name func(Row) string, most int) {
	t.printf("%-26s %8s %10s %10s %6s %9s %8s", title, "calls", "total ms", "mean µs", "share", "GFLOP/s", "GB/s")
	if t.peaks.FLOPs > 0 {
		t.printf(" %8s", "of peak")
	}
	t.printf("\n")
	var rest Row
	more := 0
	for i, r := range rows {
		if most > 0 && i >= most {
			rest.add(r)
			more++
			continue
		}
		t.row(name(r), r)
	}
	if more > 0 {
		t.row(fmt.Sprintf("(%d more)", more), rest)
	}
	t.printf("\n")
}

func (t *table) row(name string, r Row) {
	t.printf("%-26s %8d %10.1f %10.1f %5.1f%% %9.2f %8.2f", name, r.Calls, r.Seconds*1e3, r.Seconds*1e6/float64(r.Calls),
		100*ratio(r.Seconds, t.total), ratio(r.FLOPs, r.Seconds)/1e9, ratio(r.Bytes, r.Seconds)/1e9)
	if t.peaks.FLOPs > 0 {
		t.printf(" %7.0f%%", 100*r.Share(t.peaks))
	}
	t.printf("\n")
}

// ratio is 0 where a coarse clock saw no time pass.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// JSON writes all rows and the machine's limits.
func (p *Profile) JSON(w io.Writer, peaks Peaks) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(struct {
		Peaks Peaks `json:"peaks"`
		Rows  []Row `json:"rows"`
	}{peaks, p.Rows()})
}
