package checkpoints

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryFullDisk fails a file after each of many numbers of bytes, around
// the size of the write buffer too. The older checkpoint stays the newest, and
// nothing else is left.
func TestEveryFullDisk(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1, 1)
	full := errors.New("no space left on device")
	for _, n := range []int{0, 1, 4095, 1<<20 - 1, 1 << 20, 1<<20 + 1} {
		for _, at := range []int{0, 1} {
			fs := sample(2)
			fs[at].Write = func(w io.Writer) error {
				if _, err := w.Write(make([]byte, n)); err != nil {
					return err
				}
				return full
			}
			for _, step := range []int{1, 2} { // over the valid one, and beside it
				if _, err := Save(dir, step, fs, 1); !errors.Is(err, full) || !strings.Contains(err.Error(), fs[at].Name) {
					t.Errorf("%d bytes: error %v", n, err)
				}
				if got := names(t, dir); got != "step-000001" {
					t.Fatalf("%d bytes: folders %s", n, got)
				}
				if c, skipped, err := Latest(dir); err != nil || c.Step != 1 || len(skipped) > 0 {
					t.Fatalf("%d bytes: latest is %+v (%v, %v)", n, c, skipped, err)
				}
			}
		}
	}
}

// TestOldBesideNew: a crash after a checkpoint was replaced and before the old
// one was removed leaves both; the new one holds.
func TestOldBesideNew(t *testing.T) {
	dir := t.TempDir()
	path := save(t, dir, 3, 0)
	if err := os.Mkdir(filepath.Join(dir, ".old-step-000003"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".tmp-step-000009"), []byte("a file"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(path, "a.bin"))
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := Latest(dir)
	if err != nil || c.Step != 3 {
		t.Fatalf("latest is %+v (%v)", c, err)
	}
	if after, err := c.ReadFile("a.bin"); err != nil || !bytes.Equal(after, before) {
		t.Errorf("a.bin changed (%v)", err)
	}
	if got := names(t, dir); got != "step-000003" {
		t.Errorf("left: %s", got)
	}
}

// TestRenamed: a checkpoint under another step's name is not that step's.
func TestRenamed(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1, 0)
	other := filepath.Join(dir, "step-000005")
	if err := os.Rename(save(t, dir, 2, 0), other); err != nil {
		t.Fatal(err)
	}
	c, skipped, err := Latest(dir)
	if err != nil || c.Step != 1 || len(skipped) != 1 || skipped[0].Path != other || !strings.Contains(skipped[0].Reason.Error(), "is of step 2") {
		t.Errorf("%+v, %v, %v", c, skipped, err)
	}
}

// TestKeepAfterResume: a run that went back to an earlier step keeps the
// checkpoint it just wrote, although later ones are there.
func TestKeepAfterResume(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []int{10, 20, 30, 15} {
		save(t, dir, step, 2)
	}
	if got := names(t, dir); got != "step-000015 step-000020 step-000030" {
		t.Errorf("folders %s", got)
	}
	save(t, dir, 40, 2)
	if got := names(t, dir); got != "step-000030 step-000040" {
		t.Errorf("folders %s", got)
	}
}

// TestKeepCountsSound: damaged folders do not push out the last valid one, and
// go when enough newer ones are there.
func TestKeepCountsSound(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 10, 1)
	for _, step := range []int{30, 40} {
		if err := os.Truncate(filepath.Join(save(t, dir, step, 9), "a.bin"), 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "step-000050"), 0o755); err != nil {
		t.Fatal(err)
	}
	save(t, dir, 20, 2)
	if got := names(t, dir); got != "step-000010 step-000020 step-000030 step-000040 step-000050" {
		t.Errorf("folders %s", got)
	}
	save(t, dir, 60, 1)
	if got := names(t, dir); got != "step-000060" {
		t.Errorf("folders %s", got)
	}
}

// TestListed: only what a manifest lists is a checkpoint's.
func TestListed(t *testing.T) {
	path := save(t, t.TempDir(), 1, 0)
	if err := os.WriteFile(filepath.Join(path, "b.bin"), []byte("not its own"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.ReadFile("b.bin"); err == nil || !strings.Contains(err.Error(), "lists no b.bin") {
		t.Errorf("%q, %v", b, err)
	}
}

func TestOnlyDamaged(t *testing.T) {
	dir := t.TempDir()
	for step := 1; step <= 3; step++ {
		if err := os.Remove(filepath.Join(save(t, dir, step, 0), "a.bin")); err != nil {
			t.Fatal(err)
		}
	}
	_, skipped, err := Latest(dir)
	if !errors.Is(err, ErrNone) || len(skipped) != 3 || filepath.Base(skipped[0].Path) != "step-000003" {
		t.Errorf("%v, %v", skipped, err)
	}
}

// TestHostileFiles replaces a file of a checkpoint by what is no file. Open
// refuses each at once, and reads none.
func TestHostileFiles(t *testing.T) {
	for _, name := range []string{"a.bin", manifestFile} {
		for title, put := range map[string]func(path string) error{
			"a folder": func(path string) error { return os.Mkdir(path, 0o755) },
			"a device": func(path string) error { return os.Symlink(os.DevNull, path) },
			"a loop":   func(path string) error { return os.Symlink(path, path) },
			"a link to nothing": func(path string) error {
				return os.Symlink(filepath.Join(filepath.Dir(path), "gone"), path)
			},
		} {
			checkpoint := save(t, t.TempDir(), 1, 0)
			path := filepath.Join(checkpoint, name)
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := put(path); err != nil {
				t.Skipf("%s cannot be made here: %v", title, err)
			}
			if _, err := Open(checkpoint); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s is %s: error %v", name, title, err)
			}
		}
	}
}

// TestHugeManifest: sizes that a manifest claims are not believed, and one
// that is itself huge is not read whole.
func TestHugeManifest(t *testing.T) {
	path := save(t, t.TempDir(), 1, 0)
	hash := strings.Repeat("0", 64)
	for _, c := range []struct{ text, want string }{
		{fmt.Sprintf(`{"version":1,"step":1,"files":{"a.bin":{"size":%d,"sha256":%q}}}`, int64(1)<<62, hash), "its manifest says 4611686018427387904"},
		{fmt.Sprintf(`{"version":1,"step":1,"files":{"a.bin":{"size":9223372036854775808,"sha256":%q}}}`, hash), "cannot unmarshal"},
		{strings.Repeat(" ", maxSmall+1), "over 16777216 bytes"},
		{strings.Repeat("[", 1<<20), "exceeded max depth"},
	} {
		if err := os.WriteFile(filepath.Join(path, manifestFile), []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: error %v, want %q", c.text, err, c.want)
		}
	}
}

func TestFileNames(t *testing.T) {
	for _, fs := range [][]File{
		{content("", "")}, {content("..", "")}, {content("a/b", "")}, {content(`a\b`, "")}, {content("c:", "")},
		{content(manifestFile, "")}, {content("a", ""), content("a", "")},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.Contains(r, "checkpoints: file name") {
					t.Errorf("%q: panic %q", fs[0].Name, r)
				}
			}()
			_, _ = Save(t.TempDir(), 1, fs, 0)
		}()
	}
}

// TestWriteFolderAfterCrash: what a crash left beside a folder is no obstacle,
// and the files of the old folder do not show in the new one.
func TestWriteFolderAfterCrash(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "adapter")
	for _, d := range []string{"adapter", ".tmp-adapter", ".old-adapter"} {
		if err := os.MkdirAll(filepath.Join(dir, d, "stale"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// After a crash between the renames only the old one is there; it must not
	// be lost when the next attempt fails.
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	full := errors.New("no space left on device")
	if err := WriteFolder(path, []File{{"x", func(io.Writer) error { return full }}}); !errors.Is(err, full) {
		t.Fatalf("error %v", err)
	}
	if got := names(t, dir) + ": " + names(t, path); got != "adapter: stale" {
		t.Errorf("left: %s", got)
	}
	if err := WriteFolder(path, []File{content("x", "new")}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir) + ": " + names(t, path); got != "adapter: x" {
		t.Errorf("left: %s", got)
	}
}
