package files

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := os.WriteFile(path, []byte("1234"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(path, 4); err != nil || string(b) != "1234" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := Read(path, 3); err == nil || !strings.Contains(err.Error(), path+": over 3 bytes") {
		t.Errorf("error %v", err)
	}
	if _, err := Read(filepath.Join(dir, "y"), 3); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	for _, path := range []string{dir, os.DevNull} {
		if f, err := Open(path); err == nil || !strings.Contains(err.Error(), path+": not a regular file") {
			t.Errorf("%s: %v, error %v", path, f, err)
		}
	}
}
