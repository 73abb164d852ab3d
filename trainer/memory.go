package trainer

import (
	"fmt"
	"runtime"
	"strings"

	"graft/internal/units"
	"graft/kernels"
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
	inferCounts := program.Counts{Tokens: t.longestAnswer(), LossRows: 1, Sequences: 1}
	plans := []*program.Plan{t.trainRun.Plan(trainCounts), t.evalRun.Plan(evalCounts), t.inferRun.Plan(inferCounts)}
	m := &t.memory
	for _, p := range plans {
		m.Activations = max(m.Activations, p.Bytes)
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
	for _, step := range []func(program.Counts) program.Step{shortest, longest} {
		t.trainRun.Bind(step(trainCounts))
		t.evalRun.Bind(step(evalCounts))
		t.inferRun.Bind(step(inferCounts))
		for _, ops := range [][]kernels.Op{t.trainRun.Ops, t.evalRun.Ops, t.inferRun.Ops, t.update.Ops} {
			m.Scratch = max(m.Scratch, t.backend.Scratch(ops))
		}
	}
	m.Before = max(0, peakMemory()-m.total())
	return nil
}

// longest and shortest are the steps that working memory is planned for: attention takes most of
// it for one long sequence, or for many, each of which fills its last blocks with nothing.
func longest(c program.Counts) program.Step {
	c.Sequences = 1
	return shortest(c)
}

func shortest(c program.Counts) program.Step {
	s := program.Step{Tokens: c.Tokens, LossRows: c.LossRows, Bounds: []int32{0}}
	for i := range c.Sequences {
		s.Bounds = append(s.Bounds, int32(c.Tokens*(i+1)/c.Sequences))
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
