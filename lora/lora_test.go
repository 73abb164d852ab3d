package lora

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graft/kernels/reference"
	"graft/model"
	"graft/model/safetensors"
)

func open(t *testing.T) *model.Model {
	t.Helper()
	m, err := model.Open("../configs/demo/model")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func place(t *testing.T, m *model.Model, c Config) *model.Instance {
	t.Helper()
	adapters, err := c.Adapters(m.Decoder)
	if err != nil {
		t.Fatal(err)
	}
	b := reference.New()
	t.Cleanup(func() { b.Close() })
	in, err := m.Place(b, model.Options{Adapters: adapters})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func TestTargets(t *testing.T) {
	m := open(t)
	for _, c := range []struct {
		c    Config
		want int // adapted layers of the 4·7+1
		has  string
	}{
		{Config{Rank: 2, Targets: Targets{Pattern: AllLinear}}, 28, "model.layers.3.mlp.down_proj"},
		{Config{Rank: 2, Targets: Targets{Names: []string{"q_proj", "v_proj"}}}, 8, "model.layers.0.self_attn.v_proj"},
		{Config{Rank: 2, Targets: Targets{Names: []string{"mlp.up_proj"}}}, 4, "model.layers.2.mlp.up_proj"},
		{Config{Rank: 2, Targets: Targets{Names: []string{"lm_head"}}}, 1, "lm_head"},
		{Config{Rank: 2, Targets: Targets{Names: []string{"model.layers.1.mlp.gate_proj"}}}, 1, "model.layers.1.mlp.gate_proj"},
		{Config{Rank: 2, Targets: Targets{Pattern: `.*\.[02]\..*(q|k)_proj`}}, 4, "model.layers.2.self_attn.k_proj"},
		{Config{Rank: 2, Targets: Targets{Pattern: AllLinear}, Layers: []int{1, 3}}, 14, "model.layers.1.self_attn.q_proj"},
		{Config{Rank: 2, Targets: Targets{Names: []string{"q_proj", "lm_head", "c_attn"}}, Layers: []int{1, 40}, Lenient: true}, 1, "model.layers.1.self_attn.q_proj"},
	} {
		got, err := c.c.Adapters(m.Decoder)
		if err != nil || len(got) != c.want || got[c.has].Rank != 2 {
			t.Errorf("%+v: %d layers, %v", c.c, len(got), err)
		}
	}
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{Rank: 2, Targets: Targets{Names: []string{"q_proj", "qproj"}}}, `target "qproj" matches no linear layer; there are: q_proj, k_proj`},
		{Config{Rank: 2, Targets: Targets{Names: []string{"q_proj", "lm_head"}}, Layers: []int{1, 3}},
			`target "lm_head" matches no linear layer of layers [1 3]; there are: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj`},
		{Config{Rank: 2, Targets: Targets{Names: []string{"c_attn"}}, Lenient: true}, `targets "c_attn" match no linear layer; there are: q_proj`},
		{Config{Rank: 2, Targets: Targets{Pattern: "q_proj"}}, "match no linear layer"},
		{Config{Rank: 2, Targets: Targets{Pattern: "(?=x)"}}, "no regular expression that Go understands"},
		{Config{Rank: MaxRank + 1, Targets: Targets{Pattern: AllLinear}}, "rank 65537 for model.layers.0.self_attn.q_proj: want 1 to 65536"},
		{Config{Rank: 2, Targets: Targets{Pattern: AllLinear}, Layers: []int{4}}, "layer 4: the model has layers 0 to 3"},
	} {
		if _, err := c.c.Adapters(m.Decoder); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", c.c, err, c.want)
		}
	}
}

func TestScale(t *testing.T) {
	m := open(t)
	c := Config{Rank: 4, Alpha: 8, Targets: Targets{Names: []string{"q_proj", "up_proj"}},
		RankPattern: Pattern[int]{{"up_proj", 16}}, AlphaPattern: Pattern[float64]{{`layers\.1\..*q_proj`, 2}}}
	for _, rs := range []bool{false, true} {
		c.RSLoRA = rs
		a, err := c.Adapters(m.Decoder)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]float64{"model.layers.0.self_attn.q_proj": 2, "model.layers.1.self_attn.q_proj": 0.5, "model.layers.0.mlp.up_proj": 0.5}
		if rs {
			want = map[string]float64{"model.layers.0.self_attn.q_proj": 4, "model.layers.1.self_attn.q_proj": 1, "model.layers.0.mlp.up_proj": 2}
		}
		for name, w := range want {
			if a[name].Scale != w {
				t.Errorf("rslora %v: %s: scale %v, want %v", rs, name, a[name].Scale, w)
			}
		}
	}
}

// TestPatternOrder: of several entries that match, PEFT takes the first in the
// file, also from a file that was written here.
func TestPatternOrder(t *testing.T) {
	m := open(t)
	for patterns, want := range map[string][2]float64{
		`"alpha_pattern":{"q_proj":64,".*layers\\.0\\..*q_proj":16}`: {16, 16},
		`"alpha_pattern":{".*layers\\.0\\..*q_proj":16,"q_proj":64}`: {4, 16},
		`"rank_pattern":{"q_proj":2,".*layers\\.0\\..*q_proj":8}`:    {4, 4},
	} {
		c, err := ParseConfig([]byte(`{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"],` + patterns + `}`))
		if err != nil {
			t.Fatal(err)
		}
		again, err := ReadConfig(write(t, place(t, m, c), c))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []Config{c, again} {
			a, err := c.Adapters(m.Decoder)
			if err != nil {
				t.Fatal(err)
			}
			for i, w := range want {
				if got := a[fmt.Sprintf("model.layers.%d.self_attn.q_proj", i)].Scale; got != w {
					t.Errorf("%s: layer %d: scale %v, want %v", patterns, i, got, w)
				}
			}
		}
	}
}

func TestInitialize(t *testing.T) {
	m := open(t)
	c := Config{Rank: 8, Alpha: 8, Targets: Targets{Pattern: AllLinear}}
	values := func(init string, seed uint64) (a []float64) {
		in := place(t, m, c)
		Initialize(in, init, seed)
		for _, q := range in.Params.List() {
			v := q.Value.Float64s()
			if strings.HasSuffix(q.Name, suffixB) {
				if slices.Max(v) != 0 || slices.Min(v) != 0 {
					t.Errorf("%s is not zero", q.Name)
				}
				continue
			}
			for _, x := range v {
				scaled := x * math.Sqrt(float64(q.Cols)) // uniform in [-1, 1)
				if init == Gaussian {
					scaled = x * float64(q.Rows) // standard normal
				}
				a = append(a, scaled)
			}
		}
		return a
	}
	for init, variance := range map[string]float64{Kaiming: 1.0 / 3, Gaussian: 1} {
		a, b := values(init, 1), values(init, 2)
		var mean, square, product float64
		n := float64(len(a))
		for i, x := range a {
			mean, square, product = mean+x/n, square+x*x/n, product+x*b[i]/n
		}
		if math.Abs(mean) > 0.02 || math.Abs(square/variance-1) > 0.05 || math.Abs(product)/variance > 0.05 {
			t.Errorf("%s: mean %v, variance %v, correlation of two seeds %v", init, mean, square, product)
		}
		if !slices.Equal(a, values(init, 1)) {
			t.Errorf("%s: the same seed gives other values", init)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	const good = `{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]}`
	for _, c := range []struct{ from, to, want string }{
		{good, "", "unexpected end"}, {good, "[]", "cannot unmarshal"},
		{`"LORA"`, `"IA3"`, `peft_type is "IA3"`}, {`"r":4`, `"r":0`, "r is 0"}, {`"r":4`, `"r":"x"`, "cannot unmarshal"},
		{`["q_proj"]`, `[]`, "target_modules is missing or empty"}, {`["q_proj"]`, `[1]`, "not a string"}, {`["q_proj"]`, `null`, "target_modules is missing"},
		{`"r":4`, `"r":4,"use_dora":true`, "use_dora is true: not supported"},
		{`"r":4`, `"r":4,"modules_to_save":["lm_head"]`, "modules_to_save is"},
		{`"r":4`, `"r":4,"init_lora_weights":"pissa_niter_4"`, `init_lora_weights is "pissa_niter_4": not supported`},
		{`"r":4`, `"r":4,"init_lora_weights":"olora"`, "path_initial_model_for_weight_conversion"},
		{`"r":4`, `"r":4,"init_lora_weights":["eva"]`, `init_lora_weights is ["eva"]`},
		{`"r":4`, `"r":4,"kasa_config":{"beta":1}`, `kasa_config is {"beta":1}: not supported`},
		{`"r":4`, `"r":4,"bias":"all"`, `bias "all"`}, {`"r":4`, `"r":4,"lora_dropout":1`, "lora_dropout is 1"},
	} {
		if _, err := ParseConfig([]byte(strings.Replace(good, c.from, c.to, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s → %s: error %v, want %q", c.from, c.to, err, c.want)
		}
	}
	for _, init := range []string{`null`, `true`, `false`, `"gaussian"`, `"Gaussian"`, `"eva"`, `"orthogonal"`} {
		if _, err := ParseConfig([]byte(strings.Replace(good, `"r":4`, `"r":4,"init_lora_weights": `+init, 1))); err != nil {
			t.Errorf("%s: %v", init, err)
		}
	}
	c, err := ParseConfig([]byte(strings.Replace(good, `"r":4`, `"r":4,"layers_to_transform":2,"use_dora":false,"modules_to_save":null`, 1)))
	if err != nil || !slices.Equal(c.Layers, []int{2}) || !c.Lenient {
		t.Errorf("%+v, %v", c, err)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(`{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"],"layers_to_transform":[1]}`))
	f.Add([]byte(`{"peft_type":"LORA","r":4,"target_modules":".*"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ParseConfig(b); err == nil && (c.Rank < 1 || c.Targets.Pattern == "" && len(c.Targets.Names) == 0) {
			t.Errorf("accepted %+v", c)
		}
	})
}

// write saves an instance as a PEFT folder.
func write(t *testing.T, in *model.Instance, c Config) string {
	t.Helper()
	dir := t.TempDir()
	var config, weights bytes.Buffer
	if err := c.WriteConfig(&config, in.Decoder, "base"); err != nil {
		t.Fatal(err)
	}
	if err := WriteWeights(&weights, in); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{ConfigFile: config.Bytes(), WeightsFile: weights.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestRoundTrip writes adapters and reads them back: the same layers with the
// same scale, and the same values.
func TestRoundTrip(t *testing.T) {
	m := open(t)
	for _, c := range []Config{
		{Rank: 2, Alpha: 4, Targets: Targets{Pattern: AllLinear}},
		{Rank: 2, Alpha: 4, RSLoRA: true, Targets: Targets{Names: []string{"q_proj", "down_proj"}}, Layers: []int{0, 2}},
		{Rank: 3, Alpha: 4, Targets: Targets{Pattern: `.*1\.mlp\.up_proj|.*2\.self_attn\.q_proj`}, RankPattern: Pattern[int]{{"up_proj", 5}}},
		{Rank: 2, Alpha: 1, Targets: Targets{Names: []string{"lm_head", "o_proj"}}, AlphaPattern: Pattern[float64]{{"o_proj", 3}, {`.*0\..*o_proj`, 5}}},
	} {
		in := place(t, m, c)
		Initialize(in, Kaiming, 7)
		for i, q := range in.Params.List() { // B too
			v := q.Value.Float64s()
			for j := range v {
				v[j] += float64(i+j%7) / 8
			}
			q.Value.SetFloat64s(v)
		}
		dir := write(t, in, c)
		read, err := ReadConfig(dir)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := c.Adapters(m.Decoder)
		got, err := read.Adapters(m.Decoder)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%+v: %d layers, want %d (%v)", c, len(got), len(want), err)
		}
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s: %+v, want %+v", name, got[name], want[name])
			}
		}
		back := place(t, m, read)
		if err := Load(dir, back); err != nil {
			t.Fatal(err)
		}
		for i, q := range back.Params.List() {
			if !slices.Equal(q.Value.Float64s(), in.Params.List()[i].Value.Float64s()) {
				t.Errorf("%s differs", q.Name)
			}
		}
	}
}

func TestLoadErrors(t *testing.T) {
	m := open(t)
	c := Config{Rank: 2, Alpha: 4, Targets: Targets{Names: []string{"q_proj"}}}
	in := place(t, m, c)
	for _, x := range []struct {
		title, want string
		other       Config
	}{
		{"missing", "tensor base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight is missing", Config{Rank: 2, Targets: Targets{Names: []string{"k_proj"}}}},
		{"shape", "shape [3 96], want [2 96]", Config{Rank: 3, Targets: Targets{Names: []string{"q_proj"}}}},
		{"extra", "belongs to no adapted layer", Config{Rank: 2, Targets: Targets{Names: []string{"q_proj", "v_proj"}}}},
	} {
		dir := write(t, place(t, m, x.other), x.other)
		if err := Load(dir, in); err == nil || !strings.HasPrefix(err.Error(), filepath.Join(dir, WeightsFile)+": tensor ") || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: error %v, want %q", x.title, err, x.want)
		}
	}
	if err := Load(t.TempDir(), in); err == nil {
		t.Error("an empty folder was loaded")
	}
	if _, err := ReadConfig(t.TempDir()); err == nil || !strings.Contains(err.Error(), "want a PEFT folder") {
		t.Errorf("error %v", err)
	}
}

// TestBaseWeight: an adapter of lm_head, as PEFT writes it, has the head's weight
// with it, which must be the model's.
func TestBaseWeight(t *testing.T) {
	m := open(t)
	c := Config{Rank: 2, Alpha: 4, Targets: Targets{Names: []string{"lm_head"}}}
	in := place(t, m, c)
	const name = "base_model.model.lm_head.base_layer.weight"
	for _, c := range []struct{ tensor, from, want string }{
		{name, "lm_head", ""},
		{name, "model.layers.0.self_attn.q_proj", "tensor " + name + ", the weight that the adapter was trained beside, is not that of model ../configs/demo/model"},
		{strings.Replace(name, "lm_head", "model.norm", 1), "lm_head", "belongs to no adapted layer"},
	} {
		dir, extra := t.TempDir(), m.Base(c.from)
		extra.Name = c.tensor
		if err := safetensors.Write(filepath.Join(dir, WeightsFile), append(Tensors(in), extra), nil); err != nil {
			t.Fatal(err)
		}
		if err := Load(dir, in); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.tensor, err, c.want)
		}
	}
}

// TestKeys are the names and shapes that PEFT expects.
func TestKeys(t *testing.T) {
	m := open(t)
	c := Config{Rank: 2, Alpha: 4, Targets: Targets{Names: []string{"k_proj"}}, Layers: []int{1}}
	f, err := safetensors.Open(filepath.Join(write(t, place(t, m, c), c), WeightsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a, okA := f.Tensor("base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight")
	b, okB := f.Tensor("base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight")
	if !okA || !okB || !slices.Equal(a.Shape, []int{2, 96}) || !slices.Equal(b.Shape, []int{32, 2}) || f.Metadata["format"] != "pt" {
		t.Errorf("%v %v %v", f.Names(), a.Shape, b.Shape)
	}
}
