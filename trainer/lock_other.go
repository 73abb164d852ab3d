//go:build !unix

package trainer

import (
	"fmt"
	"os"
	"path/filepath"
)

// lock makes the folder of a run. It keeps no other process out: there is no
// lock here that ends with its process.
func lock(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("out: %w", err)
	}
	return os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
}
