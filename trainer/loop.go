package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"graft/data"
	"graft/model"
	"graft/program"
)

// loop is the training loop: from the step that the state says to the last.
// A cancelled context ends it between two micro-batches; the step that was
// begun is forgotten, so the state is always that of a whole step.
func (t *Trainer) loop(ctx context.Context) error {
	if err := t.makeUp(ctx); err != nil {
		return err
	}
	for t.state.Step < t.steps {
		began := time.Now()
		m, err := t.step(ctx)
		if err != nil {
			return err
		}
		t.state.Step++
		t.state.TokensTotal += int64(m.Tokens)
		m = m.finish(t, time.Since(began))
		err = t.validate(ctx, &m)
		if unwritten := t.report.step(m); unwritten != nil && err == nil {
			err = t.unwritten(unwritten)
		}
		if err != nil {
			return err
		}
		if t.due(t.cfg.Train.SaveEvery) {
			if err := t.save(); err != nil {
				return err
			}
		}
		select {
		case <-t.options.Show:
			t.showProfile()
		default:
		}
	}
	return nil
}

// due says whether something that happens every so many steps (0: only at the
// end) happens after the step that just ended.
func (t *Trainer) due(every int) bool {
	return t.state.Step == t.steps || every > 0 && t.state.Step%every == 0
}

// step runs one optimizer step: the losses and gradients of its micro-batches,
// summed over tokens, then one update with their mean.
func (t *Trainer) step(ctx context.Context) (metrics, error) {
	m := metrics{Step: t.state.Step + 1}
	t.recordStep.Begin()
	t.recordUpdate.Begin()
	var loss float64
	for _, examples := range t.loader.Window(t.state.Step) {
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		began := time.Now()
		t.fill(t.trainSet, examples, t.trainRun, m)
		m.data += time.Since(began)
		if err := t.recordStep.Run(t.backend); err != nil {
			return m, fmt.Errorf("step %d: %w", m.Step, err)
		}
		loss += total(t.trainRun.Loss)
		m.Tokens += len(t.batch.Targets)
		m.seen += len(t.batch.Tokens)
	}
	m.Loss = loss / float64(m.Tokens)
	if !finite(m.Loss) {
		return m, t.notFinite(m.Step, "loss", m.Loss)
	}
	m.LR = t.schedule.At(m.Step)
	t.update.Set(m.Step, m.Tokens, m.LR)
	if err := t.recordUpdate.Run(t.backend); err != nil {
		return m, fmt.Errorf("step %d: %w", m.Step, err)
	}
	if m.GradNorm = t.update.Norm(); !finite(m.GradNorm) {
		return m, t.notFinite(m.Step, "gradient norm", m.GradNorm)
	}
	return m, nil
}

// fill packs examples end to end into the inputs of a program. before counts
// what of the same step ran before.
func (t *Trainer) fill(set *data.Set, indices []int32, r *model.Run, before metrics) {
	b := &t.batch
	set.Pack(indices, b)
	r.Fill(model.Inputs(*b), program.Step{Number: uint64(t.state.Step), TokensBefore: before.seen, LossRowsBefore: before.Tokens})
}

// unwritten ends a run whose metrics cannot be written. What it has reached is saved.
func (t *Trainer) unwritten(err error) error {
	err = fmt.Errorf("metrics of step %d: %w", t.state.Step, err)
	if unsaved := t.save(); unsaved != nil {
		return errors.Join(err, unsaved)
	}
	return t.mend(err)
}

// makeUp validates after the step that a run goes on from, if it was stopped before it had.
func (t *Trainer) makeUp(ctx context.Context) error {
	m := t.report.last
	if m == nil || m.ValidLoss != nil {
		return nil
	}
	if err := t.validate(ctx, m); err != nil || m.ValidLoss == nil {
		return err
	}
	if err := t.report.again(*m); err != nil {
		return t.unwritten(err)
	}
	return nil
}

// validate adds the validation loss to the metrics of the step that just ended, if it is due.
func (t *Trainer) validate(ctx context.Context, m *metrics) error {
	if t.validSet == nil || !t.due(t.cfg.Train.EvalEvery) {
		return nil
	}
	loss, err := t.evaluate(ctx)
	if err != nil {
		return err
	}
	if !finite(loss) {
		return t.notFinite(m.Step, "validation loss", loss)
	}
	m.ValidLoss = &loss
	return nil
}

// evaluate returns the mean loss over the trained tokens of the whole
// validation set. It reads the parameters and writes only the arena.
func (t *Trainer) evaluate(ctx context.Context) (float64, error) {
	var loss float64
	tokens := 0
	for i := 0; i < t.validSet.Len(); i += t.cfg.Train.BatchSize {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		t.fill(t.validSet, sequence(i, min(i+t.cfg.Train.BatchSize, t.validSet.Len())), t.evalRun, metrics{})
		if err := t.recordEval.Run(t.backend); err != nil {
			return 0, fmt.Errorf("validation: %w", err)
		}
		loss += total(t.evalRun.Loss)
		tokens += len(t.batch.Targets)
	}
	return loss / float64(tokens), nil
}

func sequence(from, to int) []int32 {
	out := make([]int32, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, int32(i))
	}
	return out
}

// total sums losses in float64, in order.
func total(v *program.Value) float64 {
	var sum float64
	for _, l := range v.Float64s() {
		sum += l
	}
	return sum
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
