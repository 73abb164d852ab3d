// Package trainer runs a fine-tuning job: it brings model, data, adapters,
// optimizer and backend together, and loops over the steps.
//
// loop.go is the training loop. The rest is what stands around it: opening
// everything (this file), the memory plan and the summary before the run
// (memory.go), what it finds in its folder (folder.go), what is saved and how a
// run goes on (state.go), progress and metrics (report.go), answers to sample
// prompts (sample.go).
//
// All that a run computes depends on the config, the model and the data only:
// never on the time, on scheduling, or on where it was interrupted.
package trainer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"graft/checkpoints"
	"graft/configs"
	"graft/data"
	"graft/kernels"
	"graft/lora"
	"graft/model"
	"graft/model/stored"
	"graft/optim"
	"graft/profile"
	"graft/program"
	"graft/tokenizer"
)

// Options are what a run has besides its config.
type Options struct {
	Resume bool
	Out    io.Writer        // where the run reports to
	Log    *slog.Logger     // what is worth knowing, and warnings
	Show   <-chan os.Signal // asks for the profile so far; may be nil

	backend kernels.Backend // in the place of the config's, for tests
}

// Trainer is one run.
type Trainer struct {
	cfg     *configs.Config
	options Options

	model      *model.Model
	companions []string // files of the model that a result takes over
	tok        *tokenizer.Tokenizer
	backend    kernels.Backend
	in         *model.Instance
	lora       lora.Config // of the adapters, in mode lora

	prompts            []prompt
	trainSet, validSet *data.Set
	loader             *data.Loader
	batch              data.Batch
	steps              int
	schedule           optim.Schedule
	update             *optim.Update

	trainRun, evalRun, inferRun          *model.Run
	memory                               memoryPlan
	prof                                 *profile.Profile
	recordStep, recordUpdate, recordEval *profile.Recorder
	peaks                                profile.Peaks
	peaksChecked                         bool // measured again

	lock    *os.File                // on the run's folder
	resumed *checkpoints.Checkpoint // that the run goes on from; nil: from the start
	last    string                  // path of the newest checkpoint; "": none yet
	state   state
	prints  fingerprints
	report  *report
}

// ErrInterrupted says that a run was stopped from outside, after what it had
// reached was saved.
var ErrInterrupted = errors.New("interrupted")

// Run runs the job that cfg describes, until it is done or ctx is cancelled.
func Run(ctx context.Context, cfg *configs.Config, o Options) (err error) {
	t := &Trainer{cfg: cfg, options: o, prof: profile.New()}
	defer t.close()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			err = t.fault(v)
		}
	}()
	if err := t.open(ctx); errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w while the data was read: nothing to save", ErrInterrupted)
	} else if err != nil {
		return err
	}
	if err := t.begin(); err != nil {
		return err
	}
	t.summary()
	err = t.train(ctx)
	if errors.Is(err, context.Canceled) {
		return t.interrupted()
	}
	if err != nil {
		return err
	}
	return t.finish(ctx)
}

// fault explains a panic for memory that is not there, if a file of the model is mapped to
// it: it has become shorter. It goes on with any other.
func (t *Trainer) fault(v any) error {
	memory, ok := v.(interface{ Addr() uintptr })
	if !ok || t.model == nil {
		panic(v)
	}
	file := t.model.FileAt(memory.Addr())
	if file == "" {
		panic(v)
	}
	again := "start again"
	if t.lock != nil {
		again = fmt.Sprintf("continue from %s with -resume", t.lastCheckpoint())
	}
	return fmt.Errorf("step %d: %s was cut off while it was in use: restore it, then %s", t.state.Step+1, file, again)
}

// train answers the sample prompts before the first step, and runs the loop.
func (t *Trainer) train(ctx context.Context) error {
	if t.state.Step == 0 {
		if err := t.sample(ctx, "before training"); err != nil {
			return err
		}
	}
	return t.loop(ctx)
}

func (t *Trainer) close() {
	if t.report != nil {
		t.report.close()
	}
	if t.lock != nil {
		t.lock.Close()
	}
	if t.backend != nil {
		t.backend.Close()
	}
	if t.model != nil {
		t.model.Close()
	}
}

// open loads model and data and plans the run. What is quickly found to be wrong comes before
// the data, which take their time.
func (t *Trainer) open(ctx context.Context) (err error) {
	cfg := t.cfg
	if t.model, err = model.Open(cfg.Model); err != nil {
		return err
	}
	if keys := t.model.Dropout; len(keys) > 0 {
		t.options.Log.Warn("config.json asks for dropout within the model: it is not applied, only lora.dropout is", "keys", strings.Join(keys, ", "))
	}
	t.companions = t.model.Companions()
	if t.tok, err = tokenizer.Load(t.model.Dir); err != nil {
		return err
	}
	if err := t.openPrompts(); err != nil {
		return err
	}
	if t.backend = t.options.backend; t.backend == nil {
		if t.backend, err = t.newBackend(); err != nil {
			return err
		}
	}
	if err := t.take(); err != nil {
		return err
	}
	if err := t.find(); err != nil {
		return err
	}
	o := model.Options{Full: cfg.Mode == configs.Full, Seed: cfg.Seed}
	if !o.Full {
		if o.Adapters, err = t.adapters(); err != nil {
			return err
		}
	}
	if err := t.openData(ctx); err != nil {
		return err
	}
	if t.in, err = t.model.Place(t.backend, o); err != nil {
		return err
	}
	t.loader = data.NewLoader(t.trainSet.Len(), data.LoaderOptions{Seed: cfg.Seed, Shuffle: cfg.Data.Shuffle,
		BatchSize: cfg.Train.BatchSize, Accumulate: cfg.Train.Accumulate})
	if err := t.planSteps(); err != nil {
		return err
	}
	t.trainRun, t.evalRun, t.inferRun = t.in.Train(cfg.Train.Recompute == configs.Block), t.in.Eval(), t.in.Infer()
	a := cfg.Optimizer
	t.update, err = optim.NewUpdate(t.backend, t.in.Params, optim.AdamW{Beta1: a.Betas[0], Beta2: a.Betas[1], Eps: a.Eps,
		WeightDecay: a.WeightDecay, Clip: a.Clip})
	if err != nil {
		return err
	}
	t.peaks = profile.Measure(t.backend, profile.CachePath())
	if err := t.planMemory(); err != nil {
		return err
	}
	t.recordStep = t.prof.Recorder(t.trainRun.Ops, t.trainRun.Labels)
	t.recordUpdate = t.prof.Recorder(t.update.Ops, t.update.Labels)
	t.recordEval = t.prof.Recorder(t.evalRun.Ops, t.evalRun.Labels)
	return nil
}

func (t *Trainer) openData(ctx context.Context) (err error) {
	if _, ok := t.EOS(); !ok {
		why := "neither tokenizer nor config.json names one"
		if len(t.model.EOS) > 1 {
			why = fmt.Sprintf("config.json names several, %v, and tokenizer_config.json says of none that it is eos_token", t.model.EOS)
		}
		t.options.Log.Warn("no end-of-sequence token is appended, so the model does not learn where to stop: " + why)
	}
	if t.trainSet, err = t.load(ctx, t.cfg.Data.Train); err != nil {
		return err
	}
	if t.cfg.Data.Valid != "" {
		t.validSet, err = t.load(ctx, t.cfg.Data.Valid)
	}
	if limit, n := t.model.MaxPositions, t.trainSet.Longest(); limit > 0 && n > limit && err == nil {
		t.options.Log.Warn("some examples are longer than the model was made for", "longest", n, "max_position_embeddings", limit)
	}
	return err
}

func (t *Trainer) load(ctx context.Context, path string) (*data.Set, error) {
	d := t.cfg.Data
	set, err := data.Load(ctx, path, t, data.Options{
		Format: data.Format(d.Format), MaskPrompt: d.MaskPrompt, MaxLength: d.MaxLength, TooLong: data.TooLong(d.TooLong),
		VocabSize: t.model.Vocab, Progress: Progress(t.options.Out, "tokenizing "+filepath.Base(path)),
	})
	return set, errors.Join(err, t.tok.Err())
}

// Encode implements data.Tokenizer.
func (t *Trainer) Encode(text string, special bool) []int32 { return t.tok.Encode(text, special) }

// EOS implements data.Tokenizer: the token that the tokenizer names, or else
// the one that config.json does, if it is only one.
func (t *Trainer) EOS() (int32, bool) {
	if eos, ok := t.tok.EOS(); ok {
		return eos, true
	}
	if len(t.model.EOS) == 1 {
		return t.model.EOS[0], true
	}
	return 0, false
}

// adapters says which layers are adapted: as the config does, or as the
// adapter does that training starts from.
func (t *Trainer) adapters() (map[string]model.Adapter, error) {
	c := t.cfg.LoRA
	t.lora = lora.Config{Rank: c.Rank, Alpha: c.Alpha, Dropout: c.Dropout, RSLoRA: false,
		Targets: lora.Targets{Names: c.Targets.Names, Pattern: c.Targets.Pattern}, Layers: c.Layers.Resolve(len(t.model.Layers))}
	if c.Adapter != "" {
		dir, how := c.Adapter, "starting from an adapter, whose rank, alpha and targets hold"
		if t.resumed != nil { // what has become of the first one no longer matters
			dir, how = t.resumed.Path, "resuming the adapter of a checkpoint, whose rank, alpha and targets hold"
		}
		from, err := lora.ReadConfig(dir)
		if err != nil {
			return nil, err
		}
		from.Dropout = c.Dropout
		t.lora = from
		t.options.Log.Info(how, "adapter", dir)
	}
	a, err := t.lora.Adapters(t.model.Decoder)
	if err != nil {
		return nil, fmt.Errorf("lora: %w", err)
	}
	if l := &t.cfg.LoRA; l.Adapter != "" { // what is written down is what holds
		names, layers := t.lora.TargetList(t.model.Decoder, a)
		l.Rank, l.Alpha, l.Targets, l.Layers = t.lora.Rank, t.lora.Alpha, configs.Targets{Names: names}, configs.Layers{List: layers}
	}
	return a, nil
}

// planSteps settles how many steps the run has, and the schedule over them.
func (t *Trainer) planSteps() error {
	c := t.cfg
	perEpoch := t.loader.StepsPerEpoch()
	t.steps = c.Train.Steps
	if t.steps == 0 {
		steps := math.Ceil(c.Train.Epochs * float64(perEpoch))
		if steps > math.MaxInt32 {
			return fmt.Errorf("train.epochs: %v epochs of %d steps are too many", c.Train.Epochs, perEpoch)
		}
		t.steps = int(steps)
	}
	t.schedule = optim.Schedule{Shape: optim.Shape(c.Optimizer.Schedule), LR: c.Optimizer.LR, Min: c.Optimizer.MinLR,
		Warmup: c.Optimizer.Warmup.Steps(t.steps), Steps: t.steps}
	return nil
}

// begin brings parameters and optimizer to where the run starts or goes on.
func (t *Trainer) begin() (err error) {
	t.prints = t.fingerprint()
	if c := t.resumed; c != nil {
		if err := t.restore(c); err != nil {
			return fmt.Errorf("cannot resume from %s: %w", c.Path, err)
		}
	}
	if t.state.Step == 0 {
		if err := t.initialize(); err != nil {
			return err
		}
		if err := t.setAside(); err != nil { // once there is a run to make room for
			return err
		}
	}
	t.report, err = newReport(t)
	return err
}

func (t *Trainer) initialize() error {
	if t.cfg.Mode == configs.Full {
		return nil // Place has loaded the weights
	}
	if dir := t.cfg.LoRA.Adapter; dir != "" {
		if err := lora.Load(dir, t.in); err != nil {
			return err
		}
		if err := t.checkParameters(); err != nil {
			return fmt.Errorf("lora.adapter: %s is damaged: %w", dir, err)
		}
		return nil
	}
	lora.Initialize(t.in, t.cfg.LoRA.Init, t.cfg.Seed)
	return nil
}

// notFinite explains a loss or norm that is no number. The parameters are not
// saved; the newest checkpoint is from before.
func (t *Trainer) notFinite(step int, what string, v float64) error {
	if err := t.model.CheckFinite(); err != nil {
		return fmt.Errorf("step %d: the %s is %v, because the model's weights are damaged: %w", step, what, v, err)
	}
	return t.diverged(step, fmt.Sprintf("the %s is %v", what, v))
}

// diverged says what can be done where training has left the numbers.
func (t *Trainer) diverged(step int, what string) error {
	clip := fmt.Sprintf("optimizer.clip (now %g)", t.cfg.Optimizer.Clip)
	if t.cfg.Optimizer.Clip == 0 {
		clip = "set optimizer.clip"
	}
	from := ""
	if t.last != "" && t.cfg.Mode != configs.Full {
		from = fmt.Sprintf("; to start from what was reached, with lora.adapter=%s and another -out", t.last)
	}
	return fmt.Errorf("step %d: %s: training has diverged; lower optimizer.lr (now %g) or %s, and start a new run%s", step, what, t.cfg.Optimizer.LR, clip, from)
}

// checkParameters returns an error if some trained value is not finite.
func (t *Trainer) checkParameters() error {
	var all []stored.Tensor
	for _, q := range t.in.Params.List() {
		all = append(all, lora.Stored(&q.Value.Tensor))
	}
	return model.CheckFinite(all)
}

// interrupted saves what the run has reached.
func (t *Trainer) interrupted() error {
	if t.state.Step == 0 {
		return fmt.Errorf("%w before the first step: nothing to save", ErrInterrupted)
	}
	if err := t.save(); err != nil {
		return err
	}
	return fmt.Errorf("%w after step %d: saved %s; continue with -resume", ErrInterrupted, t.state.Step, t.lastCheckpoint())
}

// finish writes what the user came for.
func (t *Trainer) finish(ctx context.Context) error {
	dir, err := t.export()
	if err != nil {
		return err
	}
	t.report.done(dir)
	if err := t.sample(ctx, "after training"); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	if !t.cfg.Profile || t.resumed != nil && t.resumed.Step == t.steps { // a finished run keeps its profile
		return nil
	}
	if t.prof.Exceeds(t.peaks) {
		t.measureAgain()
	}
	var b bytes.Buffer
	if err := t.prof.JSON(&b, t.peaks); err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(t.cfg.Out, profileFile), b.Bytes()); err != nil {
		return err
	}
	fmt.Fprintln(t.options.Out)
	t.showProfile()
	return nil
}

// counts is the largest micro-batch of the run.
func (t *Trainer) counts() (train, eval program.Counts) {
	train.Tokens, train.LossRows, train.Sequences = t.loader.Capacity(t.trainSet, t.steps)
	if t.validSet != nil {
		for i := 0; i < t.validSet.Len(); i += t.cfg.Train.BatchSize {
			tokens, rows, n := t.validSet.Size(sequence(i, min(i+t.cfg.Train.BatchSize, t.validSet.Len())))
			eval.Tokens, eval.LossRows, eval.Sequences = max(eval.Tokens, tokens), max(eval.LossRows, rows), max(eval.Sequences, n)
		}
	}
	return train, eval
}
