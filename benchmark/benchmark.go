// Package benchmark times operations against what the machine can do: alone,
// at the shapes that tell most (Kernels), or as they follow each other in a
// training step of a model (Step).
//
// Machines are shared and their clocks move, so nothing is compared across
// time: the cases of a group take turns, the machine's limits are measured
// again before each group. Of a case the best time counts, since whatever disturbs
// a run only makes it longer. A ratio is the median of those of neighbouring times, which
// were disturbed alike: ratios of best times vary three times as much.
package benchmark

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"graft/kernels"
	"graft/profile"
)

// Case is something to be timed: operations, one after the other.
type Case struct {
	Kind    string
	Shape   string
	Ops     []kernels.Op
	Against string // the kind of another case of the group and shape, for a ratio of times
	Lead    Lead
}

// Lead is what an Apple GPU takes, in seconds: measured with other kernels, and
// wanted. 0: unknown.
type Lead struct {
	Seed, Wanted float64
}

// Group is cases that are timed in turns. Make allocates their tensors.
type Group struct {
	Title string
	Make  func(m *Maker) []Case
}

// Row is what was measured of a case.
type Row struct {
	Group   string  `json:"group"`
	Kind    string  `json:"kind"`
	Shape   string  `json:"shape"`
	Timed   int     `json:"timed"`              // times
	PerStep int     `json:"per_step,omitempty"` // calls in a step
	Best    float64 `json:"best_s"`             // of one call, or of all calls of a step
	Median  float64 `json:"median_s"`
	FLOPs   float64 `json:"flops"`
	Bytes   float64 `json:"bytes"`
	Against string  `json:"against,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`    // the median of those of all turns
	Seed    float64 `json:"seed_s,omitempty"`   // Lead
	Wanted  float64 `json:"wanted_s,omitempty"` // Lead

	Peaks profile.Peaks `json:"peaks"` // at the time
}

// Share returns what part of the machine's limit a row reaches, and of which:
// the one that it is closer to.
func (r Row) Share() (share float64, limit string) {
	share = profile.Row{Seconds: r.Best, FLOPs: r.FLOPs, Bytes: r.Bytes}.Share(r.Peaks)
	switch {
	case share == 0:
		return 0, ""
	case r.FLOPs/r.Peaks.FLOPs >= r.Bytes/r.Peaks.Bytes:
		return share, "FLOP"
	}
	return share, "byte"
}

// Options say how long is measured.
type Options struct {
	Time time.Duration                   // for each case
	Only *regexp.Regexp                  // of "group: kind shape"; nil: all
	Open func() (kernels.Backend, error) // a new backend: memory lives as long as one
}

// least is how often a case is timed at least.
const least = 5

// Run times groups, one after the other, and hands the rows of each to emit.
func Run(ctx context.Context, groups []Group, o Options, emit func(Row)) error {
	for _, g := range groups {
		if err := o.group(ctx, g, emit); err != nil {
			return fmt.Errorf("%s: %w", g.Title, err)
		}
	}
	return nil
}

func (o Options) group(ctx context.Context, g Group, emit func(Row)) error {
	b, err := o.Open()
	if err != nil {
		return err
	}
	defer b.Close()
	if len(o.chosen(g.Title, g.Make(&Maker{backend: b, dry: true}))) == 0 {
		return nil
	}
	m := &Maker{backend: b}
	cases := o.chosen(g.Title, g.Make(m))
	if m.err != nil {
		return m.err
	}
	peaks := profile.Now(b)
	times, err := o.turns(ctx, b, cases)
	if err != nil {
		return err
	}
	peaks = peaks.Best(profile.Now(b))
	rows := make([]Row, len(cases))
	for i, c := range cases {
		rows[i] = newRow(times[i])
		r := &rows[i]
		r.Group, r.Kind, r.Shape, r.Against, r.Peaks = g.Title, c.Kind, c.Shape, c.Against, peaks
		r.Seed, r.Wanted = c.Lead.Seed, c.Lead.Wanted
		for _, op := range c.Ops {
			r.FLOPs += op.FLOPs()
			r.Bytes += kernels.Traffic(op)
		}
	}
	for i, r := range rows {
		if r.Against != "" {
			base := slices.IndexFunc(rows, func(b Row) bool { return b.Kind == r.Against && b.Shape == r.Shape })
			r.Ratio = ratio(times[i], times[base])
		}
		emit(r)
	}
	return nil
}

// chosen returns the cases that were asked for, and those that a ratio needs.
func (o Options) chosen(title string, cases []Case) (out []Case) {
	if o.Only == nil {
		return cases
	}
	asked := func(c Case) bool { return o.Only.MatchString(title + ": " + c.Kind + " " + c.Shape) }
	for _, c := range cases {
		if asked(c) || slices.ContainsFunc(cases, func(d Case) bool { return asked(d) && d.Against == c.Kind && d.Shape == c.Shape }) {
			out = append(out, c)
		}
	}
	return out
}

// turns runs the cases one after the other, again and again, until each had its
// time.
func (o Options) turns(ctx context.Context, b kernels.Backend, cases []Case) ([][]time.Duration, error) {
	times := make([][]time.Duration, len(cases))
	spent := time.Duration(0)
	for turn := 0; turn <= least || spent < o.Time*time.Duration(len(cases)); turn++ {
		for i, c := range cases {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			start := time.Now()
			if err := b.Run(c.Ops, nil); err != nil {
				return nil, err
			}
			took := time.Since(start)
			spent += took
			if turn > 0 { // the first one touches the memory
				times[i] = append(times[i], took)
			}
		}
	}
	return times, nil
}

// ratio returns the median of the ratios of times of the same turn.
func ratio(times, base []time.Duration) float64 {
	ratios := make([]float64, len(times))
	for i, t := range times {
		ratios[i] = t.Seconds() / base[i].Seconds()
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// newRow has what times say.
func newRow(times []time.Duration) Row {
	times = slices.Sorted(slices.Values(times))
	return Row{Timed: len(times), Best: times[0].Seconds(), Median: times[len(times)/2].Seconds()}
}
