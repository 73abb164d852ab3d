package trainer

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"graft/configs"
	"graft/profile"
)

// BenchmarkProfile runs the demo's training program with and without being
// profiled, in turn, and reports what profiling adds to the step. The demo's
// operations take microseconds: on larger models the share is smaller.
func BenchmarkProfile(b *testing.B) {
	path := filepath.Join(b.TempDir(), "job.yaml")
	if err := os.WriteFile(path, []byte("model: "+demo+"/model\ndata: {train: "+demo+"/train.jsonl}\nlora: {rank: 8}\n"), 0o644); err != nil {
		b.Fatal(err)
	}
	cfg, err := configs.Load(path, []string{"out=" + filepath.Join(b.TempDir(), "run")}, nil)
	if err != nil {
		b.Fatal(err)
	}
	t := &Trainer{cfg: cfg, prof: profile.New(), options: Options{Out: io.Discard, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	defer t.close()
	if err := t.open(context.Background()); err != nil {
		b.Fatal(err)
	}
	if err := t.initialize(); err != nil {
		b.Fatal(err)
	}
	t.fill(t.trainSet, t.loader.Window(0)[0], t.trainRun, metrics{})
	var plain, profiled time.Duration
	for i := 0; b.Loop(); i++ {
		for _, with := range []bool{i%2 == 0, i%2 != 0} {
			began := time.Now()
			var err error
			if with {
				err = t.backend.Run(t.trainRun.Ops, t.recordStep.Clock)
				profiled += time.Since(began)
			} else {
				err = t.backend.Run(t.trainRun.Ops, nil)
				plain += time.Since(began)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(100*(float64(profiled)/float64(plain)-1), "%overhead")
	b.ReportMetric(float64(plain.Microseconds())/float64(b.N), "µs/step")
}
