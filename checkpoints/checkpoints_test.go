package checkpoints

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func content(name, text string) File {
	return File{name, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	}}
}

// sample is what the tests save for a step.
func sample(step int) []File {
	return []File{content("a.bin", strings.Repeat(fmt.Sprint(step, " "), 20)), content("state.json", fmt.Sprintf(`{"step":%d}`, step))}
}

func save(t *testing.T, dir string, step, keep int) string {
	t.Helper()
	path, err := Save(dir, step, sample(step), keep)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestSaveAndKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "checkpoints")
	if _, _, err := Latest(dir); !errors.Is(err, ErrNone) {
		t.Fatalf("error %v without a folder", err)
	}
	for step := 1; step <= 5; step++ {
		save(t, dir, step*10, 2)
	}
	if got := names(t, dir); got != "step-000040 step-000050" {
		t.Errorf("folders %s", got)
	}
	c, skipped, err := Latest(dir)
	if err != nil || len(skipped) > 0 || c.Step != 50 {
		t.Fatalf("%+v, %v, %v", c, skipped, err)
	}
	b, err := c.ReadFile("state.json")
	if err != nil || string(b) != `{"step":50}` {
		t.Errorf("%s, %v", b, err)
	}
	save(t, dir, 50, 2) // once more, over itself
	save(t, dir, 1234567, 1)
	if got := names(t, dir); got != "step-1234567" {
		t.Errorf("folders %s", got)
	}
}

// TestEveryByte damages each byte of each file of a checkpoint in turn.
func TestEveryByte(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1, 0)
	newest := save(t, dir, 2, 0)
	for _, name := range []string{"a.bin", "state.json", manifestFile} {
		path := filepath.Join(newest, name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			b[i] ^= 0x21
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			c, skipped, err := Latest(dir)
			white := name == manifestFile && (b[i]^0x21 == ' ' || b[i]^0x21 == '\n') // of JSON's layout
			if err != nil || c.Step != 1 && !white {
				t.Fatalf("%s, byte %d: latest is %+v (%v, %v)", name, i, c, skipped, err)
			}
			if c.Step == 1 && (len(skipped) != 1 || skipped[0].Path != newest || skipped[0].Reason == nil) {
				t.Fatalf("%s, byte %d: skipped %v", name, i, skipped)
			}
			b[i] ^= 0x21
		}
		for _, n := range []int{0, 1, len(b) - 2} { // the manifest ends in a line end
			if err := os.WriteFile(path, b[:n], 0o644); err != nil {
				t.Fatal(err)
			}
			if c, _, err := Latest(dir); err != nil || c.Step != 1 {
				t.Errorf("%s, cut to %d bytes: latest is %+v (%v)", name, n, c, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if c, _, err := Latest(dir); err != nil || c.Step != 1 {
			t.Errorf("%s is missing: latest is %+v (%v)", name, c, err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if c, _, err := Latest(dir); err != nil || c.Step != 2 {
		t.Errorf("mended: latest is %+v (%v)", c, err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 1, 1)
	full := errors.New("no space left on device")
	_, err := Save(dir, 2, []File{content("a.bin", "x"), {"b.bin", func(w io.Writer) error {
		if _, err := w.Write(make([]byte, 3<<20)); err != nil {
			return err
		}
		return full
	}}}, 1)
	if !errors.Is(err, full) || !strings.Contains(err.Error(), "writing b.bin") || !strings.Contains(err.Error(), "after 3145728 bytes") {
		t.Errorf("error %v", err)
	}
	if got := names(t, dir); got != "step-000001" {
		t.Errorf("folders %s", got)
	}
	if c, _, err := Latest(dir); err != nil || c.Step != 1 {
		t.Errorf("latest is %+v (%v)", c, err)
	}
}

// TestSweep: what crashes leave is removed, what is not ours is not, and a
// checkpoint that was about to be replaced comes back.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	save(t, dir, 3, 0)
	if err := os.Rename(filepath.Join(dir, "step-000003"), filepath.Join(dir, ".old-step-000003")); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{".tmp-step-000004", ".tmp-mine", "step-1", "notes"} {
		if err := os.MkdirAll(filepath.Join(dir, d, "x"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, skipped, err := Latest(dir)
	if err != nil || c.Step != 3 || len(skipped) != 0 {
		t.Fatalf("%+v, %v, %v", c, skipped, err)
	}
	if got := names(t, dir); got != ".tmp-mine notes step-000003 step-1" {
		t.Errorf("left: %s", got)
	}
}

func TestHostileManifest(t *testing.T) {
	hash := strings.Repeat("0", 64)
	for _, c := range []struct{ text, want string }{
		{``, "unexpected end"}, {`[]`, "cannot unmarshal"}, {`{}`, "version 0"},
		{`{"version":9,"step":1,"files":{}}`, "version 9, this program reads 1"},
		{`{"version":1,"step":-1,"files":{"a":{"size":1,"sha256":"` + hash + `"}}}`, "step -1"},
		{`{"version":1,"step":1,"files":{"../../etc/passwd":{"size":1,"sha256":"` + hash + `"}}}`, "points out of the folder"},
		{`{"version":1,"step":1,"files":{"/etc/passwd":{"size":1,"sha256":"` + hash + `"}}}`, "points out of the folder"},
		{`{"version":1,"step":1,"files":{"..":{"size":1,"sha256":"` + hash + `"}}}`, "points out of the folder"},
		{`{"version":1,"step":1,"files":{"a":{"size":-1,"sha256":"` + hash + `"}}}`, "malformed entry"},
		{`{"version":1,"step":1,"files":{"a":{"size":1,"sha256":"00"}}}`, "malformed entry"},
		{`{"version":1,"step":1e99,"files":{}}`, "cannot unmarshal"},
	} {
		if _, err := parseManifest([]byte(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.text, err, c.want)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"version":1,"step":1,"files":{"a":{"size":1,"sha256":"` + strings.Repeat("0", 64) + `"}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseManifest(b)
		if err != nil {
			return
		}
		for name := range m.Files {
			if filepath.Base(name) != name || name == ".." || name == "." {
				t.Errorf("accepted the file name %q", name)
			}
		}
	})
}

func TestWriteFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "adapter")
	for _, text := range []string{"first", "second"} {
		if err := WriteFolder(path, []File{content("x", text)}); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(path, "x")); err != nil || string(b) != text {
			t.Errorf("%s, %v", b, err)
		}
	}
	failed := errors.New("failed")
	if err := WriteFolder(path, []File{{"x", func(io.Writer) error { return failed }}}); !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	if got := names(t, filepath.Dir(path)); got != "adapter" {
		t.Errorf("left: %s", got)
	}
}

// TestKilled starts processes that save checkpoints as fast as they can, and
// kills each at a random moment.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("CHECKPOINTS_VICTIM"); dir != "" {
		for step := 1; ; step++ {
			if _, err := Save(dir, step%7+1, sample(step%7+1), 2); err != nil {
				fmt.Println(err)
				os.Exit(3)
			}
		}
	}
	dir := t.TempDir()
	save(t, dir, 1, 2)
	for i := range 25 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilled$")
		cmd.Env = append(os.Environ(), "CHECKPOINTS_VICTIM="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rand.IntN(60)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() == 3 {
			t.Fatalf("kill %d: %v", i, err)
		}
		c, skipped, err := Latest(dir)
		if err != nil || len(skipped) > 0 {
			t.Fatalf("kill %d: %+v, %v, %v: %s", i, c, skipped, err, names(t, dir))
		}
		if b, err := c.ReadFile("state.json"); err != nil || string(b) != fmt.Sprintf(`{"step":%d}`, c.Step) {
			t.Fatalf("kill %d: step %d holds %s (%v)", i, c.Step, b, err)
		}
	}
}
