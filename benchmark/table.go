package benchmark

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Table prints rows as they come, a heading before each group.
type Table struct {
	w     io.Writer
	group string
	any   bool
	err   error
}

// NewTable returns a table that is written to w.
func NewTable(w io.Writer) *Table { return &Table{w: w} }

// Add prints a row.
func (t *Table) Add(r Row) {
	if r.Group != t.group || !t.any {
		t.heading(r)
	}
	calls := fmt.Sprint(r.Timed)
	if r.PerStep > 0 {
		calls = fmt.Sprint(r.PerStep)
	}
	t.printf("%-26s %-30s %6s %11.1f %11.1f %9.1f %8.1f", r.Kind, r.Shape, calls, 1e6*r.Best, 1e6*r.Median, r.FLOPs/r.Best/1e9, r.Bytes/r.Best/1e9)
	if share, limit := r.Share(); limit != "" {
		t.printf(" %4.0f%% %s", 100*share, limit)
	}
	if r.Ratio > 0 {
		t.printf("  %.2f × %s", r.Ratio, r.Against)
	}
	if r.Seed > 0 {
		t.printf("  seed %.1f µs, wanted %.1f", 1e6*r.Seed, 1e6*r.Wanted)
	}
	t.printf("\n")
}

func (t *Table) heading(r Row) {
	if t.any {
		t.printf("\n")
	}
	t.group, t.any = r.Group, true
	calls := "timed"
	if r.PerStep > 0 {
		calls = "calls"
	}
	title := fmt.Sprintf("%-26s %-30s %6s %11s %11s %9s %8s", t.group, "shape", calls, "best µs", "median µs", "GFLOP/s", "GB/s")
	if r.Peaks.FLOPs > 0 {
		title += "  of peak"
		t.printf("limits: %.1f GFLOP/s, %.1f GB/s\n", r.Peaks.FLOPs/1e9, r.Peaks.Bytes/1e9)
	}
	t.printf("%s\n", title)
}

func (t *Table) printf(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

// Err returns the first error of writing.
func (t *Table) Err() error { return t.err }

// Report is what WriteJSON writes.
type Report struct {
	Backend string `json:"backend"`
	Machine string `json:"machine"`
	Rows    []Row  `json:"rows"`
}

// WriteJSON writes a report.
func WriteJSON(w io.Writer, r Report) error {
	e := json.NewEncoder(w)
	e.SetIndent("", strings.Repeat(" ", 1))
	return e.Encode(r)
}
