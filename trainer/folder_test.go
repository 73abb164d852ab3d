package trainer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"graft/checkpoints"
	"graft/configs"
	"graft/kernels"
	"graft/kernels/cpu"
	"graft/lora"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestBeforeData: what is wrong with the folder or with the targets is said before all data
// are read.
func TestBeforeData(t *testing.T) {
	foreign, locked := t.TempDir(), filepath.Join(t.TempDir(), "run")
	write(t, filepath.Join(foreign, "letter"), "mine")
	f, err := lock(locked)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, c := range []struct{ out, set, want string }{
		{foreign, "seed=0", "holds no run"},
		{locked, "seed=0", "another process is training in"},
		{filepath.Join(t.TempDir(), "run"), "lora.targets=[q_prj]", `target "q_prj" matches no linear layer`},
	} {
		j := job{out: c.out, sets: []string{c.set, "data.train=nowhere.jsonl"}}
		if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

// TestForeignFolder: what is no run stays as it is, whatever the names in it.
func TestForeignFolder(t *testing.T) {
	for _, names := range [][]string{{"letter"}, {"checkpoints/code.go", "letter"}, {"config.yaml", "letter"}, {".lock", "letter"}, {"checkpoints/code.go"}} {
		for _, resume := range []bool{false, true} {
			j := job{out: filepath.Join(t.TempDir(), "project"), resume: resume}
			for _, n := range names {
				write(t, filepath.Join(j.out, n), "mine")
			}
			if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "holds no run") {
				t.Errorf("%v, resume %v: error %v", names, resume, err)
			}
			for _, n := range names {
				if b, err := os.ReadFile(filepath.Join(j.out, n)); err != nil || string(b) != "mine" {
					t.Errorf("%v, resume %v: %s is %q, %v", names, resume, n, b, err)
				}
			}
			if entries, err := os.ReadDir(j.out); err != nil || len(entries) > len(names) {
				t.Errorf("%v: something was put there", names)
			}
		}
	}
	j := job{out: filepath.Join(t.TempDir(), "link")}
	if err := os.Symlink(t.TempDir(), j.out); err != nil {
		t.Skip(err)
	}
	for _, end := range []string{"", "/", "/."} {
		k := job{out: j.out + end}
		if err := k.run(t, ""); err == nil || !strings.Contains(err.Error(), "is a link: name the folder itself") {
			t.Errorf("a link, and %q: error %v", end, err)
		}
	}
}

// TestInsideRun: a run in a place that another one writes to would be removed by it.
func TestInsideRun(t *testing.T) {
	dir := t.TempDir()
	outer := job{out: filepath.Join(dir, "run"), sets: []string{"train.steps=1"}}
	outer.must(t, "")
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(outer.out, checkpointFolder), link); err != nil {
		t.Skip(err)
	}
	for _, out := range []string{filepath.Join(outer.out, modelFolder), filepath.Join(outer.out, adapterFolder, "a", "b"), filepath.Join(link, "a")} {
		j := job{out: out}
		if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "keeps its results") {
			t.Errorf("%s: error %v", out, err)
		}
		if _, err := os.Stat(out); err == nil {
			t.Errorf("%s has been made", out)
		}
	}
	for _, out := range []string{filepath.Join(outer.out, "more"), filepath.Join(dir, modelFolder)} {
		job{out: out, sets: outer.sets}.must(t, "")
	}
}

// TestLockedResume: whoever looks for a checkpoint while another run is in the folder leaves
// what that one is writing.
func TestLockedResume(t *testing.T) {
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"lora.adapter=" + filepath.Join(first.out, adapterFolder)}}
	j.must(t, "")
	f, err := lock(j.out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	writing := filepath.Join(j.out, checkpointFolder, ".tmp-step-000013", "half")
	write(t, writing, "a checkpoint")
	j.resume = true
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "another process is training in") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(writing); err != nil {
		t.Error(err)
	}
}

// TestResumeWithoutCheckpoint: a result that is there is kept, and what never came to a
// checkpoint is begun again.
func TestResumeWithoutCheckpoint(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, "")
	want := adapterBytes(t, j.out)
	if err := os.RemoveAll(filepath.Join(j.out, checkpointFolder)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(j.out, "notes.txt"), "mine")
	j.resume, j.sets = true, []string{"lora.rank=2"}
	j.must(t, "")
	if !bytes.Equal(adapterBytes(t, j.out+".old-1"), want) || bytes.Equal(adapterBytes(t, j.out), want) {
		t.Error("the first result is not kept")
	}
	for _, n := range []string{adapterFolder, checkpointFolder} {
		if err := os.RemoveAll(filepath.Join(j.out, n)); err != nil {
			t.Fatal(err)
		}
	}
	j.must(t, "")
	if _, err := os.Stat(j.out + ".old-2"); err == nil {
		t.Error("a run that came to nothing is kept")
	}
	if m := readMetrics(t, j.out); len(m) != 12 {
		t.Errorf("%d lines of metrics", len(m))
	}
}

// TestResumeFinished: a run that is done already stays what it is, and repeats no table.
func TestResumeFinished(t *testing.T) {
	var report bytes.Buffer
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"profile=true"}, report: &report}
	j.must(t, "")
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(j.out, profileFile))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const table = "total ms"
	want, adapter := read(), adapterBytes(t, j.out)
	if !strings.Contains(want, "weight_grad") || !strings.Contains(report.String(), table) {
		t.Fatalf("no profile:\n%s", &report)
	}
	report.Reset()
	j.resume = true
	j.must(t, "")
	same := func() {
		t.Helper()
		if read() != want || !bytes.Equal(adapterBytes(t, j.out), adapter) || strings.Contains(report.String(), table) {
			t.Errorf("another profile, another adapter, or a table:\n%s", &report)
		}
	}
	same()
	j.out, j.resume, j.sets = filepath.Join(t.TempDir(), "unvalidated"), false, append(j.sets, "data.valid=")
	j.must(t, "")
	want = read()
	report.Reset()
	j.resume, j.sets = true, j.sets[:1] // which validates
	j.must(t, "")
	same()
}

// TestFromOwnResult: to rename a run's folder would take away what the next one reads.
func TestFromOwnResult(t *testing.T) {
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, "")
	want := adapterBytes(t, j.out)
	again := j
	again.sets = []string{"lora.adapter=" + filepath.Join(j.out, adapterFolder)}
	if err := again.run(t, ""); err == nil || !strings.Contains(err.Error(), "out: lora.adapter is in ") {
		t.Errorf("error %v", err)
	}
	if !bytes.Equal(adapterBytes(t, j.out), want) {
		t.Error("the first result is not what it was")
	}
	again.out = filepath.Join(t.TempDir(), "other")
	again.must(t, "")

	j = job{out: filepath.Join(t.TempDir(), "run")}
	t.Chdir(filepath.Dir(j.out))
	root := func(sets ...string) []string {
		return append(sets, "model="+modelOfDemo(t), "data.train="+filepath.Join(filepath.Dir(modelOfDemo(t)), "train.jsonl"), "data.valid=")
	}
	j.sets = root()
	j.must(t, "")
	t.Chdir(j.out)
	j.out = "."
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "the current folder is in") {
		t.Errorf("the current folder: error %v", err)
	}
}

// demoFolder is absolute, for tests that change the current folder.
var demoFolder, _ = filepath.Abs(demo)

func modelOfDemo(t *testing.T) string {
	t.Helper()
	return filepath.Join(demoFolder, "model")
}

// TestDamagedFirstAdapter: a run that cannot begin leaves the earlier one where it is.
func TestDamagedFirstAdapter(t *testing.T) {
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	if err := os.Truncate(filepath.Join(first.out, adapterFolder, lora.WeightsFile), 2000); err != nil {
		t.Fatal(err)
	}
	j := job{out: filepath.Join(t.TempDir(), "run")}
	j.must(t, "")
	want := adapterBytes(t, j.out)
	j.sets = []string{"lora.adapter=" + filepath.Join(first.out, adapterFolder)}
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), lora.WeightsFile) {
		t.Errorf("error %v", err)
	}
	if !bytes.Equal(adapterBytes(t, j.out), want) {
		t.Error("the earlier result is not what it was")
	}
}

// TestFirstAdapterGone: a run goes on as it was, whatever has become of the adapter that it
// started from.
func TestFirstAdapterGone(t *testing.T) {
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	start := filepath.Join(t.TempDir(), "start")
	if err := os.CopyFS(start, os.DirFS(filepath.Join(first.out, adapterFolder))); err != nil {
		t.Fatal(err)
	}
	sets := func(steps string) []string {
		return []string{"lora.adapter=" + start, "lora.rank=7", "optimizer.schedule=constant", "train.steps=" + steps}
	}
	whole := job{out: filepath.Join(t.TempDir(), "whole"), sets: sets("12")}
	whole.must(t, "")
	parts := job{out: filepath.Join(t.TempDir(), "parts"), sets: sets("5")}
	parts.must(t, "")
	config := filepath.Join(start, lora.ConfigFile)
	b, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	parts.resume, parts.sets = true, sets("12")
	for _, change := range []func(){
		func() {
			write(t, config, strings.Replace(string(b), `"lora_alpha": 32`, `"lora_alpha": 999`, 1))
		},
		func() { os.RemoveAll(start) },
	} {
		change()
		parts.must(t, "")
		if !bytes.Equal(adapterBytes(t, parts.out), adapterBytes(t, whole.out)) {
			t.Fatal("the adapters differ")
		}
		for _, n := range []string{adapterFolder, "checkpoints/step-000010", "checkpoints/step-000012"} {
			if err := os.RemoveAll(filepath.Join(parts.out, n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if c, err := os.ReadFile(filepath.Join(whole.out, configFile)); err != nil || !strings.Contains(string(c), "rank: 4") {
		t.Errorf("the config that is written down: %v\n%s", err, c)
	}
}

// TestAdapterWrittenDown: config.yaml says what is adapted, however the first adapter's file
// says it, and the run can be resumed.
func TestAdapterWrittenDown(t *testing.T) {
	for _, c := range []struct {
		trained         []string // settings of the first adapter
		targets, layers any      // what its file is made to say
		names           []string // that are written down
		list            []int
	}{
		{[]string{"lora.targets=[q_proj, v_proj]"}, []string{"v_proj", "q_proj"}, nil, []string{"q_proj", "v_proj"}, nil},
		{[]string{"lora.targets=[q_proj, v_proj]", "lora.layers=[1, 2]"}, []string{"self_attn.v_proj", "q_proj"}, []int{2, 1, 2}, []string{"q_proj", "v_proj"}, []int{1, 2}},
		{[]string{`lora.targets=.*\.[02]\..*k_proj`}, `.*\.[02]\..*k_proj`, nil, []string{"model.layers.0.self_attn.k_proj", "model.layers.2.self_attn.k_proj"}, nil},
		{[]string{"lora.targets=[q_proj]", "lora.layers=[2, 3]"}, []string{"q_proj"}, []int{-1, 2, 3, 77}, []string{"q_proj"}, []int{2, 3}},
		{nil, "all-linear", []int{}, []string{"down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"}, nil},
	} {
		first := job{out: filepath.Join(t.TempDir(), "first"), sets: append(c.trained, "train.steps=1")}
		first.must(t, "")
		path := filepath.Join(first.out, adapterFolder, lora.ConfigFile)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		config := map[string]any{}
		if err := json.Unmarshal(b, &config); err != nil {
			t.Fatal(err)
		}
		config["target_modules"], config["layers_to_transform"] = c.targets, c.layers
		if b, err = json.Marshal(config); err != nil {
			t.Fatal(err)
		}
		write(t, path, string(b))
		sets := []string{"lora.adapter=" + filepath.Dir(path), "lora.targets=[o_proj]", "lora.layers=1", "optimizer.schedule=constant"}
		whole := job{out: filepath.Join(t.TempDir(), "whole"), sets: append(sets, "train.steps=4")}
		whole.must(t, "")
		written, err := configs.Load(filepath.Join(whole.out, configFile), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		want := written.LoRA
		want.Targets, want.Layers = configs.Targets{Names: c.names}, configs.Layers{List: c.list}
		if !reflect.DeepEqual(written.LoRA, want) {
			t.Errorf("%v, %v: written down is %+v", c.targets, c.layers, written.LoRA)
		}
		parts := job{out: filepath.Join(t.TempDir(), "parts"), sets: append(sets, "train.steps=2")}
		parts.must(t, "")
		asSet(t, filepath.Join(parts.out, checkpointFolder), 2)
		parts.resume, parts.sets = true, append(sets, "train.steps=4")
		parts.must(t, "")
		if !bytes.Equal(adapterBytes(t, parts.out), adapterBytes(t, whole.out)) {
			t.Errorf("%v, %v: the adapters differ", c.targets, c.layers)
		}
	}
}

// asSet makes a checkpoint one of an older version, whose config has the targets that were set.
func asSet(t *testing.T, dir string, step int) {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("step-%06d", step))
	old := filepath.Join(t.TempDir(), "old")
	if err := os.Rename(path, old); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(old)
	if err != nil {
		t.Fatal(err)
	}
	var all []checkpoints.File
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(old, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == configFile {
			var c map[string]any
			if err := yaml.Unmarshal(b, &c); err != nil {
				t.Fatal(err)
			}
			l := c["lora"].(map[string]any)
			l["targets"], l["layers"] = []string{"o_proj"}, 1
			if b, err = yaml.Marshal(c); err != nil {
				t.Fatal(err)
			}
		}
		if e.Name() != "manifest.json" {
			all = append(all, bytesFile(e.Name(), b))
		}
	}
	if _, err := checkpoints.Save(dir, step, all, 1); err != nil {
		t.Fatal(err)
	}
}

// allocating is a backend that does something before it gives memory.
type allocating struct {
	kernels.Backend
	before func()
}

func (a allocating) Alloc(bytes int) (kernels.Buffer, error) {
	a.before()
	return a.Backend.Alloc(bytes)
}

// TestOneCheckpoint: a run that goes on from an adapter looks for its checkpoint once, so that
// all it reads is of the same one.
func TestOneCheckpoint(t *testing.T) {
	first := job{out: filepath.Join(t.TempDir(), "first")}
	first.must(t, "")
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"lora.adapter=" + filepath.Join(first.out, adapterFolder)}}
	j.must(t, "")
	newest := filepath.Join(j.out, checkpointFolder, "step-000012")
	var log bytes.Buffer
	j.resume, j.log = true, &log
	j.backend = allocating{cpu.New(cpu.Options{}), func() { os.Remove(filepath.Join(newest, optimizerFile)) }}
	if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), "cannot resume from "+newest) {
		t.Errorf("error %v", err)
	}
	if text := log.String(); !strings.Contains(text, "resuming the adapter of a checkpoint") || !strings.Contains(text, "adapter="+newest) {
		t.Errorf("log: %s", text)
	}
}

// TestMovedInputs: a run goes on with the same model and data in another place, and with the
// model's weights file named in the place of its folder, which the adapter names for PEFT.
func TestMovedInputs(t *testing.T) {
	sets := func(dir, file, steps string) []string {
		return []string{"model=" + dir + "/model" + file, "data.train=" + dir + "/train.jsonl", "data.valid=" + dir + "/valid.jsonl",
			"optimizer.schedule=constant", "train.steps=" + steps}
	}
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: sets(demo, "", "5")}
	j.must(t, "")
	moved := copyTree(t, demo)
	j.resume, j.sets = true, sets(moved, "/model.safetensors", "7")
	j.must(t, "")
	editJSON(t, filepath.Join(j.out, adapterFolder, lora.ConfigFile), func(m map[string]any) {
		if base := m["base_model_name_or_path"]; base != moved+"/model" {
			t.Errorf("the adapter's base model is %v", base)
		}
	})
}

// TestRenamedFolder: a run saves nothing, neither checkpoint nor result, in a folder that is no
// longer its own.
func TestRenamedFolder(t *testing.T) {
	for _, last := range []string{"step-000005", "step-000012"} {
		j := job{out: filepath.Join(t.TempDir(), "run")}
		j.report = told(func(text string) {
			if !strings.HasPrefix(text, "saved ") || !strings.HasSuffix(text, last+"\n") {
				return
			}
			if err := os.Rename(j.out, j.out+".moved"); err != nil {
				t.Skip(err) // some systems do not let that happen
			}
			write(t, filepath.Join(j.out, lockFile), "another run's")
		})
		if err := j.run(t, ""); err == nil || !strings.Contains(err.Error(), j.out+" was renamed or removed during the run") {
			t.Errorf("after %s: error %v", last, err)
		}
		if entries, err := os.ReadDir(j.out); err != nil || len(entries) != 1 {
			t.Errorf("after %s: %v in another run's folder, %v", last, entries, err)
		}
	}
}

// told is a writer that does something with every text.
type told func(text string)

func (f told) Write(b []byte) (int, error) {
	f(string(b))
	return len(b), nil
}

// TestCutOff: a weights file that is cut off under a run ends it with a message.
func TestCutOff(t *testing.T) {
	work := copyTree(t, demo)
	j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"model=" + work + "/model", "train.steps=100000", "optimizer.schedule=constant", "train.save_every=1"}}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j.ctx = ctx
	done := make(chan error, 1)
	go func() { done <- j.run(t, "") }()
	for {
		if _, err := os.Stat(filepath.Join(j.out, "checkpoints", "step-000001")); err == nil {
			break
		}
		select {
		case err := <-done:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	if err := os.Truncate(filepath.Join(work, "model", "model.safetensors"), 0); err != nil {
		cancel()
		<-done
		t.Skip(err) // some systems do not let that happen
	}
	if err := <-done; err == nil || !strings.Contains(err.Error(), "model.safetensors was cut off while it was in use") {
		t.Errorf("error %v", err)
	}
}
