package trainer

import (
	"fmt"
	"runtime"
	"strings"

	"graft/internal/units"
	"graft/model"
	"graft/program"
)

// memoryPlan is what the process will hold at its peak, by category, in bytes.
type memoryPlan struct {
	Weights     int // base weights as stored, mapped
	Parameters  int // adapters, or all weights in mode full
	Gradients   int
	Optimizer   int
	Activations int // the arena
	Scratch     int // the backend's own
	Process     int // program, tokenizer and data: what the process held when planning
	Before      int // what it held before, for a moment, beyond all that: the measurement of the machine
}

func (m memoryPlan) total() int {
	return m.Weights + m.Parameters + m.Gradients + m.Optimizer + m.Activations + m.Scratch + m.Process + m.Before
}

// planMemory lays out all programs in one arena and adds up what a run needs.
func (t *Trainer) planMemory() error {
	trainCounts, evalCounts := t.counts()
	runs := []*model.Run{t.trainRun, t.evalRun, t.inferRun}
	counts := []program.Counts{trainCounts, evalCounts, {Tokens: t.longestAnswer(), LossRows: 1, Sequences: 1}}
	var plans []*program.Plan
	m := &t.memory
	for i, r := range runs {
		p := r.Plan(counts[i])
		m.Activations = max(m.Activations, p.Bytes)
		plans = append(plans, p)
	}
	m.Weights = t.model.Bytes()
	m.Parameters = t.in.Params.Bytes()
	m.Gradients, m.Optimizer = m.Parameters, 2*m.Parameters
	m.Process = processBytes()
	arena, err := t.backend.Alloc(m.Activations)
	if err != nil {
		return fmt.Errorf("activations of %d tokens: %w; lower train.batch_size or data.max_length, or set train.recompute: block",
			trainCounts.Tokens, err)
	}
	for _, p := range plans {
		p.Place(arena)
	}
	m.Scratch = t.backend.Scratch(t.update.Ops)
	for i, r := range runs {
		// Attention takes most for many sequences, each of which fills its last blocks with nothing, or for one.
		for _, sequences := range []int{counts[i].Sequences, 1} {
			r.Bind(inParts(counts[i], sequences))
			m.Scratch = max(m.Scratch, t.backend.Scratch(r.Ops))
		}
	}
	m.Before = max(0, peakMemory()-m.total())
	return nil
}

// inParts is a step of so many sequences of about the same length.
func inParts(c program.Counts, sequences int) program.Step {
	s := program.Step{Tokens: c.Tokens, LossRows: c.LossRows, Bounds: []int32{0}}
	for i := range sequences {
		s.Bounds = append(s.Bounds, int32(c.Tokens*(i+1)/sequences))
	}
	return s
}

// processBytes returns what the Go runtime has taken from the system.
func processBytes() int {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int(s.Sys)
}

func (m memoryPlan) String() string {
	var parts []string
	for _, p := range []struct {
		name  string
		bytes int
	}{
		{"weights", m.Weights}, {"parameters", m.Parameters}, {"gradients", m.Gradients}, {"optimizer", m.Optimizer},
		{"activations", m.Activations}, {"scratch", m.Scratch}, {"process", m.Process},
		{"measuring the machine", m.Before},
	} {
		if p.bytes > 0 {
			parts = append(parts, p.name+" "+units.Bytes(p.bytes))
		}
	}
	return strings.Join(parts, ", ")
}
