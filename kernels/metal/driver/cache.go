package driver

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"graft/kernels/metal"
)

// archivePath returns where compiled pipelines are kept: a file of its own for
// each set of sources, device and version of the system. "" where the user has
// no cache folder that can be written to.
func archivePath(sources []metal.Source, device, system string) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	dir = filepath.Join(dir, "graft")
	if os.MkdirAll(dir, 0o755) != nil {
		return ""
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q", device, system)
	for _, s := range sources {
		fmt.Fprintf(h, " %q %q", s.Name, s.Text)
	}
	return filepath.Join(dir, fmt.Sprintf("metal-%x.pipelines", h.Sum(nil)[:12]))
}

// replace lets write make a file beside path and then puts it in path's place,
// so that programs which run at the same time see a whole file.
func replace(path string, write func(path string) bool) {
	fresh := fmt.Sprintf("%s.%d", path, os.Getpid())
	if !write(fresh) || os.Rename(fresh, path) != nil {
		os.Remove(fresh)
	}
}
