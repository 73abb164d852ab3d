package main

import (
	"bufio"
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"graft/configs"
)

// TestMain runs the program itself where a test asks for a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("GRAFT_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

func command(args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, &out, &err)
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	code, _, help := command("-h")
	if code != 0 {
		t.Errorf("-h: exit code %d", code)
	}
	for _, k := range configs.Keys() {
		if !strings.Contains(help, "  "+k.Name+" ") {
			t.Errorf("the help does not name %s", k.Name)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "train: -config is missing"},
		{[]string{"-config", "nowhere.yaml"}, "train: config: open nowhere.yaml"},
		{[]string{"-config", "x", "y"}, `train: "y" is no flag`},
		{[]string{"-frobnicate"}, "flag provided but not defined"},
		{[]string{"-config", "../../configs/llama-lora.yaml", "-set", "lora.rnk=3"}, "did you mean lora.rank?"},
		{[]string{"-config", "../../configs/llama-lora.yaml", "-backend", "cuda"}, `backend: "cuda", want one of auto, cpu, metal, reference`},
	} {
		code, _, stderr := command(c.args...)
		if code != exitError || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "goroutine") {
			t.Errorf("%v: exit code %d, %q, want %q", c.args, code, stderr, c.want)
		}
	}
}

func TestBench(t *testing.T) {
	if code, _, help := command("bench", "-h"); code != 0 || !strings.Contains(help, "train bench -only softmax") || !strings.Contains(help, "-threads") {
		t.Errorf("-h: exit code %d, %q", code, help)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"x"}, `"x" is no flag`},
		{[]string{"-only", "("}, "-only: error parsing regexp"},
		{[]string{"-only", "nothing like it"}, "-only: nothing is named like"},
		{[]string{"-backend", "cuda"}, "there is no cuda; auto, cpu, metal and reference are"},
		{[]string{"-model", "nowhere"}, "model nowhere: there is no such"},
		{[]string{"-model", "x", "-batch", "0", "-length", "1"}, "-length is 1, want 2 to"},
		{[]string{"-only", "leads: softmax", "-json", "no/where.json"}, "no/where.json"},
	} {
		code, stdout, stderr := command(append([]string{"bench"}, c.args...)...)
		if strings.Contains(stdout, "softmax") {
			t.Errorf("%v: timed before it fails:\n%s", c.args, stdout)
		}
		if code != exitError || !strings.Contains(stderr, c.want) || strings.Contains(stderr, "goroutine") {
			t.Errorf("%v: exit code %d, %q, want %q", c.args, code, stderr, c.want)
		}
	}
	if runtime.GOOS != "darwin" {
		code, _, stderr := command("bench", "-backend", "metal")
		if want := "train: metal: Metal needs macOS on Apple silicon"; code != exitError || !strings.HasPrefix(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("-backend metal: exit code %d, %q, want %q", code, stderr, want)
		}
	}
	file := filepath.Join(t.TempDir(), "rows.json")
	code, stdout, stderr := command("bench", "-model", "../../configs/demo/model", "-steps", "1", "-batch", "2", "-length", "9", "-json", file)
	b, err := os.ReadFile(file)
	if code != 0 || err != nil || !strings.Contains(stdout, "whole step") || !strings.Contains(string(b), `"kind": "whole step"`) {
		t.Errorf("exit code %d, %s, %v\n%s", code, stderr, err, stdout)
	}
}

// TestLongValue: a message repeats no more of a value than a line holds.
func TestLongValue(t *testing.T) {
	long := strings.Repeat("Zürich ", 1<<14)
	for _, c := range []struct{ set, want string }{
		{"model=" + long, "train: model: stat Z"}, {"data.format=" + long, "want one of auto, text, completion"}, {long, "want key=value"},
	} {
		code, _, stderr := command("-config", "../../configs/llama-lora.yaml", "-set", c.set)
		if code != exitError || len(stderr) > 2*maxLine || !utf8.ValidString(stderr) || !strings.Contains(stderr, c.want) {
			t.Errorf("exit code %d, %d bytes: %.3000q, want %q", code, len(stderr), stderr, c.want)
		}
	}
}

// TestBadFlag: one line says what is wrong.
func TestBadFlag(t *testing.T) {
	for _, args := range [][]string{{"-bogus"}, {"bench", "-bogus"}, {"doctor", "-bogus"}, {"bench", "-batch", "x"}} {
		code, stdout, stderr := command(args...)
		if code != exitError || stdout != "" || !strings.HasPrefix(stderr, "train: ") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
	for _, args := range [][]string{{"-h"}, {"bench", "-h"}, {"doctor", "-h"}} {
		if code, _, stderr := command(args...); code != 0 || !strings.Contains(stderr, "Flags:") {
			t.Errorf("%v: exit code %d, %q", args, code, stderr)
		}
	}
}

// TestDemo runs the README's job as a newcomer does.
func TestDemo(t *testing.T) {
	t.Chdir("../..")
	dir := filepath.Join(t.TempDir(), "run")
	code, stdout, stderr := command("-config", "configs/llama-lora.yaml", "-out", dir)
	if code != 0 {
		t.Fatalf("exit code %d:\n%s", code, stderr)
	}
	before, after, ok := strings.Cut(stdout, "after training:")
	const answer = "Where does the fox live? →  The fox lives by the river."
	if !ok || strings.Contains(before, answer) || !strings.Contains(after, answer) || !strings.Contains(after, "weight_grad") {
		t.Errorf("output:\n%s", stdout)
	}
	for _, f := range []string{"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "metrics.jsonl", "profile.json", "config.yaml"} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	if code, _, stderr := command("-config", "configs/llama-lora.yaml", "-out", dir); code != 0 || !strings.Contains(stderr, "an earlier run is kept") {
		t.Errorf("once more: exit code %d, %q", code, stderr)
	}
}

// TestClosedPipe: a run whose output nobody reads any more ends like an interrupted one; so
// does one that is interrupted together with its reader.
func TestClosedPipe(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no signals here")
	}
	t.Chdir("../..")
	for _, interrupt := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "run")
		p := exec.Command(os.Args[0], "-config", "configs/llama-lora.yaml", "-out", dir,
			"-set", "train.steps=1000000", "-set", "train.report_every=1", "-set", "train.eval_every=0", "-set", "sample.prompts=[]")
		p.Env = append(os.Environ(), "GRAFT_TEST_MAIN=1")
		var stderr bytes.Buffer
		p.Stderr = &stderr
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() && !strings.HasPrefix(strings.TrimSpace(lines.Text()), "step ") {
		}
		if interrupt {
			if err := p.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
		out.Close()
		p.Wait()
		saved, err := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*"))
		if code := p.ProcessState.ExitCode(); code != exitInterrupted || err != nil || len(saved) == 0 || !strings.Contains(stderr.String(), "interrupted after step") {
			t.Errorf("interrupted %v: exit code %d, checkpoints %v, %v, %q", interrupt, code, saved, err, &stderr)
		}
	}
}

func TestLog(t *testing.T) {
	var b bytes.Buffer
	l := slog.New(plain{w: &b})
	l.Debug("unheard")
	l.Info("hello")
	l.With("a", 1).WithGroup("g").Warn("careful", "b", "x y")
	if want := "train: hello\ntrain: warning: careful (a: 1, g.b: x y)\n"; b.String() != want {
		t.Errorf("%q, want %q", &b, want)
	}
}
