package benchmark

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"graft/kernels"
	"graft/kernels/cpu"
	"graft/profile"
)

func open() (kernels.Backend, error) { return cpu.New(cpu.Options{Threads: 1}), nil }

// TestKernels times every case of the small groups, and makes all others.
func TestKernels(t *testing.T) {
	kinds := map[string]bool{}
	var rows []Row
	small := regexp.MustCompile("^leads: ")
	for _, g := range Kernels() {
		b, _ := open()
		m := &Maker{backend: b}
		for _, c := range g.Make(m) {
			for _, op := range c.Ops {
				kernels.Check(op)
				kinds[op.Kind()] = true
			}
		}
		b.Close()
		if m.err != nil {
			t.Fatal(m.err)
		}
		if !small.MatchString(g.Title + ": ") {
			continue
		}
		if err := Run(context.Background(), []Group{g}, Options{Open: open}, func(r Row) { rows = append(rows, r) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"product", "weight_grad", "attention", "attention_grad", "cross_entropy", "softmax", "softmax_grad",
		"rms_norm", "rms_norm_grad", "gated", "gated_grad", "rotary", "rotary_table", "gather", "scatter", "embed", "embed_grad", "bias_grad", "sum", "dropout", "zero", "clip_norm", "adamw"} {
		if !kinds[kind] {
			t.Errorf("nothing times %s", kind)
		}
	}
	if len(rows) != 8 {
		t.Fatalf("%d rows", len(rows))
	}
	for _, r := range rows {
		if share, limit := r.Share(); r.Timed < least || r.Best <= 0 || r.Median < r.Best || r.Bytes <= 0 || share <= 0 || limit == "" {
			t.Errorf("%+v: %v of %s", r, share, limit)
		}
		if (r.Ratio > 0) != (r.Kind == "LoRA linear") || (r.Seed > 0) != (r.Kind != "linear") {
			t.Errorf("%s: ratio %v, seed %v", r.Kind, r.Ratio, r.Seed)
		}
	}
}

// TestRatio has a machine that becomes slow half way, and once looks elsewhere.
func TestRatio(t *testing.T) {
	base := []time.Duration{100, 101, 99, 200, 202, 198, 200}
	times := []time.Duration{110, 110, 500, 220, 222, 218, 219}
	if got := ratio(times, base); math.Abs(got-1.1) > 1e-3 {
		t.Errorf("ratio %v", got)
	}
	if r := newRow(times); r.Best != 110e-9 || r.Median != 219e-9 || times[2] != 500 {
		t.Errorf("%+v of %v", r, times)
	}
}

func TestOnly(t *testing.T) {
	var rows []Row
	o := Options{Open: open, Only: regexp.MustCompile("^leads: softmax")}
	if err := Run(context.Background(), Kernels(), o, func(r Row) { rows = append(rows, r) }); err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Kind != "softmax" {
		t.Errorf("%+v", rows)
	}
}

// TestStep adds up the operations of a step of the demo's model.
func TestStep(t *testing.T) {
	var rows []Row
	s := StepOptions{Model: "../configs/demo/model", Batch: 3, Length: 7, Rank: 4, Steps: 2}
	if err := Step(context.Background(), s, Options{Open: open}, func(r Row) { rows = append(rows, r) }); err != nil {
		t.Fatal(err)
	}
	whole := rows[len(rows)-1]
	calls, best, attention := 0, 0.0, 0
	for _, r := range rows[:len(rows)-1] {
		calls += r.PerStep
		best += r.Best
		if r.Kind == "attention" {
			attention += r.PerStep
		}
		if r.Timed != 2 || r.Median < r.Best {
			t.Errorf("%+v", r)
		}
	}
	if whole.Kind != "whole step" || whole.Best < best || calls < 50 || attention != 4 {
		t.Errorf("%d calls, %d of attention; %v of %+v", calls, attention, best, whole)
	}
	const weights = 4*(2*96*96+2*96*32+3*96*256) + 96*512 // of the layers, and of the head
	if want := 4.0 * weights * 3 * 7; whole.FLOPs != want {
		t.Errorf("%v FLOPs, want %v", whole.FLOPs, want)
	}
	if err := Step(context.Background(), StepOptions{Model: "nowhere"}, Options{Open: open}, nil); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("error %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := Run(ctx, Kernels(), Options{Open: open, Time: time.Hour}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	table := NewTable(&b)
	peaks := profile.Peaks{FLOPs: 100e9, Bytes: 10e9}
	table.Add(Row{Group: "g", Kind: "bound by FLOP", Shape: "1×2", Timed: 7, Best: 1e-3, Median: 2e-3, FLOPs: 80e6, Bytes: 1e6, Peaks: peaks})
	table.Add(Row{Group: "g", Kind: "bound by byte", Shape: "3", PerStep: 9, Best: 1e-3, Median: 2e-3, FLOPs: 1e6, Bytes: 9e6, Peaks: peaks,
		Against: "other", Ratio: 1.25, Seed: 3e-6, Wanted: 2e-6})
	want := `limits: 100.0 GFLOP/s, 10.0 GB/s
g                          shape                           timed     best µs   median µs   GFLOP/s     GB/s  of peak
bound by FLOP              1×2                                 7      1000.0      2000.0      80.0      1.0   80% FLOP
bound by byte              3                                   9      1000.0      2000.0       1.0      9.0   90% byte  1.25 × other  seed 3.0 µs, wanted 2.0
`
	if table.Err() != nil || b.String() != want {
		t.Errorf("%v\n%s", table.Err(), b.String())
	}
	if share, limit := (Row{Best: 1}).Share(); share != 0 || limit != "" {
		t.Errorf("%v of %q without limits", share, limit)
	}
}

func TestJSON(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, Report{Backend: "cpu", Machine: "m", Rows: []Row{{Group: "g", Kind: "k", Best: 0.5}}}); err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || len(back.Rows) != 1 || math.Abs(back.Rows[0].Best-0.5) > 0 || !strings.Contains(b.String(), `"best_s": 0.5`) {
		t.Errorf("%v: %s", err, b.String())
	}
}
