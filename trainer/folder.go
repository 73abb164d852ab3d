package trainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Names in the folder of a run, besides those of report.go.
const (
	checkpointFolder = "checkpoints"
	adapterFolder    = "adapter"
	modelFolder      = "model"
	profileFile      = "profile.json"
	lockFile         = ".lock"
)

// look returns what is in the folder that the run is to have, which must be
// nothing, or a run's.
func (t *Trainer) look() ([]os.DirEntry, error) {
	out := t.cfg.Out
	if to, err := os.Readlink(out); err == nil {
		return nil, fmt.Errorf("out: %s is a link: name the folder itself, %s", out, to)
	}
	entries, err := os.ReadDir(out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("out: %w", err)
	}
	if len(entries) > 0 && !isRun(entries) {
		return nil, fmt.Errorf("out: %s is not empty and holds no run: choose another folder", out)
	}
	if run := owner(out); run != "" {
		return nil, fmt.Errorf("out: %s is where the run in %s keeps its results, and replaces them: choose another folder", out, run)
	}
	return entries, nil
}

// owner returns the run that writes and removes folders where out is or is to be, "" where
// none does.
func owner(out string) string {
	path, err := filepath.Abs(out)
	for err == nil && filepath.Dir(path) != path {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		run := filepath.Dir(path)
		switch filepath.Base(path) {
		case checkpointFolder, adapterFolder, modelFolder:
			if entries, err := os.ReadDir(run); err == nil && isRun(entries) {
				return run
			}
		}
		path = run
	}
	return ""
}

// take makes the folder this run's. What is not a run's stays as it is.
func (t *Trainer) take() (err error) {
	if _, err := t.look(); err != nil {
		return err
	}
	t.lock, err = lock(t.cfg.Out)
	return err
}

// inPlace says whether an open file is still the one of its name.
func inPlace(f *os.File) bool {
	now, err := os.Stat(f.Name())
	if err != nil {
		return false
	}
	then, err := f.Stat()
	return err == nil && os.SameFile(now, then)
}

// holds returns an error where the folder is no longer the one that the run has locked: by
// that name there is none now, or another run's.
func (t *Trainer) holds() error {
	if inPlace(t.lock) {
		return nil
	}
	return fmt.Errorf("step %d: out: %s was renamed or removed during the run, or its %s was, so nothing more is saved there: "+
		"give it its name back and continue with -resume, or start again", t.state.Step, t.cfg.Out, lockFile)
}

// isRun says whether entries are those of a run: nothing else, or what every run has,
// and what somebody put there.
func isRun(entries []os.DirEntry) bool {
	strange := 0
	has := map[string]bool{}
	for _, e := range entries {
		has[e.Name()] = true
		switch strings.TrimSuffix(e.Name(), ".tmp") {
		case checkpointFolder, adapterFolder, modelFolder, profileFile, lockFile, metricsFile, configFile:
		default:
			strange++
		}
	}
	return has[lockFile] && (strange == 0 || has[metricsFile] && has[configFile])
}

// setAside renames what an earlier run left in the folder, so that a new run in the
// same place destroys nothing. With -resume a run that came to no checkpoint, nor to a
// result, is begun again where it is.
func (t *Trainer) setAside() error {
	entries, err := t.look()
	if err != nil {
		return err
	}
	begun := func(e os.DirEntry) bool { return e.Name() != lockFile }
	done := func(e os.DirEntry) bool { return e.Name() == adapterFolder || e.Name() == modelFolder }
	if !slices.ContainsFunc(entries, begun) || t.options.Resume && !slices.ContainsFunc(entries, done) {
		return nil
	}
	out, err := filepath.Abs(t.cfg.Out)
	if err != nil {
		return fmt.Errorf("out: %w", err)
	}
	const advice = "which is renamed before a new run begins there, to keep the earlier one: choose another folder with -out"
	if wd, err := os.Getwd(); err == nil && within(wd, out) {
		return fmt.Errorf("out: the current folder is in %s, %s", t.cfg.Out, advice)
	}
	for _, in := range []struct{ key, path string }{
		{"model", t.cfg.Model}, {"data.train", t.cfg.Data.Train}, {"data.valid", t.cfg.Data.Valid}, {"lora.adapter", t.cfg.LoRA.Adapter},
	} {
		if path, err := filepath.Abs(in.path); in.path != "" && err == nil && within(path, out) {
			return fmt.Errorf("out: %s is in %s, %s", in.key, t.cfg.Out, advice)
		}
	}
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.old-%d", t.cfg.Out, i)
		if _, err := os.Lstat(aside); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err := os.Rename(t.cfg.Out, aside); err != nil {
			return fmt.Errorf("out: an earlier run in %s cannot be kept under another name: %w: choose another folder with -out", t.cfg.Out, err)
		}
		t.options.Log.Info("an earlier run is kept", "as", aside)
		t.lock.Close()
		t.lock, err = lock(t.cfg.Out)
		return err
	}
}

// replaceFile writes a file that appears whole, in the place of one that may be there.
func replaceFile(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return os.Rename(tmp, path)
}

// within says whether a path is a folder or in it, links followed.
func within(path, folder string) bool {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
