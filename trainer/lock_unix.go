//go:build unix

package trainer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lock takes the folder of a run for this process, until the process ends or
// the file is closed. The system forgets the lock of a process that is killed.
func lock(dir string) (*os.File, error) {
	for {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("out: %w", err)
		}
		f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("out: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("out: another process is training in %s: wait for it, or choose another -out", dir)
			}
			return nil, fmt.Errorf("out: %s: %w", dir, err)
		}
		if inPlace(f) {
			return f, nil
		}
		f.Close() // another process has renamed the folder meanwhile
	}
}
