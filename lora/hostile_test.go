package lora

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"graft/kernels"
	"graft/model/safetensors"
	"graft/model/stored"
)

// TestNamesAreWholeParts: a name matches whole parts of a path from its end,
// not letters.
func TestNamesAreWholeParts(t *testing.T) {
	m := open(t)
	for _, name := range []string{"proj", "_proj", "p.up_proj", "up_proj.", "", "Q_PROJ", ".*q_proj", "model", "all-linear "} {
		c := Config{Rank: 2, Targets: Targets{Names: []string{name}}}
		if got, err := c.Adapters(m.Decoder); err == nil || !strings.Contains(err.Error(), "match") {
			t.Errorf("%q: %d layers, error %v", name, len(got), err)
		}
	}
}

func TestPatternErrors(t *testing.T) {
	m := open(t)
	for _, c := range []struct {
		change func(c *Config)
		want   string
	}{
		{func(c *Config) { c.Rank = 0 }, "rank 0 for model.layers.0.self_attn.q_proj"},
		{func(c *Config) { c.RankPattern = Pattern[int]{{"q_proj", -1}} }, "rank -1 for"},
		{func(c *Config) { c.RankPattern = Pattern[int]{{"q_proj", 1 << 40}} }, "rank 1099511627776 for"},
		{func(c *Config) { c.RankPattern = Pattern[int]{{"(", 1}} }, "rank_pattern: "},
		{func(c *Config) { c.AlphaPattern = Pattern[float64]{{"[", 1}} }, "alpha_pattern: "},
		{func(c *Config) { c.Layers = []int{-1} }, "layer -1: the model has layers 0 to 3"},
		{func(c *Config) { c.Targets = Targets{} }, "match no linear layer"},
		{func(c *Config) { c.Targets = Targets{Pattern: "("} }, "targets: "},
	} {
		cfg := Config{Rank: 2, Alpha: 2, Targets: Targets{Names: []string{"q_proj"}}}
		c.change(&cfg)
		if _, err := cfg.Adapters(m.Decoder); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want %q", cfg, err, c.want)
		}
	}
}

// TestInitializeEachByItself: a matrix starts the same whichever others are
// trained beside it.
func TestInitializeEachByItself(t *testing.T) {
	m := open(t)
	values := func(names ...string) map[string][]float64 {
		in := place(t, m, Config{Rank: 2, Alpha: 2, Targets: Targets{Names: names}})
		Initialize(in, Kaiming, 3)
		out := map[string][]float64{}
		for _, q := range in.Params.List() {
			out[q.Name] = q.Value.Float64s()
		}
		return out
	}
	few, many := values("k_proj"), values("q_proj", "k_proj", "up_proj")
	if len(few) != 8 || len(many) != 24 {
		t.Fatalf("%d and %d matrices", len(few), len(many))
	}
	for name, v := range few {
		if !slices.Equal(v, many[name]) {
			t.Errorf("%s depends on the other targets", name)
		}
	}
	a := "model.layers.0.self_attn.k_proj" + suffixA
	if slices.Equal(many[a], many[strings.Replace(a, ".0.", ".1.", 1)]) {
		t.Error("two layers start the same")
	}
}

func TestParseConfigMore(t *testing.T) {
	const good = `{"peft_type":"LORA","r":4,"lora_alpha":8,"target_modules":["q_proj"]}`
	for _, c := range []struct{ from, to, want string }{
		{`"lora_alpha":8,`, ``, "lora_alpha is missing or 0"},
		{`"lora_alpha":8`, `"lora_alpha":0`, "lora_alpha is missing or 0"},
		{`"lora_alpha":8`, `"lora_alpha":1e999`, "cannot unmarshal"},
		{`"lora_alpha":8`, `"lora_alpha":-8`, "lora_alpha is -8, want 1e-09 to 1e+09"},
		{`"lora_alpha":8`, `"lora_alpha":1e10`, "lora_alpha is 1e+10, want"},
		{`"lora_alpha":8`, `"lora_alpha":8,"alpha_pattern":{"q_proj":-1}`, `alpha_pattern: "q_proj": -1, want 1e-09 to 1e+09`},
		{`"r":4`, `"r":65537`, "r is 65537, want 1 to 65536"},
		{`"r":4,`, ``, "r is 0"}, {`"r":4`, `"r":-4`, "r is -4"}, {`"r":4`, `"r":1e30`, "cannot unmarshal"},
		{`"r":4`, `"r":4,"lora_dropout":-0.5`, "lora_dropout is -0.5"},
		{`"r":4`, `"r":4,"layers_to_transform":"x"`, "cannot unmarshal"},
		{`"r":4`, `"r":4,"layers_to_transform":[1.5]`, "cannot unmarshal"},
		{`"r":4`, `"r":4,"rank_pattern":[1]`, `rank_pattern or alpha_pattern: "[", want an object`},
		{`"r":4`, `"r":4,"rank_pattern":{"q_proj":"x"}`, "cannot unmarshal"},
		{`"r":4`, `"r":4,"rank_pattern":{"q_proj":1,"q_proj":2}`, `the key "q_proj" is there twice`},
		{`["q_proj"]`, `{"q_proj":1}`, "target_modules is missing or empty"},
		{`["q_proj"]`, `""`, "target_modules is missing or empty"},
		{`{"peft`, `{{"peft`, "invalid character"}, {good, good + good, "after top-level value"}, {good, "null", `peft_type is ""`},
		{good, strings.Repeat("[", 20000), "exceeded max depth"},
		{good, strings.Repeat(" ", maxConfigBytes+1), "not an adapter's config"},
	} {
		if _, err := ParseConfig([]byte(strings.Replace(good, c.from, c.to, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s → %.40s: error %v, want %q", c.from, c.to, err, c.want)
		}
	}
	for _, key := range unsupported {
		if key == "fan_in_fan_out" || key == "modules_to_save" || key == "use_dora" { // these also have a type
			continue
		}
		for value, ok := range map[string]bool{"null": true, "false": true, "[]": true, "{}": true, `""`: true, "true": false, `["x"]`: false, "1": false} {
			_, err := ParseConfig([]byte(strings.Replace(good, `"r":4`, `"r":4,"`+key+`": `+value, 1)))
			if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), key+" is ") {
				t.Errorf("%s: %s: error %v", key, value, err)
			}
		}
	}
}

// TestReadConfigNamesFile: what is wrong with a file says which.
func TestReadConfigNamesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), ConfigFile)
	if err := os.WriteFile(path, []byte(`{"peft_type":"LOHA"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadConfig(filepath.Dir(path)); err == nil || !strings.HasPrefix(err.Error(), path+": peft_type") {
		t.Errorf("error %v", err)
	}
}

// TestWrittenTargets: names where they are enough, whole paths where only
// those say which layers are adapted.
func TestWrittenTargets(t *testing.T) {
	m := open(t)
	for _, c := range []struct {
		c       Config
		targets []string
		layers  []int
	}{
		{Config{Targets: Targets{Pattern: `.*(k|q)_proj`}}, []string{"k_proj", "q_proj"}, nil},
		{Config{Targets: Targets{Names: []string{"q_proj"}}, Layers: []int{1}}, []string{"q_proj"}, []int{1}},
		{Config{Targets: Targets{Pattern: `.*2\.mlp\.up_proj|.*1\.self_attn\.q_proj`}},
			[]string{"model.layers.1.self_attn.q_proj", "model.layers.2.mlp.up_proj"}, nil},
		{Config{Targets: Targets{Pattern: `.*1\.mlp\.up_proj|.*2\.self_attn\.q_proj`}, Layers: []int{1, 2}},
			[]string{"model.layers.1.mlp.up_proj", "model.layers.2.self_attn.q_proj"}, nil},
	} {
		c.c.Rank, c.c.Alpha = 2, 2
		b, err := os.ReadFile(filepath.Join(write(t, place(t, m, c.c), c.c), ConfigFile))
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Targets []string `json:"target_modules"`
			Layers  []int    `json:"layers_to_transform"`
			Task    string   `json:"task_type"`
		}
		if err := json.Unmarshal(b, &got); err != nil || !slices.Equal(got.Targets, c.targets) || !slices.Equal(got.Layers, c.layers) || got.Task != "CAUSAL_LM" {
			t.Errorf("%v, layers %v: written as %+v (%v)", c.c.Targets, c.c.Layers, got, err)
		}
	}
}

// TestLoadTypes: adapters in any floating type are widened; others are refused.
func TestLoadTypes(t *testing.T) {
	m := open(t)
	c := Config{Rank: 2, Alpha: 4, Targets: Targets{Names: []string{"q_proj"}}, Layers: []int{0}}
	in := place(t, m, c)
	for d, want := range map[kernels.DType]string{kernels.F32: "", kernels.BF16: "", kernels.F16: "", kernels.F64: "", kernels.I32: "I32"} {
		dir := t.TempDir()
		f, err := os.Create(filepath.Join(dir, WeightsFile))
		if err != nil {
			t.Fatal(err)
		}
		var tensors []stored.Tensor
		for _, s := range Tensors(in) {
			s.DType, s.Data = d, make([]byte, s.Shape[0]*s.Shape[1]*d.Size())
			if d.Float() {
				v := make([]float64, s.Shape[0]*s.Shape[1])
				for i := range v {
					v[i] = -1.5
				}
				kernels.EncodeFloat64(s.Data, v, d)
			}
			tensors = append(tensors, s)
		}
		if err := safetensors.WriteTo(f, tensors, nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		err = Load(dir, in)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v: error %v", d, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v: %v", d, err)
		}
		for _, q := range in.Params.List() {
			if v := q.Value.Float64s(); slices.Min(v) != -1.5 || slices.Max(v) != -1.5 {
				t.Errorf("%v: %s is not what was stored", d, q.Name)
			}
		}
	}
}
