package configs

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const minimal = "model: m\ndata:\n  train: t.jsonl\n"

func file(t testing.TB, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "job.yaml")
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLayers(t *testing.T) {
	p := file(t, minimal+"lora: {rank: 4, targets: [q_proj, v_proj], layers: 2}\noptimizer: {lr: 1e-3, betas: [0.8, 0.9], warmup: 5%}\nseed: 7\n")
	c, err := Load(p, []string{"lora.rank=64", "train.steps=5", "lora.rank=3"}, []string{"TRAIN_LORA_RANK=32", "TRAIN_SEED=9", "HOME=/x"})
	if err != nil {
		t.Fatal(err)
	}
	want := Defaults()
	want.Model, want.Data.Train, want.Out, want.Seed = "m", "t.jsonl", filepath.Join("runs", "job"), 9
	want.LoRA.Rank, want.LoRA.Targets, want.LoRA.Layers = 3, Targets{Names: []string{"q_proj", "v_proj"}}, Layers{Last: 2}
	want.Optimizer.LR, want.Optimizer.Betas, want.Optimizer.Warmup = 1e-3, []float64{0.8, 0.9}, Warmup{Fraction: 0.05}
	want.Train.Steps, want.Train.Epochs = 5, 0
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
	if c, err := Load(p, []string{"seed=18446744073709551615"}, nil); err != nil || c.Seed != math.MaxUint64 {
		t.Errorf("the largest seed: %v, %v", c, err)
	} else if again, err := Parse(c.YAML()); err != nil || again.Seed != c.Seed {
		t.Errorf("the largest seed read back: %v, %v", again, err)
	}
	if c, err := Load(p, []string{"out=123", "lora.targets=.*proj"}, nil); err != nil || c.Out != "123" || c.LoRA.Targets.Pattern != ".*proj" {
		t.Errorf("texts without quotes: %+v, %v", c, err)
	}
	for out, want := range map[string]string{"runs/a/": "runs/a", "runs/a/.": "runs/a", "./a": "a", ".": "."} {
		if c, err := Load(p, []string{"out=" + out}, nil); err != nil || c.Out != filepath.FromSlash(want) {
			t.Errorf("out %s: %+v, %v", out, c, err)
		}
	}
	again, err := Parse(c.YAML())
	if err != nil {
		t.Fatalf("%v\n%s", err, c.YAML())
	}
	if !reflect.DeepEqual(again, c) {
		t.Errorf("read back %+v\nwant %+v\n%s", again, c, c.YAML())
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		sets []string
		env  []string
		want []string
	}{
		{text: "", want: []string{"job.yaml: the file is empty"}},
		{text: "- a\n", want: []string{"job.yaml:1: the file is a list, want keys"}},
		{text: "model: [\n", want: []string{"job.yaml:1: did not find"}},
		{text: "\tmodel: x\n", want: []string{"job.yaml: found character"}},
		{text: "seed: 1\n", want: []string{"model: missing", "data.train: missing"}},
		{text: minimal + "lora:\n  rnak: 4\n", want: []string{"job.yaml:5: unknown key lora.rnak; did you mean lora.rank?"}},
		{text: minimal + "rank: 4\n", want: []string{"job.yaml:4: unknown key rank; did you mean lora.rank?"}},
		{text: minimal + "lora: {rank: 7.9}\n", want: []string{`job.yaml:4: lora.rank: "7.9", want a whole number`}},
		{text: minimal + "lora: {rank: true}\n", want: []string{"want a whole number"}},
		{text: minimal + "lora: {rank: [1]}\n", want: []string{"a list, want a whole number"}},
		{text: minimal + "lora: 3\n", want: []string{`lora is "3", want keys`}},
		{text: minimal + "optimizer: {betas: [0.9]}\n", want: []string{"optimizer.betas: 1 numbers, want 2"}},
		{text: minimal + "optimizer: {lr: fast}\n", want: []string{`optimizer.lr: "fast", want a number`}},
		{text: minimal + "optimizer: {lr: .nan}\n", want: []string{"want a number"}},
		{text: minimal + "optimizer: {lr: -1}\n", want: []string{"optimizer.lr: -1, want 0 to 1000"}},
		{text: minimal + "optimizer: {schedule: cosin}\n", want: []string{"did you mean cosine?"}},
		{text: minimal + "optimizer: {warmup: 1.5}\n", want: []string{"optimizer.warmup"}},
		{text: minimal + "train: {steps: 1e3}\n", want: []string{"train.steps"}},
		{text: minimal + "train: {epochs: 0}\n", want: []string{"train.epochs: 0"}},
		{text: minimal + "train: {batch_size: 0}\n", want: []string{"train.batch_size: 0, want 1 to"}},
		{text: minimal + "profile: yes\n", want: []string{"profile", "want true or false"}},
		{text: minimal + "seed: 1\nseed: 2\n", want: []string{"job.yaml:5: seed is set twice"}},
		{text: minimal + "seed: -1\n", want: []string{"job.yaml:4: seed: -1, want 0 or more"}},
		{text: minimal + "seed: 010\n", want: []string{`seed: "010" starts with 0`}},
		{text: minimal + "seed: 18446744073709551616\n", want: []string{`seed: "18446744073709551616", want a whole number`}},
		{text: minimal + "threads: 9223372036854775808\n", want: []string{`threads: "9223372036854775808" is out of range`}},
		{text: minimal + "lora: {layers: [1, 2, 1]}\n", want: []string{"lora.layers: layer 1 is listed twice"}},
		{text: minimal + "seed: &a 1\nthreads: *a\n", want: []string{"aliases are not supported"}},
		{text: minimal, sets: []string{"lora.rnk=8"}, want: []string{"-set lora.rnk=8: unknown key lora.rnk; did you mean lora.rank?"}},
		{text: minimal, sets: []string{"lora.rank"}, want: []string{"-set lora.rank: want key=value"}},
		{text: minimal, sets: []string{"lora.rank=x"}, want: []string{"-set lora.rank=x: lora.rank"}},
		{text: minimal, env: []string{"TRAIN_LORA_RNK=8"}, want: []string{"TRAIN_LORA_RNK; did you mean TRAIN_LORA_RANK?"}},
		{text: minimal + "optimizer: {lr: -1}\nb: 2\n", want: []string{"job.yaml:4: optimizer.lr: -1", "job.yaml:5: unknown key b"}},
		{text: minimal + "train: {steps: 5, epochs: 2}\n", want: []string{"train.steps and train.epochs are both set"}},
		{text: minimal, sets: []string{"train.steps=5", "train.epochs=2"}, want: []string{"-set train.epochs=2: train.steps and train.epochs are both set"}},
		{text: minimal + "lora.rank: 4\n", want: []string{"job.yaml:4: unknown key \"lora.rank\": write lora: {rank: …}"}},
		{text: minimal + "optimizer: {eps: 1e-300}\n", want: []string{"optimizer.eps: 1e-300, want 1e-37 to 1"}},
		{text: minimal + "---\nseed: 1\n", want: []string{"more than one document"}},
		{text: minimal + "out: ''\n", want: []string{"job.yaml:4: out: empty"}},
		{text: minimal + "keep: 3\n", want: []string{"did you mean train.keep?"}},
		{text: minimal + "\"a\\nb\": 3\n", want: []string{"unknown key a b"}},
		{text: minimal, sets: []string{"lora.rank=0"}, want: []string{"-set lora.rank=0: lora.rank: 0, want 1 to"}},
		{text: minimal + "lora: {targets: \"(\"}\n", want: []string{"job.yaml:4: lora.targets", "no regular expression"}},
		{text: minimal + "mode: full\nlora: {adapter: x}\n", want: []string{"mode full trains all weights"}},
		{text: minimal + "a: 1\nb: 2\nlora: {rank: x}\n", want: []string{"job.yaml:4", "job.yaml:5", "job.yaml:6"}},
		{text: "model: \"" + strings.Repeat("x", maxFile) + "\"", want: []string{"over 1048576 bytes"}},
	} {
		_, err := Load(file(t, c.text), c.sets, c.env)
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%.80q %v %v:\nerror %v\nlacks %q", c.text, c.sets, c.env, err, w)
			}
		}
	}
	for _, text := range []string{minimal + "a: [\n", "hello\n", "null\n", "- a\n"} {
		if _, err := Load(file(t, text), nil, nil); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, c := range []struct {
		sets, env []string
		steps     int
		epochs    float64
	}{
		{nil, nil, 5, 0},
		{[]string{"train.epochs=3"}, nil, 0, 3},
		{nil, []string{"TRAIN_TRAIN_EPOCHS=3"}, 0, 3},
		{[]string{"train.steps=7"}, []string{"TRAIN_TRAIN_EPOCHS=3"}, 7, 0},
		{[]string{"train.epochs=0"}, nil, 5, 0},
	} {
		if got, err := Load(file(t, minimal+"train: {steps: 5}\n"), c.sets, c.env); err != nil || got.Train.Steps != c.steps || got.Train.Epochs != c.epochs {
			t.Errorf("%v %v: %v, %+v", c.sets, c.env, err, got)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml"), nil, nil); err == nil {
		t.Error("a missing file was loaded")
	}
}

func TestDiff(t *testing.T) {
	a, b := Defaults(), Defaults()
	b.Train.Keep, b.LoRA.Rank, b.Train.Steps = 9, 8, 50
	harmless := map[string]bool{"train.keep": true, "lora.rank": false, "train.steps": false}
	check := func() {
		t.Helper()
		for _, d := range Diff(&a, &b) {
			if want, ok := harmless[d.Key]; !ok || want != d.Harmless {
				t.Errorf("%+v", d)
			}
			delete(harmless, d.Key)
		}
		if len(harmless) > 0 {
			t.Errorf("not found: %v", harmless)
		}
	}
	check()
	harmless = map[string]bool{"train.steps": true, "optimizer.schedule": false, "train.keep": true, "lora.rank": false}
	b.Optimizer.Schedule = "constant"
	check()
}

func TestKeys(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Keys() {
		if seen[k.Name] || k.Help == "" || k.Type == "" {
			t.Errorf("%+v", k)
		}
		seen[k.Name] = true
	}
	for _, k := range []string{"model", "data.mask_prompt", "lora.targets", "optimizer.betas", "train.accumulate", "profile"} {
		if !seen[k] {
			t.Errorf("no key %s", k)
		}
	}
}

func TestTypes(t *testing.T) {
	if got := (Layers{Last: 3}).Resolve(5); !reflect.DeepEqual(got, []int{2, 3, 4}) {
		t.Error(got)
	}
	if got := (Layers{}).Resolve(5); got != nil {
		t.Error(got)
	}
	if got := (Warmup{Fraction: 0.05}).Steps(30); got != 2 {
		t.Error(got)
	}
	if got := (Warmup{Count: 4}).Steps(30); got != 4 {
		t.Error(got)
	}
}

func FuzzParse(f *testing.F) {
	d := Defaults()
	f.Add(d.YAML())
	f.Add([]byte(minimal))
	f.Add([]byte("lora: {layers: [1, 2], targets: q}\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		again, err := Parse(c.YAML())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("read back %+v, want %+v: %v", again, c, err)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	p := file(b, minimal)
	for b.Loop() {
		if _, err := Load(p, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}
