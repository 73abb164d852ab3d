package trainer

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"graft/configs"
	"graft/internal/files"
	"graft/internal/units"
	"graft/profile"
	"graft/program"
)

// metricsFile has one JSON line for each step.
const metricsFile = "metrics.jsonl"

// metrics is what is reported of one step.
type metrics struct {
	Step         int      `json:"step"`
	Loss         float64  `json:"loss"`                 // mean over the trained tokens
	ValidLoss    *float64 `json:"valid_loss,omitempty"` // of the whole validation set, where it was due
	GradNorm     float64  `json:"grad_norm"`            // before clipping
	LR           float64  `json:"lr"`
	Tokens       int      `json:"tokens"`       // trained
	TokensTotal  int64    `json:"tokens_total"` // trained, since the start of the run
	StepMS       float64  `json:"step_ms"`
	DataMS       float64  `json:"data_ms"`
	ForwardMS    float64  `json:"forward_ms"`
	BackwardMS   float64  `json:"backward_ms"` // with recomputation
	OptimizerMS  float64  `json:"optimizer_ms"`
	TokensPerSec float64  `json:"tokens_per_s"` // all tokens, trained or not
	MFU          float64  `json:"mfu"`          // of the machine's FLOP rate, at 4 (mode full: 6) FLOPs per weight and token
	Memory       int      `json:"memory"`       // the process's peak so far, bytes

	seen int // tokens, trained or not
	data time.Duration
}

// finish fills in what is known when the step is over.
func (m metrics) finish(t *Trainer, took time.Duration) metrics {
	ms := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
	r := t.recordStep
	m.TokensTotal = t.state.TokensTotal
	m.StepMS, m.DataMS = ms(took), ms(m.data)
	m.ForwardMS = ms(r.Passes(program.Forward))
	m.BackwardMS = ms(r.Passes(program.Backward) + r.Passes(program.Recompute))
	m.OptimizerMS = ms(t.recordUpdate.Passes(program.Optimizer))
	m.TokensPerSec = float64(m.seen) / took.Seconds()
	if m.MFU = t.share(m.TokensPerSec); m.MFU > 1 {
		t.measureAgain()
		m.MFU = t.share(m.TokensPerSec)
	}
	m.Memory = peakMemory()
	return m
}

// share returns how much of the machine's FLOP rate a speed takes; 0 where that rate is not known.
func (t *Trainer) share(tokensPerSec float64) float64 {
	if t.peaks.FLOPs == 0 {
		return 0
	}
	return tokensPerSec * t.model.FLOPsPerToken(t.cfg.Mode == configs.Full) / t.peaks.FLOPs
}

// measureAgain measures the machine's limits once more, for a run that exceeded them: when they
// were measured the machine was busy. Once is enough, as large products do take less than their
// FLOPs.
func (t *Trainer) measureAgain() {
	if !t.peaksChecked {
		t.peaks, t.peaksChecked = profile.Again(t.backend, profile.CachePath()), true
	}
}

// report shows progress and keeps the metrics.
type report struct {
	t       *Trainer
	file    *os.File
	bar     *progressbar.ProgressBar // nil where nobody watches a terminal
	out     io.Writer
	started time.Time

	last   *metrics // of the step that the run goes on from; nil: of none
	lastAt int64    // where its line starts
}

func newReport(t *Trainer) (*report, error) {
	if err := os.MkdirAll(t.cfg.Out, 0o755); err != nil {
		return nil, err
	}
	path := filepath.Join(t.cfg.Out, metricsFile)
	last, lastAt, err := cutMetrics(path, t.state.Step)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	if err := replaceFile(filepath.Join(t.cfg.Out, configFile), t.cfg.YAML()); err != nil {
		f.Close()
		return nil, err
	}
	return &report{t: t, file: f, out: t.options.Out, last: last, lastAt: lastAt}, nil
}

// cutMetrics drops the lines of steps after the one that a run goes on from. It returns the
// metrics of that step, and where its line starts.
func cutMetrics(path string, step int) (last *metrics, at int64, err error) {
	f, err := files.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	var keep bytes.Buffer
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, math.MaxInt) // what is damaged may have no ends of lines
	for lines.Scan() {
		var m metrics
		if json.Unmarshal(lines.Bytes(), &m) == nil && m.Step <= step {
			if m.Step == step {
				last, at = &m, int64(keep.Len())
			}
			fmt.Fprintf(&keep, "%s\n", lines.Bytes())
		}
	}
	if err := errors.Join(lines.Err(), f.Close()); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	return last, at, replaceFile(path, keep.Bytes())
}

// again reports the step that the run goes on from once more, with what was missing.
func (r *report) again(m metrics) error {
	if err := os.Truncate(r.file.Name(), r.lastAt); err != nil {
		return err
	}
	return r.step(m)
}

// step shows a step and adds its line to the metrics. Errors name the file.
func (r *report) step(m metrics) error {
	if r.started.IsZero() {
		r.started = time.Now()
		if isTerminal(r.out) {
			r.bar = newBar(r.out, int64(r.t.steps), "training")
			_ = r.bar.Set(r.t.state.Step - 1) // a bar that cannot be drawn is no reason to stop
		}
	}
	every := r.t.cfg.Train.ReportEvery
	if r.bar != nil {
		r.bar.Describe(fmt.Sprintf("step %d loss %.4f", m.Step, m.Loss))
		_ = r.bar.Set(m.Step)
	}
	if m.Step == 1 || m.Step == r.t.steps || m.ValidLoss != nil || every > 0 && m.Step%every == 0 {
		r.line(m)
	}
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = r.file.Write(append(line, '\n'))
	return err
}

func (r *report) line(m metrics) {
	var b strings.Builder
	fmt.Fprintf(&b, "step %*d/%d  loss %.4f", digits(r.t.steps), m.Step, r.t.steps, m.Loss)
	if m.ValidLoss != nil {
		fmt.Fprintf(&b, "  valid %.4f", *m.ValidLoss)
	}
	fmt.Fprintf(&b, "  norm %.3f  lr %.2e  %6.0f tok/s  %5.1f ms", m.GradNorm, m.LR, m.TokensPerSec, m.StepMS)
	if m.MFU > 0 {
		fmt.Fprintf(&b, "  mfu %4.1f%%", 100*m.MFU)
	}
	r.printf("%s\n", &b)
}

// printf prints a line above the progress bar.
func (r *report) printf(format string, args ...any) {
	if r.bar != nil {
		_ = r.bar.Clear()
	}
	fmt.Fprintf(r.out, format, args...)
	if r.bar != nil {
		_ = r.bar.RenderBlank()
	}
}

func digits(n int) int { return len(fmt.Sprint(n)) }

func (r *report) saved(path string) { r.printf("saved %s\n", path) }

func (r *report) done(path string) {
	r.finishBar()
	what := "adapter"
	if r.t.cfg.Mode == configs.Full {
		what = "model"
	}
	fmt.Fprintf(r.out, "%s written to %s\n", what, path)
	fmt.Fprintf(r.out, "memory: peak %s, planned %s\n", units.Bytes(peakMemory()), units.Bytes(r.t.memory.total()))
}

func (r *report) finishBar() {
	if r.bar != nil {
		_ = r.bar.Clear()
		r.bar = nil
	}
}

func (r *report) close() {
	r.finishBar()
	r.file.Close()
}

// isTerminal says whether w is a terminal that somebody may watch.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func newBar(w io.Writer, n int64, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(n, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(true), progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionClearOnFinish())
}

// slowStart is how long something before training may take without a sign of
// life.
const slowStart = 500 * time.Millisecond

// Progress returns a callback that shows a bar on a terminal once something
// has taken a while; nil elsewhere.
func Progress(w io.Writer, what string) func(done, total int64) {
	if !isTerminal(w) {
		return nil
	}
	began := time.Now()
	var bar *progressbar.ProgressBar
	return func(done, total int64) {
		if bar == nil && time.Since(began) > slowStart && done < total {
			bar = newBar(w, total, what)
		}
		if bar != nil {
			_ = bar.Set64(done)
		}
	}
}

// showProfile prints where the time went.
func (t *Trainer) showProfile() {
	_ = t.prof.Table(t.options.Out, t.peaks) // what cannot be printed is no reason to stop, here and elsewhere
}

// summary prints what will happen before it does.
func (t *Trainer) summary() {
	w := bufio.NewWriter(t.options.Out)
	info, d := t.backend.Info(), t.model.Decoder
	fmt.Fprintf(w, "model    %s: %s, %d layers, hidden %d, vocabulary %d, %s weights\n", t.cfg.Model, d.Family, len(d.Layers),
		d.Hidden, d.Vocab, count(t.model.Parameters()))
	trainable := t.in.Params.Len()
	switch {
	case t.cfg.Mode == configs.Full:
		fmt.Fprintf(w, "trains   all weights\n")
	default:
		fmt.Fprintf(w, "trains   %s of them: LoRA rank %d, alpha %g on %s\n", fmt.Sprintf("%s, %.2f %%", count(trainable),
			100*float64(trainable)/float64(t.model.Parameters())), t.lora.Rank, t.lora.Alpha, t.lora.Targets)
	}
	fmt.Fprintf(w, "data     %s: %d examples, %d tokens, %d trained", t.cfg.Data.Train, t.trainSet.Len(), t.trainSet.Tokens(), t.trainSet.Trained())
	if n := t.trainSet.Truncated(); n > 0 {
		fmt.Fprintf(w, "; %d truncated to %d tokens", n, t.cfg.Data.MaxLength)
	}
	if n := t.trainSet.Dropped(); n > 0 {
		fmt.Fprintf(w, "; %d dropped, over %d tokens", n, t.cfg.Data.MaxLength)
	}
	if t.validSet != nil {
		fmt.Fprintf(w, "; validation: %d examples, %d tokens", t.validSet.Len(), t.validSet.Tokens())
	}
	fmt.Fprintf(w, "\nsteps    %d of %d × %d sequences, %d an epoch", t.steps, t.cfg.Train.BatchSize, t.cfg.Train.Accumulate, t.loader.StepsPerEpoch())
	if t.state.Step > 0 {
		fmt.Fprintf(w, "; resumed after step %d", t.state.Step)
	}
	fmt.Fprintf(w, "\nbackend  %s, %s\nmemory   %s: %s\n\n", info.Name, info.Detail, units.Bytes(t.memory.total()), t.memory)
	_ = w.Flush()
}

// count prints a number of parameters for people.
func count(n int) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2fB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1fM", float64(n)/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0fK", float64(n)/1e3)
	}
	return fmt.Sprint(n)
}
