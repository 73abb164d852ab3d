package profile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"graft/internal/files"
	"graft/kernels"
)

// Calibrator is a backend that can measure its machine.
type Calibrator interface {
	Peaks() (flops, bytesPerSecond float64)
}

// Measure returns the machine's limits: those measured earlier and kept in
// the file cache, or else new ones, which it keeps there. A backend that
// cannot measure has none. A cache that cannot be read or written only costs
// the measurement.
func Measure(b kernels.Backend, cache string) Peaks {
	if _, ok := b.(Calibrator); !ok {
		return Peaks{}
	}
	known := load(cache)
	if p := known[key(b)]; p.FLOPs > 0 && p.Bytes > 0 {
		return p
	}
	return measure(b, cache, known)
}

// Now measures the limits once, without a cache. A backend that cannot measure
// has none.
func Now(b kernels.Backend) Peaks {
	c, ok := b.(Calibrator)
	if !ok {
		return Peaks{}
	}
	flops, bytes := c.Peaks()
	return Peaks{flops, bytes}
}

// Again measures once more, for limits that a run has exceeded because the
// machine was busy when they were measured, and returns and keeps the higher
// of each.
func Again(b kernels.Backend, cache string) Peaks {
	if _, ok := b.(Calibrator); !ok {
		return Peaks{}
	}
	return measure(b, cache, load(cache))
}

func measure(b kernels.Backend, cache string, known map[string]Peaks) Peaks {
	p := known[key(b)].Best(Now(b))
	known[key(b)] = p
	save(cache, known)
	return p
}

// key names a backend on this machine.
func key(b kernels.Backend) string {
	info := b.Info()
	return strings.Join([]string{info.Name, info.Detail, runtime.GOOS, runtime.GOARCH, processor()}, "; ")
}

// maxCache bounds the cache's file.
const maxCache = 1 << 20

// load reads the cache; a damaged one is an empty one.
func load(cache string) map[string]Peaks {
	known := map[string]Peaks{}
	if data, err := files.Read(cache, maxCache); err != nil || json.Unmarshal(data, &known) != nil || known == nil {
		return map[string]Peaks{}
	}
	return known
}

func save(cache string, known map[string]Peaks) {
	data, err := json.MarshalIndent(known, "", " ")
	if err != nil || os.MkdirAll(filepath.Dir(cache), 0o755) != nil {
		return
	}
	f, err := os.CreateTemp(filepath.Dir(cache), ".peaks-*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if f.Close() != nil || err != nil || os.Rename(f.Name(), cache) != nil {
		os.Remove(f.Name())
	}
}

// CachePath returns where Measure's results are kept for this user, "" where
// the system has no such place.
func CachePath() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "graft", "peaks.json")
}

// Machine describes the processor for reports.
func Machine() string {
	return fmt.Sprintf("%s, %s/%s, %d processors", cmp.Or(processor(), "unknown processor"), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0))
}
