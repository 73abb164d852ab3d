//go:build linux || darwin

package checkpoints

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipe: a named pipe in the place of a file would wait for its writer.
func TestPipe(t *testing.T) {
	for _, name := range []string{"a.bin", manifestFile} {
		checkpoint := save(t, t.TempDir(), 1, 0)
		path := filepath.Join(checkpoint, name)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(path, 0o600); err != nil {
			t.Skipf("no named pipes here: %v", err)
		}
		done := make(chan error, 1)
		go func() {
			_, err := Open(checkpoint)
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), name+": not a regular file") {
				t.Errorf("%s: error %v", name, err)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("%s: Open waits for the pipe", name)
		}
	}
}
