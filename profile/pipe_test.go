//go:build linux || darwin

package profile

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestPipe: a named pipe in the place of the cache would wait for its writer.
func TestPipe(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "peaks.json")
	if err := syscall.Mkfifo(cache, 0o600); err != nil {
		t.Skipf("no named pipes here: %v", err)
	}
	done := make(chan Peaks, 1)
	m := &machine{peaks: Peaks{10, 20}}
	go func() { done <- Measure(m, cache) }()
	select {
	case p := <-done:
		if p != m.peaks {
			t.Errorf("%+v", p)
		}
	case <-time.After(5 * time.Second):
		t.Error("Measure waits for the pipe")
	}
}
