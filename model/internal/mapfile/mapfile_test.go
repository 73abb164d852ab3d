package mapfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	for _, want := range []string{"", "x", strings.Repeat("0123456789", 5000)} {
		path := filepath.Join(dir, "f")
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(m.Data) != want {
			t.Errorf("%d bytes: read %d others", len(want), len(m.Data))
		}
		if m.Path != path {
			t.Errorf("path %q, want %q", m.Path, path)
		}
		for range 2 {
			if err := m.Close(); err != nil || m.Data != nil {
				t.Errorf("Close: %v, %d bytes left", err, len(m.Data))
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(dir); err == nil || err.Error() != dir+": not a regular file" {
		t.Errorf("a folder: %v", err)
	}
	path := filepath.Join(dir, "missing")
	_, err := Open(path)
	if !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("a missing file: %v", err)
	}
}
