package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"graft/configs"
	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/metal/emulator"
	"graft/lora"
	"graft/model/safetensors"
	"graft/profile"
)

const (
	demo   = "../configs/demo"
	shared = "../../shared"
)

// job is a run in a folder of its own.
type job struct {
	out    string
	resume bool
	sets   []string
	ctx    context.Context
	report io.Writer
	log    io.Writer
	show   <-chan os.Signal

	backend kernels.Backend // in the place of the job's
}

// run runs the demo's job, or the one in base, with other settings.
func (j job) run(t *testing.T, base string) error {
	t.Helper()
	if j.ctx == nil {
		j.ctx = context.Background()
	}
	cfg, o := j.config(t, base)
	return Run(j.ctx, cfg, o)
}

func (j job) config(t *testing.T, base string) (*configs.Config, Options) {
	t.Helper()
	if base == "" {
		base = fmt.Sprintf("model: %s/model\ndata: {train: %s/train.jsonl, valid: %s/valid.jsonl}\n"+
			"lora: {rank: 4}\noptimizer: {lr: 5e-3}\ntrain: {steps: 12, batch_size: 4, save_every: 5}\nprofile: false\n", demo, demo, demo)
	}
	path := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(path, []byte(base), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := configs.Load(path, append([]string{"out=" + j.out}, j.sets...), nil)
	if err != nil {
		t.Fatal(err)
	}
	if j.report == nil {
		j.report = io.Discard
	}
	if j.log == nil {
		j.log = io.Discard
	}
	return cfg, Options{Resume: j.resume, Out: j.report, Log: slog.New(slog.NewTextHandler(j.log, nil)), Show: j.show, backend: j.backend}
}

func (j job) must(t *testing.T, base string) {
	t.Helper()
	if err := j.run(t, base); err != nil {
		t.Fatal(err)
	}
}

// scratch notes how much working memory attention was planned to take, and how much it took.
type scratch struct {
	kernels.Backend
	planned, taken *int
}

func (s scratch) Scratch(ops []kernels.Op) int {
	*s.planned = max(*s.planned, s.ofAttention(ops))
	return s.Backend.Scratch(ops)
}

func (s scratch) Run(ops []kernels.Op, clock kernels.Clock) error {
	*s.taken = max(*s.taken, s.ofAttention(ops))
	return s.Backend.Run(ops, clock)
}

func (s scratch) ofAttention(ops []kernels.Op) int {
	only := slices.DeleteFunc(slices.Clone(ops), func(op kernels.Op) bool { return !strings.HasPrefix(op.Kind(), "attention") })
	return s.Backend.Scratch(only)
}

// TestPlannedScratch: what attention takes for many short sequences is part of the memory plan.
func TestPlannedScratch(t *testing.T) {
	for _, isa := range cpu.ISAs() {
		s := scratch{cpu.New(cpu.Options{ISA: isa}), new(int), new(int)}
		job{out: filepath.Join(t.TempDir(), "run"), backend: s, sets: []string{"train.steps=2", "train.batch_size=64"}}.must(t, "")
		if *s.taken == 0 || *s.taken > *s.planned {
			t.Errorf("%s: %d bytes were planned, %d taken", isa, *s.planned, *s.taken)
		}
	}
}

// broken is a place that takes nothing.
type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("nobody listens") }

// TestNobodyListens: a run whose output goes nowhere is a run like any other.
func TestNobodyListens(t *testing.T) {
	show := make(chan os.Signal, 1)
	show <- os.Interrupt
	j := job{out: filepath.Join(t.TempDir(), "run"), report: broken{}, show: show, sets: []string{"profile=true", `sample.prompts=["Hi"]`}}
	j.must(t, "")
	if len(show) > 0 {
		t.Error("the profile was not shown")
	}
}

// busy measures its machine first while that is busy with something else.
type busy struct {
	kernels.Backend
	measured int
}

func (b *busy) Peaks() (flops, bytesPerSecond float64) {
	b.measured++
	return []float64{1, 1e15, 1e15}[b.measured-1], 1e9
}

// TestBusyMachine has a run that is faster than its machine's limits were measured to be: it
// measures them once more.
func TestBusyMachine(t *testing.T) {
	for _, home := range []string{"HOME", "XDG_CACHE_HOME", "LocalAppData"} {
		t.Setenv(home, t.TempDir())
	}
	b := &busy{Backend: cpu.New(cpu.Options{})}
	out := filepath.Join(t.TempDir(), "run")
	job{out: out, backend: b, sets: []string{"profile=true"}}.must(t, "")
	for _, m := range readMetrics(t, out) {
		if m.MFU <= 0 || m.MFU > 1 {
			t.Errorf("step %d: %g of the machine's rate", m.Step, m.MFU)
		}
	}
	if b.measured != 2 {
		t.Errorf("measured %d times", b.measured)
	}
}

func readMetrics(t *testing.T, out string) []metrics {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, metricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var list []metrics
	for line := range strings.Lines(string(b)) {
		var m metrics
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func adapterBytes(t *testing.T, out string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(out, "adapter", lora.WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func adapterValues(t *testing.T, out string) []float64 {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(out, "adapter", lora.WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []float64
	for _, n := range f.Names() {
		x, _ := f.Tensor(n)
		v, err := x.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v...)
	}
	return all
}

// emulate makes the metal backend the emulator, or skips the test.
func emulate(t *testing.T) {
	t.Helper()
	if !emulated(t) {
		t.Skip("no emulator of the GPU: it takes a C++ compiler, and its time (not -short)")
	}
}

// emulated makes the metal backend the emulator if that can be.
func emulated(t *testing.T) bool {
	t.Helper()
	if testing.Short() {
		return false
	}
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: emulator.Fast})
	if errors.Is(err, emulator.ErrNoCompiler) {
		return false
	} else if err != nil {
		t.Fatal(err)
	}
	t.Setenv(emulatorVariable, program)
	return true
}

// skipSlow spares the race detector the float64 backend, which has no threads.
func skipSlow(t *testing.T, backend string) {
	t.Helper()
	if backend == "reference" && testing.Short() {
		t.Skip("the reference backend takes its time")
	}
}

func relative(a, b float64) float64 { return math.Abs(a-b) / math.Abs(b) }

// goldenStep is a step of a golden run.
type goldenStep struct {
	Loss     float64
	GradNorm float64 `json:"grad_norm"`
	LR       float64
	Tokens   int
}

// TestGolden is the whole job against two runs of transformers and PEFT from
// the same first adapter. The one in ../shared computes RMS norms and cosines in
// float32, as transformers does in every precision; the one in testdata does
// not, and is otherwise the same (bench/golden.py). The reference backend agrees
// with the second to 1e-12, and with the first once it has the same float32:
// to 1e-14 for six steps, until the last bit of a float64 turns a float32
// rounding over, as it does in transformers itself (docs/exactness.md).
func TestGolden(t *testing.T) {
	golden := filepath.Join(shared, "golden", "stories260k")
	b, err := os.ReadFile(filepath.Join(golden, "golden.json"))
	if err != nil {
		t.Skip("no ../shared/golden here: the golden run is not part of the project")
	}
	var want struct {
		Steps    []goldenStep
		Generate struct{ Prompt, Text string }
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	var exact []goldenStep
	if b, err = os.ReadFile("testdata/stories260k-float64.json"); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &exact); err != nil {
		t.Fatal(err)
	}
	base := fmt.Sprintf("model: %s/models/stories260k\ndata: {train: %s/train.jsonl, shuffle: false}\n"+
		"lora: {adapter: %s/adapter_init}\noptimizer: {lr: 0.005, warmup: 4, weight_decay: 0.01}\n"+
		"train: {steps: 32, batch_size: 4, accumulate: 2}\nsample: {prompts: [%q], max_tokens: 40}\nprofile: false\n",
		shared, golden, golden, want.Generate.Prompt)
	for _, c := range []struct {
		name             string
		backend          string
		first, all, norm float64
		exact            float64 // losses and norms against the run in float64 throughout
		final            float64 // the adapter's largest difference, relative to its largest value
		same             int     // steps whose losses and norms agree to 1e-13
	}{
		{"reference", "reference", 1e-7, 5e-6, 1e-4, 1e-11, 1e-4, 0},
		{"reference with transformers' float32", "reference", 1e-13, 1e-6, 1e-5, 1e-3, 1e-6, 6},
		{"cpu", "cpu", 2e-6, 1e-3, 1e-2, 1e-2, 1e-2, 0},
		{"metal", "metal", 2e-6, 1e-3, 1e-2, 1e-2, 1e-2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			skipSlow(t, c.backend)
			if c.backend == "metal" {
				emulate(t)
			}
			var report bytes.Buffer
			j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"backend=" + c.backend}, report: &report}
			if c.name != c.backend {
				j.backend = newTransformers(t, want.Steps)
			}
			j.must(t, base)
			var worstLoss, worstNorm, worstExact float64
			for i, m := range readMetrics(t, j.out) {
				w := want.Steps[i]
				dl, dn := relative(m.Loss, w.Loss), relative(m.GradNorm, w.GradNorm)
				de := max(relative(m.Loss, exact[i].Loss), relative(m.GradNorm, exact[i].GradNorm))
				worstLoss, worstNorm, worstExact = max(worstLoss, dl), max(worstNorm, dn), max(worstExact, de)
				if de > c.exact {
					t.Errorf("step %d: loss %v and norm %v, in float64 throughout %v and %v", m.Step, m.Loss, m.GradNorm, exact[i].Loss, exact[i].GradNorm)
				}
				if i < c.same && max(dl, dn) > 1e-13 {
					t.Errorf("step %d: loss %v and norm %v, want %v and %v", m.Step, m.Loss, m.GradNorm, w.Loss, w.GradNorm)
				}
				if dl > c.all || i == 0 && dl > c.first || dn > c.norm || relative(m.LR, w.LR) > 1e-12 || m.Tokens != w.Tokens {
					t.Errorf("step %d: got %+v, want %+v", m.Step, m, w)
				}
			}
			first := relative(readMetrics(t, j.out)[0].Loss, want.Steps[0].Loss)
			t.Logf("largest relative difference of a loss %.2g (step 1: %.2g), of a norm %.2g; of either, with float64 throughout, %.2g", worstLoss, first, worstNorm, worstExact)
			sentence := strings.TrimPrefix(want.Generate.Text, want.Generate.Prompt+" ")
			sentence = sentence[:strings.Index(sentence, "happy.")+len("happy.")]
			if !strings.Contains(report.String(), sentence) {
				t.Errorf("the tuned model does not write %q:\n%s", sentence, &report)
			}
			f, err := safetensors.Open(filepath.Join(golden, "adapter_final", lora.WeightsFile))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got := adapterValues(t, j.out)
			var diff, scale float64
			i := 0
			for _, n := range f.Names() {
				x, _ := f.Tensor(n)
				v, err := x.Float64s()
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range v {
					diff, scale = max(diff, math.Abs(got[i]-w)), max(scale, math.Abs(w))
					i++
				}
			}
			t.Logf("final adapter: largest difference %.2g of its largest value", diff/scale)
			if i != len(got) || diff > c.final*scale {
				t.Errorf("final adapter: %d values, want %d; largest difference %g of %g", len(got), i, diff, scale)
			}
		})
	}
}

// TestSplits: how a step's examples are split into micro-batches, and whether
// values are recomputed, changes nothing but rounding; also with dropout, and
// with a last step that is not full.
func TestSplits(t *testing.T) {
	for _, c := range []struct {
		backend string
		tol     float64
	}{{"reference", 1e-10}, {"cpu", 2e-3}} {
		t.Run(c.backend, func(t *testing.T) { testSplits(t, c.backend, c.tol) })
	}
}

func testSplits(t *testing.T, backend string, tol float64) {
	skipSlow(t, backend)
	var first []metrics
	var values []float64
	for _, sets := range [][]string{
		{"train.batch_size=8", "train.accumulate=1"}, {"train.batch_size=4", "train.accumulate=2"},
		{"train.batch_size=2", "train.accumulate=4"}, {"train.batch_size=1", "train.accumulate=8"},
		{"train.batch_size=4", "train.accumulate=2", "train.recompute=block"},
	} {
		j := job{out: filepath.Join(t.TempDir(), "run"), sets: append(sets, "backend="+backend, "lora.dropout=0.2", "train.steps=15")}
		j.must(t, "")
		got, v := readMetrics(t, j.out), adapterValues(t, j.out)
		if first == nil {
			first, values = got, v
			if first[12].Tokens >= first[11].Tokens {
				t.Fatalf("step 13 should be the partial one that ends the epoch: %+v", first[12])
			}
			continue
		}
		for i := range got {
			if relative(got[i].Loss, first[i].Loss) > tol || got[i].Tokens != first[i].Tokens {
				t.Errorf("%s %v: step %d: loss %v of %d tokens, want %v of %d", backend, sets, i+1, got[i].Loss, got[i].Tokens, first[i].Loss, first[i].Tokens)
			}
		}
		var diff, scale float64
		for i := range v {
			diff, scale = max(diff, math.Abs(v[i]-values[i])), max(scale, math.Abs(values[i]))
		}
		if diff > tol*scale {
			t.Errorf("%s %v: final adapter differs by %g of %g", backend, sets, diff, scale)
		}
	}
}

// TestDropoutIsForTraining: where nothing is learned, dropout changes the losses of the steps, but
// neither validation nor samples.
func TestDropoutIsForTraining(t *testing.T) {
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	run := func(dropout string) (loss, valid float64, answer string) {
		var report bytes.Buffer
		j := job{out: filepath.Join(t.TempDir(), "run"), report: &report, sets: []string{"lora.adapter=" + first.out + "/adapter",
			"lora.dropout=" + dropout, "optimizer.lr=0", "train.steps=2", `sample.prompts=["Where does the owl live?"]`}}
		j.must(t, "")
		last := readMetrics(t, j.out)[1]
		_, answer, _ = strings.Cut(report.String(), "after training:")
		return last.Loss, *last.ValidLoss, answer
	}
	loss, valid, answer := run("0")
	for _, dropout := range []string{"0.5", "0.9"} {
		l, v, a := run(dropout)
		if relative(v, valid) > 1e-6 || a != answer || a == "" || relative(l, loss) < 1e-3 {
			t.Errorf("dropout %s: loss %v, valid %v,%s without dropout: loss %v, valid %v,%s", dropout, l, v, a, loss, valid, answer)
		}
	}
}

// TestSameBytes: what must not change the result does not change a bit.
func TestSameBytes(t *testing.T) {
	want := job{out: filepath.Join(t.TempDir(), "run")}
	want.must(t, "")
	for _, sets := range [][]string{
		{"threads=1"}, {"threads=3"}, {"train.recompute=block"}, {"train.eval_every=1"}, {"train.save_every=1", "train.keep=1"},
		{"profile=true"}, {"sample.prompts=[\"Where does the owl live?\"]"}, {"data.valid=\"\""},
	} {
		j := job{out: filepath.Join(t.TempDir(), "run"), sets: sets}
		j.must(t, "")
		if !bytes.Equal(adapterBytes(t, j.out), adapterBytes(t, want.out)) {
			t.Errorf("%v: the final adapter differs", sets)
		}
	}
}

// TestOtherArithmetic goes on with other instructions: that is said, once.
func TestOtherArithmetic(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"backend=cpu", "train.steps=4", "train.save_every=2"}}
	j.must(t, "")
	j.resume = true
	for _, isa := range cpu.ISAs() {
		var log bytes.Buffer
		k := j
		k.log, k.sets = &log, append([]string{"isa=" + isa}, j.sets...)
		k.must(t, "")
		want := 1
		if isa == cpu.ISAs()[len(cpu.ISAs())-1] { // the best, which it began with
			want = 0
		}
		if said := strings.Count(log.String(), "other last bits"); said != want {
			t.Errorf("%s: said %d times: %s", isa, said, &log)
		}
	}
}

// cancelAfter is a context that is cancelled when it has been asked n times.
type cancelAfter struct {
	context.Context
	n *int
}

func (c cancelAfter) Err() error {
	if *c.n--; *c.n < 0 {
		return context.Canceled
	}
	return nil
}

// TestInterrupted stops a run at every micro-batch and resumes it, over and
// over, and asks for the bytes of an uninterrupted run, in both modes, and for
// its losses, also of validations that were interrupted.
func TestInterrupted(t *testing.T) {
	for _, mode := range [][]string{
		{"train.accumulate=3", "train.eval_every=2"}, {"train.accumulate=2", "mode=full", "optimizer.weight_decay=0.1", "train.steps=6"}, {"lora.dropout=0.1", "train.steps=8"},
		{"backend=metal", "lora.dropout=0.1", "train.steps=8"}, {"backend=metal", "precision=bfloat16", "mode=full", "train.steps=6"},
	} {
		if mode[0] == "backend=metal" && !emulated(t) {
			continue
		}
		want := job{out: filepath.Join(t.TempDir(), "run"), sets: mode}
		want.must(t, "")
		j := job{out: filepath.Join(t.TempDir(), "run"), sets: mode}
		for i := 0; ; i++ {
			n := 8 + i%7
			j.ctx, j.resume = cancelAfter{context.Background(), &n}, i > 0
			err := j.run(t, "")
			if err == nil {
				break
			}
			if !errors.Is(err, ErrInterrupted) && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if i > 200 {
				t.Fatal("the run does not end")
			}
		}
		for _, name := range []string{"adapter/adapter_model.safetensors", "model/model.safetensors"} {
			a, err := os.ReadFile(filepath.Join(want.out, name))
			if err != nil {
				continue
			}
			b, err := os.ReadFile(filepath.Join(j.out, name))
			if err != nil || !bytes.Equal(a, b) {
				t.Errorf("%v: %s differs from that of an uninterrupted run (%v)", mode, name, err)
			}
		}
		a, b := readMetrics(t, want.out), readMetrics(t, j.out)
		if len(a) != len(b) {
			t.Fatalf("%v: %d lines of metrics, want %d", mode, len(b), len(a))
		}
		for i := range a {
			if a[i].Step != b[i].Step || a[i].Loss != b[i].Loss || a[i].GradNorm != b[i].GradNorm || a[i].TokensTotal != b[i].TokensTotal ||
				!reflect.DeepEqual(a[i].ValidLoss, b[i].ValidLoss) {
				t.Errorf("%v: step %d: %+v, want %+v", mode, i+1, b[i], a[i])
			}
		}
	}
}

// copyTree copies the files of a folder.
func copyTree(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// editJSON changes the object in a file.
func editJSON(t *testing.T, path string, change func(object map[string]any)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var object map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		t.Fatal(err)
	}
	change(object)
	if b, err = json.Marshal(object); err != nil {
		t.Fatal(err)
	}
	write(t, path, string(b))
}

// TestExportedConfig: beside all weights lies the model's config.json with their type, whatever type
// they came in, and otherwise as it was.
func TestExportedConfig(t *testing.T) {
	for _, c := range []struct{ backend, want string }{{"cpu", "float32"}, {"reference", "float64"}} {
		skipSlow(t, c.backend)
		for _, key := range []string{"torch_dtype", "dtype"} {
			work := copyTree(t, demo)
			var want map[string]any
			editJSON(t, work+"/model/config.json", func(m map[string]any) {
				delete(m, "torch_dtype")
				m[key], m["rms_norm_eps"], m["note"] = "bfloat16", json.Number("1.00e-05"), map[string]any{"dtype": "<int8>"}
				want = m
			})
			j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"mode=full", "train.steps=1", "backend=" + c.backend, "model=" + work + "/model"}}
			j.must(t, "")
			var written string
			editJSON(t, j.out+"/model/config.json", func(got map[string]any) {
				want["torch_dtype"], want[key] = c.want, c.want
				written = fmt.Sprint(got)
			})
			if written != fmt.Sprint(want) {
				t.Errorf("got  %s\nwant %v", written, want)
			}
		}
	}
}

// TestNoEnd: that no end is appended is said, and why.
func TestNoEnd(t *testing.T) {
	for _, c := range []struct {
		eos  any
		want string
	}{{nil, "neither tokenizer nor config.json names one"}, {[]int{1, 0}, "config.json names several, [1 0], and tokenizer_config.json says of none"}, {1, ""}} {
		work := copyTree(t, demo)
		if err := os.Remove(work + "/model/tokenizer_config.json"); err != nil {
			t.Fatal(err)
		}
		editJSON(t, work+"/model/config.json", func(m map[string]any) { m["eos_token_id"] = c.eos })
		var log bytes.Buffer
		j := job{out: filepath.Join(t.TempDir(), "run"), log: &log, sets: []string{"model=" + work + "/model", "train.steps=1"}}
		j.must(t, "")
		if !strings.Contains(log.String(), c.want) || strings.Contains(log.String(), "no end-of-sequence token") != (c.want != "") {
			t.Errorf("eos_token_id %v: said %q, want %q", c.eos, &log, c.want)
		}
	}
}

// TestModelDropout: that the model's own dropout is not applied is said once.
func TestModelDropout(t *testing.T) {
	work := copyTree(t, demo)
	for _, p := range []float64{0, 0.1} {
		editJSON(t, work+"/model/config.json", func(m map[string]any) { m["attention_dropout"] = p })
		var log bytes.Buffer
		j := job{out: filepath.Join(t.TempDir(), "run"), log: &log, sets: []string{"model=" + work + "/model", "train.steps=1"}}
		j.must(t, "")
		if n := strings.Count(log.String(), "keys=attention_dropout"); n > 1 || (n == 1) != (p > 0) {
			t.Errorf("attention_dropout %v: said %q", p, &log)
		}
	}
}

// TestPrompts: what cannot be a prompt is refused before training, and an end that the tokenizer
// puts after every text is none of a prompt.
func TestPrompts(t *testing.T) {
	run := func(prompt string, change func(tokenizer map[string]any)) (report string, err error) {
		work := copyTree(t, demo)
		editJSON(t, work+"/model/tokenizer.json", change)
		var b bytes.Buffer
		j := job{out: filepath.Join(t.TempDir(), "run"), report: &b, sets: []string{"model=" + work + "/model", fmt.Sprintf("sample.prompts=[%q]", prompt)}}
		err = j.run(t, "")
		_, report, _ = strings.Cut(b.String(), "after training:")
		return report, err
	}
	for _, c := range []struct {
		prompt, want string
		change       func(tokenizer map[string]any)
	}{
		{"", `sample.prompts: "" is no token, and the tokenizer puts none in front`, func(m map[string]any) { delete(m, "post_processor") }},
		{"Hi <more>", `sample.prompts: "Hi <more>": token 512, "<more>", is outside of the model's vocabulary of 512`, func(m map[string]any) {
			m["added_tokens"] = append(m["added_tokens"].([]any), map[string]any{"id": 512, "content": "<more>"})
		}},
	} {
		if _, err := run(c.prompt, c.change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: error %v, want %q", c.prompt, err, c.want)
		}
	}
	const question = "Where does the owl live?"
	want, err := run(question, func(map[string]any) {})
	if err != nil {
		t.Fatal(err)
	}
	got, err := run(question, func(m map[string]any) {
		template := m["post_processor"].(map[string]any)
		template["special_tokens"].(map[string]any)["</s>"] = map[string]any{"ids": []int{1}}
		template["single"] = append(template["single"].([]any), map[string]any{"SpecialToken": map[string]any{"id": "</s>"}})
	})
	if err != nil || got != want || !strings.Contains(got, question) {
		t.Errorf("error %v; with an end behind the prompt the answer is%swithout%s", err, got, want)
	}
}

// TestResumeRefuses changes what a resumed run computes with, and what does not change a bit.
func TestResumeRefuses(t *testing.T) {
	work := copyTree(t, demo)
	base := fmt.Sprintf("model: %s/model\ndata: {train: %s/train.jsonl, valid: %s/valid.jsonl}\n"+
		"train: {steps: 6, save_every: 2}\nlora: {rank: 2}\nprofile: false\n", work, work, work)
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, base)
	finished := adapterBytes(t, j.out)
	j.resume = true
	for _, c := range []struct{ set, want string }{
		{"lora.rank=3", "lora.rank was 2 and is now 3"}, {"optimizer.lr=1e-5", "optimizer.lr was 0.0002 and is now 1e-05"},
		{"train.batch_size=2", "train.batch_size"}, {"seed=5", "seed was 0 and is now 5"}, {"train.steps=8", "the learning rate of every step depends on the number of steps"},
		{"backend=reference", "the backend has changed since: it was cpu, F32 and is now reference, F64"}, {"data.shuffle=false", "data.shuffle"},
	} {
		k := j
		k.sets = []string{c.set}
		if err := k.run(t, base); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "step-000006") {
			t.Errorf("%s: error %v, want %q", c.set, err, c.want)
		}
	}
	for _, set := range []string{"threads=1", "backend=cpu", "train.save_every=3", "train.keep=1", "profile=true", "train.recompute=block", "data.valid="} {
		var report bytes.Buffer
		k := job{out: copyTree(t, j.out), resume: true, sets: []string{set}, report: &report}
		for _, n := range []string{"checkpoints/step-000006", adapterFolder} {
			if err := os.RemoveAll(filepath.Join(k.out, n)); err != nil {
				t.Fatal(err)
			}
		}
		k.must(t, base)
		if !strings.Contains(report.String(), "resumed after step 4") || !bytes.Equal(finished, adapterBytes(t, k.out)) {
			t.Errorf("%s: the adapter differs from that of an undisturbed run:\n%s", set, &report)
		}
		k.sets = nil // and back again
		k.must(t, base)
		if m := readMetrics(t, k.out); m[5].ValidLoss == nil {
			t.Errorf("%s: no validation after the last step", set)
		}
	}
	changed := func(name, want string) {
		t.Helper()
		path := filepath.Join(work, name)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		after := bytes.Clone(before)
		if strings.HasSuffix(name, ".safetensors") {
			after[len(after)-1] ^= 1
		} else {
			after = bytes.Replace(after, []byte("river"), []byte("stream"), 1)
		}
		if err := os.WriteFile(path, after, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := j.run(t, base); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s changed: error %v, want %q", name, err, want)
		}
		if err := os.WriteFile(path, before, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	changed("model/model.safetensors", "the model "+work+"/model has changed since")
	changed("train.jsonl", "the training data "+work+"/train.jsonl has changed since")
	changed("valid.jsonl", "the validation data "+work+"/valid.jsonl has changed since")
	j.must(t, base)
}

// TestDamagedCheckpoint: a damaged checkpoint is passed over, and the run ends
// with the same bytes. Where all are damaged, it says how to begin again.
func TestDamagedCheckpoint(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, "")
	want := adapterBytes(t, j.out)
	for _, step := range []string{"step-000012", "step-000010"} {
		path := filepath.Join(j.out, "checkpoints", step, optimizerFile)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 4
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	j.resume = true
	j.must(t, "")
	if got := readMetrics(t, j.out); len(got) != 12 || got[11].Step != 12 {
		t.Errorf("%d lines of metrics", len(got))
	}
	if !bytes.Equal(adapterBytes(t, j.out), want) {
		t.Error("the final adapter differs")
	}
	for _, step := range []string{"step-000005", "step-000010", "step-000012"} {
		write(t, filepath.Join(j.out, "checkpoints", step, stateFile), "")
	}
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "start again without -resume, which keeps this run") {
		t.Errorf("all are damaged: error %v", err)
	}
	j.resume = false
	j.must(t, "")
	if !bytes.Equal(adapterBytes(t, j.out+".old-1"), want) {
		t.Error("the run whose checkpoints are damaged is not kept")
	}
}

// TestUnwritten ends a run that cannot write its metrics, then neither those nor a checkpoint, then
// not its result. It is told what to do, and does it.
func TestUnwritten(t *testing.T) {
	want := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"mode=full"}}
	want.must(t, "")
	work := copyTree(t, demo)
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"mode=full", "model=" + work + "/model"}}
	run := func(disturb func(tr *Trainer)) error {
		cfg, o := j.config(t, "")
		tr := &Trainer{cfg: cfg, options: o, prof: profile.New()}
		defer tr.close()
		if err := errors.Join(tr.open(t.Context()), tr.begin()); err != nil {
			t.Fatal(err)
		}
		disturb(tr)
		if err := tr.train(t.Context()); err != nil {
			return err
		}
		return tr.finish(t.Context())
	}
	saved, tokenizer := filepath.Join(j.out, checkpointFolder), filepath.Join(work, "model", "tokenizer.json")
	for _, c := range []struct {
		disturb func(tr *Trainer)
		mend    func() error
		want    []string
	}{
		{func(tr *Trainer) { tr.report.file.Close() }, func() error { return nil },
			[]string{"metrics of step 1: write " + j.out + "/metrics.jsonl: ", ": mend this, then continue from " + saved + "/step-000001 with -resume"}},
		{func(tr *Trainer) { tr.report.file.Close(); os.Rename(saved, saved+"-away"); write(t, saved, "") },
			func() error { return errors.Join(os.Remove(saved), os.Rename(saved+"-away", saved)) },
			[]string{"metrics of step 2: ", "checkpoint of step 2: ", "; what was saved before is untouched: mend this, then continue from "}},
		{func(*Trainer) { os.Rename(tokenizer, tokenizer+"-away") }, func() error { return os.Rename(tokenizer+"-away", tokenizer) },
			[]string{j.out + "/model: writing tokenizer.json: ", ": mend this, then continue from " + saved + "/step-000012 with -resume"}},
	} {
		err := run(c.disturb)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		}
		if err := c.mend(); err != nil {
			t.Fatal(err)
		}
		j.resume = true
	}
	j.must(t, "")
	a, _ := os.ReadFile(filepath.Join(want.out, "model/model.safetensors"))
	if b, err := os.ReadFile(filepath.Join(j.out, "model/model.safetensors")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the model differs from that of an undisturbed run (%v)", err)
	}
}

// TestCutMetrics: the lines of whole steps stay, up to the one that a run goes on from.
func TestCutMetrics(t *testing.T) {
	path := filepath.Join(t.TempDir(), metricsFile)
	write(t, path, `{"step": 1}`+"\nnoise\n"+`{"step": 3}`+"\n"+`{"step": 2}`+"\n"+`{"step": 2, "lo`)
	last, at, err := cutMetrics(path, 2)
	if err != nil || last.Step != 2 || at != 12 {
		t.Fatal(last, at, err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != `{"step": 1}`+"\n"+`{"step": 2}`+"\n" {
		t.Errorf("%q, %v", b, err)
	}
	write(t, path, `{"step": 1}`+"\n"+strings.Repeat("\x00", 1<<17)) // as after a power failure
	if last, at, err := cutMetrics(path, 1); err != nil || last.Step != 1 || at != 0 {
		t.Error(last, at, err)
	}
	folder := t.TempDir()
	if _, _, err := cutMetrics(folder, 2); err == nil || !strings.Contains(err.Error(), "not a regular file") || strings.Count(err.Error(), folder) != 1 {
		t.Errorf("no file: error %v", err)
	}
}

// TestDiverged: a loss that is no number ends the run with its step, and the
// checkpoints from before stay.
func TestDiverged(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"optimizer.lr=1000", "optimizer.schedule=constant", "optimizer.clip=0", "train.steps=200", "train.save_every=1"}}
	err := j.run(t, "")
	if err == nil || !strings.Contains(err.Error(), "training has diverged") || !strings.Contains(err.Error(), "or set optimizer.clip, and start a new run") || !strings.Contains(err.Error(), "checkpoints/step-") {
		t.Fatalf("error %v", err)
	}
	j.sets = append(j.sets, "train.eval_every=1")
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "training has diverged") {
		t.Fatalf("with validation: error %v", err)
	}
}

// TestNothingDamagedIsSaved: the last update's result is looked at, too, and a first adapter.
func TestNothingDamagedIsSaved(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"optimizer.lr=1000", "optimizer.eps=1e-37", "optimizer.betas=[0, 0]", "optimizer.schedule=constant",
		"optimizer.weight_decay=1000", "train.steps=40", "train.save_every=1", "data.valid="}}
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "training has diverged") {
		t.Errorf("error %v", err)
	}
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	path := filepath.Join(first.out, "adapter", lora.WeightsFile)
	b := adapterBytes(t, first.out)
	copy(b[len(b)-4:], []byte{0, 0, 0xc0, 0x7f})
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	next := job{out: filepath.Join(t.TempDir(), "next"), sets: []string{"lora.adapter=" + filepath.Dir(path)}}
	if err := next.run(t, ""); err == nil || !strings.Contains(err.Error(), "lora.adapter: ") || !strings.Contains(err.Error(), "is NaN") {
		t.Errorf("error %v", err)
	}
}

// TestDamagedWeights: the message names the tensor and the element.
func TestDamagedWeights(t *testing.T) {
	work := copyTree(t, demo)
	path := filepath.Join(work, "model", "model.safetensors")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copy(b[len(b)-4:], []byte{0, 0, 0xc0, 0x7f})
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"model=" + work + "/model"}}
	err = j.run(t, "")
	if err == nil || !strings.Contains(err.Error(), "step 1: the loss is NaN") || !strings.Contains(err.Error(), "model.safetensors: tensor ") {
		t.Fatalf("error %v", err)
	}
}

// TestLocked: two runs in one folder would destroy each other's work.
func TestLocked(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run")}
	f, err := lock(j.out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, resume := range []bool{false, true} {
		j.resume = resume
		if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "another process is training in") {
			t.Errorf("resume %v: error %v", resume, err)
		}
	}
}

// TestSetAside: a new run in the folder of an earlier one destroys nothing.
func TestSetAside(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, "")
	j.sets = []string{"seed=3"}
	j.must(t, "")
	if bytes.Equal(adapterBytes(t, j.out), adapterBytes(t, j.out+".old-1")) {
		t.Error("the earlier run is not kept")
	}
	if err := os.WriteFile(filepath.Join(t.TempDir(), "letter"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, "letter"), []byte("dear"), 0o644); err != nil {
		t.Fatal(err)
	}
	j.out = foreign
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "holds no run") {
		t.Errorf("error %v", err)
	}
}
