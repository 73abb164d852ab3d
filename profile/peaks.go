package profile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"

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
	c, ok := b.(Calibrator)
	if !ok {
		return Peaks{}
	}
	info := b.Info()
	key := strings.Join([]string{info.Name, info.Detail, runtime.GOOS, runtime.GOARCH, processor()}, "; ")
	known := map[string]Peaks{}
	if data, err := os.ReadFile(cache); err == nil {
		_ = json.Unmarshal(data, &known) // a damaged cache is an empty one
	}
	if p := known[key]; p.FLOPs > 0 && p.Bytes > 0 {
		return p
	}
	var p Peaks
	p.FLOPs, p.Bytes = c.Peaks()
	if known == nil {
		known = map[string]Peaks{}
	}
	known[key] = p
	save(cache, known)
	return p
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

// processor returns the name of the CPU where the system tells it.
func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
