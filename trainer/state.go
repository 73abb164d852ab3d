package trainer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"graft/checkpoints"
	"graft/configs"
	"graft/data"
	"graft/lora"
	"graft/model"
	"graft/model/safetensors"
	"graft/model/stored"
)

// state is what a run has reached, besides parameters and moments. Positions
// follow from the step, so that nothing random is carried.
type state struct {
	Step        int           `json:"step"`         // optimizer steps done
	TokensTotal int64         `json:"tokens_total"` // trained tokens so far
	Position    data.Position `json:"position"`     // of the next example, for people
	Prints      fingerprints  `json:"fingerprints"`
}

// fingerprints identify what a run computes with.
type fingerprints struct {
	Model   string `json:"model"`
	Train   string `json:"train"`
	Valid   string `json:"valid,omitempty"`
	Backend string `json:"backend"` // and its floating type

	Arithmetic string `json:"arithmetic,omitempty"` // of its last bits; another is no reason to refuse
}

// The files of a checkpoint, besides those of the adapter or the model.
const (
	stateFile     = "state.json"
	configFile    = "config.yaml"
	optimizerFile = "optimizer.safetensors"
	modelFile     = "model.safetensors"
)

func (t *Trainer) fingerprint() fingerprints {
	info := t.backend.Info()
	f := fingerprints{Model: t.model.Fingerprint(), Train: t.trainSet.Hash(), Backend: fmt.Sprintf("%s, %v", info.Name, info.Activations()), Arithmetic: info.Arithmetic}
	if t.validSet != nil {
		f.Valid = t.validSet.Hash()
	}
	return f
}

func (t *Trainer) checkpointDir() string { return filepath.Join(t.cfg.Out, checkpointFolder) }

// lastCheckpoint says where the run can go on from.
func (t *Trainer) lastCheckpoint() string { return cmp.Or(t.last, "the beginning") }

// save writes a checkpoint of the state.
func (t *Trainer) save() error {
	if err := t.checkParameters(); err != nil {
		return t.diverged(t.state.Step, err.Error())
	}
	if err := t.holds(); err != nil {
		return err
	}
	t.state.Prints = t.prints
	t.state.Position = t.loader.Position(t.state.Step)
	stateJSON, err := json.MarshalIndent(t.state, "", " ")
	if err != nil {
		return err
	}
	files := append(t.resultFiles(),
		checkpoints.File{Name: optimizerFile, Write: t.writeMoments},
		bytesFile(configFile, t.cfg.YAML()),
		bytesFile(stateFile, stateJSON))
	path, err := checkpoints.Save(t.checkpointDir(), t.state.Step, files, t.cfg.Train.Keep)
	t.last = cmp.Or(path, t.last)
	if err != nil {
		return t.mend(fmt.Errorf("checkpoint of step %d: %w; what was saved before is untouched", t.state.Step, err))
	}
	t.report.saved(path)
	return nil
}

// mend says how a run goes on that something outside of it has ended.
func (t *Trainer) mend(err error) error {
	return fmt.Errorf("%w: mend this, then continue from %s with -resume", err, t.lastCheckpoint())
}

func bytesFile(name string, b []byte) checkpoints.File {
	return checkpoints.File{Name: name, Write: func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	}}
}

// resultFiles are what other programs load: a PEFT adapter, or a whole model.
func (t *Trainer) resultFiles() []checkpoints.File {
	if t.cfg.Mode == configs.Full {
		return []checkpoints.File{{Name: modelFile, Write: func(w io.Writer) error {
			return safetensors.WriteTo(w, t.in.Trained(), map[string]string{"format": "pt"})
		}}}
	}
	return []checkpoints.File{
		{Name: lora.ConfigFile, Write: func(w io.Writer) error { return t.lora.WriteConfig(w, t.model.Decoder, t.model.Dir) }},
		{Name: lora.WeightsFile, Write: func(w io.Writer) error { return lora.WriteWeights(w, t.in) }},
	}
}

const (
	firstMoment  = "m."
	secondMoment = "v."
)

func (t *Trainer) writeMoments(w io.Writer) error {
	var out []stored.Tensor
	for _, q := range t.in.Params.List() {
		m, v := lora.Stored(&q.M), lora.Stored(&q.V)
		m.Name, v.Name = firstMoment+q.Name, secondMoment+q.Name
		out = append(out, m, v)
	}
	return safetensors.WriteTo(w, out, nil)
}

// find looks for the checkpoint that a resumed run goes on from: the newest valid one, or
// none where there is none yet.
func (t *Trainer) find() error {
	if !t.options.Resume {
		return nil
	}
	c, skipped, err := checkpoints.Latest(t.checkpointDir())
	for _, s := range skipped {
		t.options.Log.Warn("skipping a damaged checkpoint", "path", s.Path, "reason", s.Reason)
	}
	if errors.Is(err, checkpoints.ErrNone) {
		if len(skipped) > 0 {
			return fmt.Errorf("%s: no valid checkpoint is left: bring one back, or start again without -resume, which keeps this run under another name", t.checkpointDir())
		}
		t.options.Log.Info("no checkpoint to resume from: starting at the beginning", "folder", t.checkpointDir())
		return nil
	}
	if err != nil {
		return err
	}
	t.resumed, t.last = c, c.Path
	return nil
}

func (t *Trainer) restore(c *checkpoints.Checkpoint) error {
	b, err := c.ReadFile(stateFile)
	if err != nil {
		return err
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s: %w", stateFile, err)
	}
	if err := t.comparable(c, s.Prints); err != nil {
		return err
	}
	if s.Step != c.Step || s.Step < 0 {
		return fmt.Errorf("%s: step %d in the folder of step %d", stateFile, s.Step, c.Step)
	}
	if s.Step > t.steps {
		return fmt.Errorf("it has %d steps, the run only %d", s.Step, t.steps)
	}
	if err := t.restoreParameters(c); err != nil {
		return err
	}
	if err := t.restoreMoments(c); err != nil {
		return err
	}
	t.state = s
	return nil
}

// comparable refuses to go on with anything that would change the result; where only last bits
// change, it says so.
func (t *Trainer) comparable(c *checkpoints.Checkpoint, p fingerprints) error {
	b, err := c.ReadFile(configFile)
	if err != nil {
		return err
	}
	old, err := configs.Parse(b)
	if err != nil {
		return fmt.Errorf("%s: %w", configFile, err)
	}
	if old.LoRA.Adapter != "" { // the checkpoint's adapter says what they are; older runs wrote down what had been set
		old.LoRA.Targets, old.LoRA.Layers = t.cfg.LoRA.Targets, t.cfg.LoRA.Layers
	}
	var errs []error
	for _, d := range configs.Diff(old, t.cfg) {
		if !d.Harmless {
			errs = append(errs, fmt.Errorf("%s was %s and is now %s: %s", d.Key, d.Old, d.New, d.Reason))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	if p.Valid == "" || t.prints.Valid == "" { // validation may come and go
		p.Valid = t.prints.Valid
	}
	for _, f := range []struct{ what, old, now string }{
		{"the model " + t.cfg.Model, p.Model, t.prints.Model},
		{"the training data " + t.cfg.Data.Train, p.Train, t.prints.Train},
		{"the validation data " + t.cfg.Data.Valid, p.Valid, t.prints.Valid},
		{"the backend", p.Backend, t.prints.Backend},
	} {
		if f.old != f.now {
			errs = append(errs, fmt.Errorf("%s has changed since: it was %s and is now %s", f.what, short(f.old), short(f.now)))
		}
	}
	if was, now := p.Arithmetic, t.prints.Arithmetic; was != now && was != "" && len(errs) == 0 {
		t.options.Log.Warn("results go on in other last bits than before, so they are not those of an undisturbed run", "before", was, "now", now)
	}
	return errors.Join(errs...)
}

// short abbreviates a hash.
func short(s string) string {
	if len(s) > 20 {
		return s[:12] + "…"
	}
	return s
}

func (t *Trainer) restoreParameters(c *checkpoints.Checkpoint) error {
	if t.cfg.Mode == configs.Full {
		return t.in.LoadTrained(c.File(modelFile))
	}
	return lora.Load(c.Path, t.in)
}

func (t *Trainer) restoreMoments(c *checkpoints.Checkpoint) error {
	f, err := safetensors.Open(c.File(optimizerFile))
	if err != nil {
		return err
	}
	defer f.Close()
	for _, q := range t.in.Params.List() {
		if err := model.Fill(&q.M, f, firstMoment+q.Name); err != nil {
			return err
		}
		if err := model.Fill(&q.V, f, secondMoment+q.Name); err != nil {
			return err
		}
	}
	return nil
}

// export writes the result into the run's folder, under a name that stays the
// same.
func (t *Trainer) export() (string, error) {
	if err := t.holds(); err != nil {
		return "", err
	}
	name := adapterFolder
	result := t.resultFiles()
	if t.cfg.Mode == configs.Full {
		name = modelFolder
		for _, n := range t.companions {
			result = append(result, checkpoints.File{Name: n, Write: func(w io.Writer) error { return t.in.WriteCompanion(w, n) }})
		}
	}
	dir := filepath.Join(t.cfg.Out, name)
	if err := checkpoints.WriteFolder(dir, result); err != nil {
		return "", t.mend(fmt.Errorf("%s: %w", dir, err))
	}
	return dir, nil
}
