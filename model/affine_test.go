package model_test

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/reference"
	"graft/model"
	"graft/program"
)

const mlx = "testdata/mlx" // made by bench/affine.py

// TestAffine: a model that mlx-lm quantised computes what it computes there.
func TestAffine(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(mlx, "logits.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Tokens []int32
		Logits [][]float64
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	var flat []float64
	for _, row := range want.Logits {
		flat = append(flat, row...)
	}
	m, err := model.Open(mlx)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	types := map[kernels.DType]int{}
	for _, x := range m.Tensors() {
		types[x.DType]++
	}
	if types[kernels.Affine4] != 10 || types[kernels.Affine8] != 6 {
		t.Errorf("tensors by type: %v", types)
	}
	for _, backend := range []kernels.Backend{reference.New(), cpu.New(cpu.Options{})} {
		defer backend.Close()
		in, err := m.Place(backend, model.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r, n := in.Infer(), len(want.Tokens)
		plan := r.Plan(program.Counts{Tokens: n, LossRows: n, Sequences: 1})
		arena, err := backend.Alloc(plan.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		plan.Place(arena)
		inputs := model.Inputs{Tokens: want.Tokens, Bounds: []int32{0, int32(n)}}
		for i := range int32(n) {
			inputs.Positions, inputs.Rows = append(inputs.Positions, i), append(inputs.Rows, i)
		}
		r.Fill(inputs, program.Step{})
		run(t, backend, r)
		if d := distance(r.Logits.Float64s(), flat); !(d < 2e-5) {
			t.Errorf("%s: logits differ from MLX's by %.2g", backend.Info().Name, d)
		}
	}
	if _, err := m.Place(cpu.New(cpu.Options{Threads: 1}), model.Options{Full: true}); err == nil || !strings.Contains(err.Error(), "quantised (AFFINE4)") {
		t.Errorf("mode full: %v", err)
	}
}

// entry is what a safetensors header says of a tensor.
type entry struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

// TestAffineDamaged changes what the file says of one tensor.
func TestAffineDamaged(t *testing.T) {
	const module = "model.layers.1.mlp.up_proj."
	file, err := os.ReadFile(filepath.Join(mlx, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(filepath.Join(mlx, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	length := int(binary.LittleEndian.Uint64(file))
	for _, c := range []struct {
		tensor string
		change func(all map[string]*entry, x *entry)
		want   string
	}{
		{"scales", func(all map[string]*entry, x *entry) { all["other"] = x; delete(all, module+"scales") }, "type U32, but there are no " + module + "scales"},
		{"biases", func(all map[string]*entry, x *entry) { all["other"] = x; delete(all, module+"biases") }, "and " + module + "biases beside it"},
		{"scales", func(_ map[string]*entry, x *entry) { x.Shape = []int{2, 128} }, "scales [2 128] and biases [128 2]"},
		{"biases", func(_ map[string]*entry, x *entry) { x.Shape = []int{256} }, "biases [256]"},
		{"scales", func(_ map[string]*entry, x *entry) { x.DType = "I16" }, "is of type I16, want F16, BF16 or F32"},
		{"weight", func(_ map[string]*entry, x *entry) { x.Shape = []int{64, 32} }, "for [128 64] it is [128 8] with 4 bits and [128 16] with 8"},
		{"weight", func(all map[string]*entry, x *entry) {
			for _, next := range all {
				if next.Offsets[0] == x.Offsets[1] {
					next.DType = "F6" // of a size that nobody knows
					next.Offsets[0] -= 4
				}
			}
			x.Offsets[1] -= 4
		}, "8188 bytes, want 8192"},
	} {
		var all map[string]*entry
		if err := json.Unmarshal(file[8:8+length], &all); err != nil {
			t.Fatal(err)
		}
		delete(all, "__metadata__")
		c.change(all, all[module+c.tensor])
		header, err := json.Marshal(all)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		damaged := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		for name, b := range map[string][]byte{"model.safetensors": append(damaged, file[8+length:]...), "config.json": config} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		m, err := model.Open(dir)
		if err == nil {
			m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.tensor, err, c.want)
		}
	}
}
