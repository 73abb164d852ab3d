// Package checkpoints saves folders of files so that a crash at any moment
// leaves whole ones only: a checkpoint is written under a temporary name,
// every file and the folder are synced, and only then is it renamed to
// step-000100. A manifest with the size and SHA-256 of every file, written
// last, is what makes a folder a checkpoint; Latest checks it and passes over
// what does not hold.
//
//	path, err := checkpoints.Save("runs/x/checkpoints", 100, files, 3)
//	c, skipped, err := checkpoints.Latest("runs/x/checkpoints")
//
// The package knows nothing of what the files hold.
package checkpoints

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"graft/internal/files"
)

// File is one file of a folder to be written.
type File struct {
	Name  string
	Write func(w io.Writer) error
}

// ErrNone says that a folder holds no valid checkpoint.
var ErrNone = errors.New("no checkpoint")

const (
	manifestFile = "manifest.json"
	prefix       = "step-"
	tmpPrefix    = ".tmp-"
	oldPrefix    = ".old-"
	version      = 1
)

// manifest lists what a checkpoint consists of.
type manifest struct {
	Version int              `json:"version"`
	Step    int              `json:"step"`
	Files   map[string]entry `json:"files"`
}

type entry struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Save writes the checkpoint of a step into dir and then removes all but the
// keep newest sound ones (0: none). On an error, what was there before is untouched.
func Save(dir string, step int, files []File, keep int) (string, error) {
	if err := makeDir(dir); err != nil {
		return "", err
	}
	if err := sweep(dir); err != nil {
		return "", err
	}
	name := stepName(step)
	path := filepath.Join(dir, name)
	tmp := filepath.Join(dir, tmpPrefix+name)
	if err := writeAll(tmp, step, files); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := replace(tmp, path); err != nil {
		return "", err
	}
	return path, rotate(dir, step, keep)
}

// makeDir makes a folder that is still there after a crash.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// WriteFolder writes files as a folder that appears whole, in the place of one
// that may be there.
func WriteFolder(path string, files []File) error {
	dir, name := filepath.Split(filepath.Clean(path))
	tmp := filepath.Join(dir, tmpPrefix+name)
	if err := errors.Join(restore(dir, name), os.RemoveAll(tmp)); err != nil {
		return err
	}
	if _, err := writeFiles(tmp, files); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	return replace(tmp, path)
}

func writeAll(tmp string, step int, files []File) error {
	entries, err := writeFiles(tmp, files)
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(manifest{version, step, entries}, "", " ")
	if err != nil {
		return err
	}
	_, err = writeFile(tmp, File{manifestFile, func(w io.Writer) error {
		_, err := w.Write(append(b, '\n'))
		return err
	}})
	if err != nil {
		return err
	}
	return syncDir(tmp)
}

func writeFiles(dir string, files []File) (map[string]entry, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	entries := map[string]entry{}
	for _, f := range files {
		if _, twice := entries[f.Name]; twice || !plain(f.Name) || f.Name == manifestFile {
			panic(fmt.Sprintf("checkpoints: file name %q", f.Name))
		}
		e, err := writeFile(dir, f)
		if err != nil {
			return nil, err
		}
		entries[f.Name] = e
	}
	return entries, syncDir(dir)
}

// writeFile writes and syncs one file, and returns its size and hash.
func writeFile(dir string, f File) (e entry, err error) {
	out, err := os.OpenFile(filepath.Join(dir, f.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return e, err
	}
	defer func() {
		if cerr := out.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			err = fmt.Errorf("writing %s: %w, after %d bytes", f.Name, err, e.Size)
		}
	}()
	hash := sha256.New()
	counter := &counting{w: out, n: &e.Size}
	buffer := bufio.NewWriterSize(io.MultiWriter(counter, hash), 1<<20)
	if err := f.Write(buffer); err != nil {
		return e, err
	}
	if err := buffer.Flush(); err != nil {
		return e, err
	}
	e.SHA256 = hex.EncodeToString(hash.Sum(nil))
	return e, out.Sync()
}

type counting struct {
	w io.Writer
	n *int64
}

func (c *counting) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	*c.n += int64(n)
	return n, err
}

// replace renames tmp to path. What was there is renamed first and removed
// last, so that at each moment one of the two is whole on disk.
func replace(tmp, path string) error {
	dir := filepath.Dir(path)
	old := filepath.Join(dir, oldPrefix+filepath.Base(path))
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(path, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(err, restore(dir, filepath.Base(path)))
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}

// restore gives a folder that was about to be replaced its name back, if there
// is no new one.
func restore(dir, name string) error {
	if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	err := os.Rename(filepath.Join(dir, oldPrefix+name), filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// sweep removes what crashed runs left under temporary names. A checkpoint
// that was about to be replaced gets its name back.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if step, ok := strings.CutPrefix(name, oldPrefix); ok && isStep(step) {
			if err := errors.Join(restore(dir, step), os.RemoveAll(filepath.Join(dir, name))); err != nil {
				return err
			}
		}
		if step, ok := strings.CutPrefix(name, tmpPrefix); ok && isStep(step) {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

func stepName(step int) string { return fmt.Sprintf("%s%06d", prefix, step) }

func isStep(name string) bool {
	_, ok := stepOf(name)
	return ok
}

func stepOf(name string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	if !ok || len(digits) < 6 {
		return 0, false
	}
	n, err := strconv.Atoi(digits)
	return n, err == nil && n >= 0 && fmt.Sprintf("%06d", n) == digits
}

// list returns the steps of the checkpoints in dir, valid or not, newest first.
func list(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var steps []int
	for _, e := range entries {
		if n, ok := stepOf(e.Name()); ok {
			steps = append(steps, n)
		}
	}
	slices.SortFunc(steps, func(a, b int) int { return b - a })
	return steps, nil
}

// rotate removes all but the keep newest checkpoints. The one of step, just
// written, stays; later ones, of a run that was since resumed from an earlier
// step, count as newer. A damaged folder counts for nothing, and goes once
// there are keep checkpoints that are newer.
func rotate(dir string, step, keep int) error {
	if keep <= 0 {
		return nil
	}
	steps, err := list(dir)
	if err != nil {
		return err
	}
	kept := 0
	for _, n := range steps {
		path := filepath.Join(dir, stepName(n))
		if kept < keep {
			if sound(path, n) {
				kept++
			}
			continue
		}
		if n != step {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// Checkpoint is a folder whose files are as they were written.
type Checkpoint struct {
	Path string
	Step int

	files map[string]entry
}

// Skipped is a folder that is no valid checkpoint.
type Skipped struct {
	Path   string
	Reason error
}

// Latest returns the newest valid checkpoint in dir, and the newer ones that
// are damaged. Without a valid one the error is ErrNone.
func Latest(dir string) (*Checkpoint, []Skipped, error) {
	if _, err := os.Stat(dir); err == nil {
		if err := sweep(dir); err != nil {
			return nil, nil, err
		}
	}
	steps, err := list(dir)
	if err != nil {
		return nil, nil, err
	}
	var skipped []Skipped
	for _, n := range steps {
		path := filepath.Join(dir, stepName(n))
		c, err := Open(path)
		if err == nil && c.Step != n {
			err = fmt.Errorf("%s is of step %d", manifestFile, c.Step)
		}
		if err == nil {
			return c, skipped, nil
		}
		skipped = append(skipped, Skipped{path, err})
	}
	return nil, skipped, ErrNone
}

// Open checks every file of a checkpoint against its manifest.
func Open(path string) (*Checkpoint, error) {
	m, err := readManifest(path)
	if err != nil {
		return nil, err
	}
	for name, e := range m.Files {
		if err := e.check(filepath.Join(path, name)); err != nil {
			return nil, err
		}
	}
	return &Checkpoint{path, m.Step, m.Files}, nil
}

func readManifest(path string) (manifest, error) {
	b, err := files.Read(filepath.Join(path, manifestFile), maxSmall)
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return m, fmt.Errorf("%s: %w", manifestFile, err)
	}
	return m, nil
}

// sound says whether a folder looks like the checkpoint of a step: all files
// are there, at their sizes. Their content is not read.
func sound(path string, step int) bool {
	m, err := readManifest(path)
	if err != nil || m.Step != step {
		return false
	}
	for name, e := range m.Files {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || !info.Mode().IsRegular() || info.Size() != e.Size {
			return false
		}
	}
	return true
}

func parseManifest(b []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, err
	}
	if m.Version != version {
		return m, fmt.Errorf("version %d, this program reads %d", m.Version, version)
	}
	if m.Step < 0 || len(m.Files) == 0 {
		return m, fmt.Errorf("step %d with %d files", m.Step, len(m.Files))
	}
	for name, e := range m.Files {
		if !plain(name) {
			return m, fmt.Errorf("file name %q points out of the folder", name)
		}
		if e.Size < 0 || len(e.SHA256) != 2*sha256.Size {
			return m, fmt.Errorf("%s: malformed entry", name)
		}
	}
	return m, nil
}

// plain says whether name is that of a file in the folder itself.
func plain(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\\:\x00")
}

func (e entry) check(path string) error {
	name := filepath.Base(path)
	f, err := files.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != e.Size {
		return fmt.Errorf("%s: %d bytes, its manifest says %d", name, info.Size(), e.Size)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if hex.EncodeToString(hash.Sum(nil)) != e.SHA256 {
		return fmt.Errorf("%s: its content is not what was written (SHA-256 differs)", name)
	}
	return nil
}

// File returns the path of a file of the checkpoint.
func (c *Checkpoint) File(name string) string { return filepath.Join(c.Path, name) }

// ReadFile returns the content of a small file that the manifest lists.
func (c *Checkpoint) ReadFile(name string) ([]byte, error) {
	if _, ok := c.files[name]; !ok {
		return nil, fmt.Errorf("%s: its manifest lists no %s", c.Path, name)
	}
	return files.Read(c.File(name), maxSmall)
}

// maxSmall bounds files that are read whole.
const maxSmall = 16 << 20
