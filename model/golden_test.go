package model_test

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/reference"
	"graft/lora"
	"graft/model"
	"graft/model/safetensors"
	"graft/program"
)

// goldenDir holds values made with transformers and PEFT in float64; see the
// README there.
const goldenDir = "../../shared/golden"

// golden is one folder of golden values.
type golden struct {
	file    *safetensors.File
	lengths []int
	tokens  []int32
	labels  []int32
}

func openGolden(t *testing.T, family string) golden {
	t.Helper()
	f, err := safetensors.Open(filepath.Join(goldenDir, family, "golden.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	g := golden{file: f}
	for _, n := range ints(t, f, "lengths") {
		g.lengths = append(g.lengths, int(n))
	}
	g.tokens, g.labels = ints(t, f, "input_ids"), ints(t, f, "labels")
	return g
}

func ints(t *testing.T, f *safetensors.File, name string) []int32 {
	t.Helper()
	x, ok := f.Tensor(name)
	if !ok || x.DType != kernels.I64 {
		t.Fatalf("golden: no %s", name)
	}
	out := make([]int32, x.Len())
	for i := range out {
		b := x.Data[8*i:]
		out[i] = int32(uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24)
	}
	return out
}

func (g golden) floats(t *testing.T, name string) []float64 {
	t.Helper()
	x, ok := g.file.Tensor(name)
	if !ok {
		t.Fatalf("golden: no %s", name)
	}
	v, err := x.Float64s()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// bind fills a program with the golden sequences. Without all, only trained
// rows are asked for.
func (g golden) bind(t *testing.T, b kernels.Backend, r *model.Run, all bool) {
	t.Helper()
	bounds := []int32{0}
	var positions, rows, targets []int32
	for _, n := range g.lengths {
		from := bounds[len(bounds)-1]
		for i := range int32(n) {
			positions = append(positions, i)
			if all {
				rows = append(rows, from+i)
			} else if int(i)+1 < n && g.labels[from+i+1] != -100 {
				rows = append(rows, from+i)
				targets = append(targets, g.labels[from+i+1])
			}
		}
		bounds = append(bounds, from+int32(n))
	}
	plan := r.Plan(program.Counts{Tokens: len(g.tokens), LossRows: len(rows), Sequences: len(g.lengths)})
	arena, err := b.Alloc(plan.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plan.Place(arena)
	r.Bind(program.Step{Tokens: len(g.tokens), LossRows: len(rows), Bounds: bounds})
	r.Tokens.SetInt32s(g.tokens)
	r.Positions.SetInt32s(positions)
	r.Bounds.SetInt32s(bounds)
	r.Rows.SetInt32s(rows)
	if r.Targets != nil {
		r.Targets.SetInt32s(targets)
	}
}

func run(t *testing.T, b kernels.Backend, r *model.Run) {
	t.Helper()
	if err := b.Run(r.Ops, nil); err != nil {
		t.Fatal(err)
	}
}

// distance is the largest difference, relative to the largest value.
func distance(got, want []float64) float64 {
	if len(got) != len(want) {
		return math.Inf(1)
	}
	var diff, scale float64
	for i := range want {
		diff, scale = max(diff, math.Abs(got[i]-want[i])), max(scale, math.Abs(want[i]))
	}
	if diff != diff {
		return math.Inf(1)
	}
	return diff / scale
}

// TestGolden compares logits, losses and the gradients of all adapters with
// transformers and PEFT, for every family and every LoRA variant that is
// implemented.
func TestGolden(t *testing.T) {
	if _, err := os.Stat(goldenDir); err != nil {
		t.Skip("no ../shared/golden here: the golden values are not part of the project")
	}
	for _, family := range []string{"llama", "llama-tied-bias", "llama3-rope", "mistral", "qwen2", "qwen3", "gemma2", "gemma3",
		"phi3", "olmo2", "granite", "smollm3"} {
		t.Run(family, func(t *testing.T) {
			ref, fast := reference.New(), cpu.New(cpu.Options{})
			defer ref.Close()
			defer fast.Close()
			// transformers computes angles, and stores logits, in float32: more than its rounding cannot agree.
			testGolden(t, family, ref, tolerance{logits: 1e-5, loss: 1e-7, gradient: 1e-6})
			testGolden(t, family, fast, tolerance{logits: 1e-4, loss: 1e-5, gradient: 1e-4})
		})
	}
}

type tolerance struct{ logits, loss, gradient float64 }

func testGolden(t *testing.T, family string, b kernels.Backend, tol tolerance) {
	g := openGolden(t, family)
	dir := filepath.Join(goldenDir, family)
	m, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in, err := m.Place(b, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, got, want []float64, tol float64) {
		t.Helper()
		d := distance(got, want)
		t.Logf("%s: %s: relative distance %.1e", b.Info().Name, what, d)
		if !(d <= tol) {
			t.Errorf("%s: %s: relative distance %.3g, want at most %g", b.Info().Name, what, d, tol)
		}
	}
	check("base logits", logits(t, g, b, in), g.floats(t, "base_logits"), tol.logits)
	for _, variant := range []string{"lora", "rslora", "pattern"} {
		adapter := filepath.Join(dir, variant)
		if _, err := os.Stat(adapter); err != nil {
			continue
		}
		c, err := lora.ReadConfig(adapter)
		if err != nil {
			t.Fatal(err)
		}
		adapters, err := c.Adapters(m.Decoder)
		if err != nil {
			t.Fatal(err)
		}
		in, err := m.Place(b, model.Options{Adapters: adapters})
		if err != nil {
			t.Fatal(err)
		}
		if err := lora.Load(adapter, in); err != nil {
			t.Fatal(err)
		}
		check(variant+" logits", logits(t, g, b, in), g.floats(t, variant+".logits"), tol.logits)
		r := in.Train(false)
		g.bind(t, b, r, false)
		run(t, b, r)
		losses := r.Loss.Float64s()
		var sum float64
		for _, l := range losses {
			sum += l
		}
		n := float64(len(losses))
		check(variant+" loss", []float64{sum / n}, g.floats(t, variant+".loss"), tol.loss)
		for _, q := range in.Params.List() {
			grad := q.Value.Gradient().Float64s()
			for i := range grad {
				grad[i] /= n
			}
			key := variant + ".grad.base_model.model." + q.Name
			d := distance(grad, g.floats(t, key))
			if !(d <= tol.gradient) {
				t.Errorf("%s: %s: relative distance %.3g, want at most %g", b.Info().Name, key, d, tol.gradient)
			}
		}
	}
}

func logits(t *testing.T, g golden, b kernels.Backend, in *model.Instance) []float64 {
	t.Helper()
	r := in.Infer()
	g.bind(t, b, r, true)
	run(t, b, r)
	out := r.Logits.Float64s()
	in.CapLogits(out)
	return out
}

// TestTorchFiles: the same model from PyTorch's formats gives the same logits,
// up to the precision that they store.
func TestTorchFiles(t *testing.T) {
	dir := "../../shared/models/stories260k"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no ../shared/models here: the model is not part of the project")
	}
	want := storiesLogits(t, dir)
	for _, c := range []struct {
		file string
		tol  float64
	}{{"pytorch_model.bin", 0}, {"nested_bf16.pt", 0.05}, {"legacy_f16.bin", 0.005}} {
		folder := t.TempDir()
		for from, to := range map[string]string{
			filepath.Join(dir, "config.json"):               "config.json",
			filepath.Join(goldenDir, "stories260k", c.file): c.file,
		} {
			b, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, to), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		d := distance(storiesLogits(t, filepath.Join(folder, c.file)), want)
		t.Logf("%s: relative distance %.1e", c.file, d)
		if d > c.tol || d == 0 && !strings.HasPrefix(c.file, "pytorch") {
			t.Errorf("%s: logits differ by %v, want at most %v", c.file, d, c.tol)
		}
	}
}

func storiesLogits(t *testing.T, path string) []float64 {
	t.Helper()
	b := reference.New()
	defer b.Close()
	m, err := model.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	in, err := m.Place(b, model.Options{})
	if err != nil {
		t.Fatal(err)
	}
	g := golden{lengths: []int{12}, tokens: []int32{1, 385, 328, 432, 261, 352, 266, 280, 294, 263, 377, 267}}
	return logits(t, g, b, in)
}
