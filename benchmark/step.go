package benchmark

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"graft/kernels"
	"graft/lora"
	"graft/model"
	"graft/profile"
	"graft/program"
)

// StepOptions say what step is timed: so many sequences of one length, loss on
// all tokens, adapters on all linear layers.
type StepOptions struct {
	Model         string // folder
	Batch, Length int
	Rank          int
	Recompute     bool
	Steps         int                     // that are timed
	Progress      func(done, total int64) // steps; may be nil
}

// Step times the operations of a whole training step of a model, as they follow
// each other, and hands a row for each kind and shape to emit: its time is that
// of all its calls in a step. The last row is the whole step; its FLOPs are
// the useful ones, 4 for each token and weight of a linear layer.
func Step(ctx context.Context, s StepOptions, o Options, emit func(Row)) error {
	m, err := model.Open(s.Model)
	if err != nil {
		return err
	}
	defer m.Close()
	b, err := o.Open()
	if err != nil {
		return err
	}
	defer b.Close()
	run, err := prepare(m, b, s)
	if err != nil {
		return err
	}
	peaks := profile.Now(b)
	times := make([][]time.Duration, len(run.Ops)+1)
	for i := range s.Steps + 1 {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		start := time.Now()
		err := b.Run(run.Ops, func(op int, d time.Duration) {
			if i > 0 { // the first step touches the memory
				times[op] = append(times[op], d)
			}
		})
		if err != nil {
			return err
		}
		if s.Progress != nil {
			s.Progress(int64(i+1), int64(s.Steps+1))
		}
		if i > 0 {
			times[len(run.Ops)] = append(times[len(run.Ops)], time.Since(start))
		}
	}
	peaks = peaks.Best(profile.Now(b))
	rows := byShape(run.Ops, times)
	whole := newRow(times[len(run.Ops)])
	whole.Kind, whole.Shape, whole.PerStep = "whole step", fmt.Sprintf("%d × %d tokens", s.Batch, s.Length), 1
	whole.FLOPs = m.FLOPsPerToken(false) * float64(s.Batch*s.Length)
	for _, r := range append(rows, whole) {
		r.Group, r.Peaks = "step", peaks
		if o.Only == nil || o.Only.MatchString(r.Group+": "+r.Kind+" "+r.Shape) {
			emit(r)
		}
	}
	return nil
}

// prepare places a model with new adapters and fills the inputs of its step.
func prepare(m *model.Model, b kernels.Backend, s StepOptions) (*model.Run, error) {
	c := lora.Config{Rank: s.Rank, Alpha: float64(2 * s.Rank), Targets: lora.Targets{Pattern: lora.AllLinear}}
	adapters, err := c.Adapters(m.Decoder)
	if err != nil {
		return nil, err
	}
	in, err := m.Place(b, model.Options{Adapters: adapters})
	if err != nil {
		return nil, err
	}
	lora.Initialize(in, lora.Kaiming, 0)
	run := in.Train(s.Recompute)
	n := s.Batch * s.Length
	plan := run.Plan(program.Counts{Tokens: n, LossRows: n - s.Batch, Sequences: s.Batch})
	arena, err := b.Alloc(plan.Bytes)
	if err != nil {
		return nil, fmt.Errorf("activations of %d tokens: %w", n, err)
	}
	plan.Place(arena)
	fill(run, m.Vocab, s)
	return run, nil
}

// fill makes up the tokens of a step.
func fill(run *model.Run, vocab int, s StepOptions) {
	n := s.Batch * s.Length
	in := model.Inputs{Tokens: upTo(n, vocab), Bounds: []int32{0}}
	for i := range n {
		in.Positions = append(in.Positions, int32(i%s.Length))
		if (i+1)%s.Length == 0 {
			in.Bounds = append(in.Bounds, int32(i+1))
			continue
		}
		in.Rows, in.Targets = append(in.Rows, int32(i)), append(in.Targets, in.Tokens[i+1])
	}
	run.Fill(in, program.Step{})
}

// byShape adds up the calls of each kind and shape, those with most time first.
func byShape(ops []kernels.Op, times [][]time.Duration) []Row {
	at := map[[2]string]int{}
	var rows []Row
	for i, op := range ops {
		r := newRow(times[i])
		r.Kind, r.Shape, r.PerStep = op.Kind(), shapeOf(op), 1
		r.FLOPs, r.Bytes = op.FLOPs(), kernels.Traffic(op)
		key := [2]string{r.Kind, r.Shape}
		j, ok := at[key]
		if !ok {
			at[key] = len(rows)
			rows = append(rows, r)
			continue
		}
		sum := &rows[j]
		sum.PerStep++
		sum.Best += r.Best
		sum.Median += r.Median
		sum.FLOPs += r.FLOPs
		sum.Bytes += r.Bytes
	}
	slices.SortStableFunc(rows, func(a, b Row) int {
		switch {
		case a.Best > b.Best:
			return -1
		case a.Best < b.Best:
			return 1
		}
		return 0
	})
	return rows
}

// shapeOf describes an operation's sizes.
func shapeOf(op kernels.Op) string {
	switch o := op.(type) {
	case *kernels.Product:
		var depths []string
		for _, t := range o.Terms {
			d := fmt.Sprint(t.X.Cols)
			if t.Transposed {
				d += "ᵀ"
			}
			depths = append(depths, d)
		}
		if len(depths) == 0 { // a copy, or a sum
			return fmt.Sprintf("%d×%d", o.Out.Rows, o.Out.Cols)
		}
		return fmt.Sprintf("%d×%s→%d %v", o.Out.Rows, strings.Join(depths, "+"), o.Out.Cols, o.Terms[0].W.DType)
	case *kernels.WeightGrad:
		return fmt.Sprintf("%d: %d×%d", o.DY.Rows, o.DW.Rows, o.DW.Cols)
	case *kernels.CrossEntropy:
		w := o.Terms[0].W
		return fmt.Sprintf("%d×%d→%d %v", o.Loss.Rows, w.Cols, w.Rows, w.DType)
	}
	var shape string
	op.Operands(func(t **kernels.Tensor, _ kernels.Access) {
		if shape == "" && (*t).DType.Float() {
			shape = fmt.Sprintf("%d×%d", (*t).Rows, (*t).Cols)
		}
	})
	return shape
}
