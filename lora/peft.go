package lora

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"graft/internal/files"
	"graft/kernels"
	"graft/model"
	"graft/model/safetensors"
	"graft/model/stored"
	"graft/program"
)

// The files of a PEFT adapter folder.
const (
	ConfigFile  = "adapter_config.json"
	WeightsFile = "adapter_model.safetensors"
)

const (
	peftPrefix = "base_model.model."
	suffixA    = ".lora_A.weight"
	suffixB    = ".lora_B.weight"
	suffixBase = ".base_layer.weight"
)

// peftConfig is the stable core of adapter_config.json, in sorted order.
type peftConfig struct {
	AlphaPattern Pattern[float64] `json:"alpha_pattern"`
	Base         string           `json:"base_model_name_or_path"`
	Bias         string           `json:"bias"`
	FanInFanOut  bool             `json:"fan_in_fan_out"`
	Inference    bool             `json:"inference_mode"`
	Init         any              `json:"init_lora_weights"`
	Layers       layerList        `json:"layers_to_transform"`
	Alpha        float64          `json:"lora_alpha"`
	Dropout      float64          `json:"lora_dropout"`
	SaveModules  []string         `json:"modules_to_save"`
	PeftType     string           `json:"peft_type"`
	Rank         int              `json:"r"`
	RankPattern  Pattern[int]     `json:"rank_pattern"`
	Targets      any              `json:"target_modules"`
	TaskType     string           `json:"task_type"`
	DoRA         bool             `json:"use_dora"`
	RSLoRA       bool             `json:"use_rslora"`
}

// layerList is one layer number or a list of them.
type layerList []int

func (l *layerList) UnmarshalJSON(b []byte) error {
	var one int
	if string(b) != "null" && json.Unmarshal(b, &one) == nil {
		*l = layerList{one}
		return nil
	}
	return json.Unmarshal(b, (*[]int)(l))
}

// unsupported keys of adapter_config.json change what the adapter computes;
// they must be absent, null, false or empty.
var unsupported = []string{
	"use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "trainable_token_indices",
	"target_parameters", "alora_invocation_tokens", "exclude_modules", "modules_to_save", "fan_in_fan_out",
	"megatron_config", "layers_pattern", "arrow_config", "kasa_config", "monteclora_config",
}

// plainInits are the values of init_lora_weights that leave the base weights as
// they are. PiSSA, OLoRA, CorDA, LoftQ and LoRA-GA change them (layer.py of
// PEFT), so that such an adapter belongs to another model.
var plainInits = []string{"", "null", "true", "false", `"gaussian"`, `"eva"`, `"orthogonal"`}

// maxConfigBytes bounds adapter_config.json.
const maxConfigBytes = 1 << 20

// ReadConfig reads the adapter_config.json of a PEFT folder.
func ReadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, ConfigFile)
	b, err := files.Read(path, maxConfigBytes)
	if err != nil {
		return Config{}, fmt.Errorf("adapter %s: %w (want a PEFT folder with %s and %s)", dir, err, ConfigFile, WeightsFile)
	}
	c, err := ParseConfig(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// ParseConfig parses the bytes of an adapter_config.json.
func ParseConfig(b []byte) (Config, error) {
	if len(b) > maxConfigBytes {
		return Config{}, fmt.Errorf("over %d bytes, not an adapter's config", maxConfigBytes)
	}
	var raw map[string]json.RawMessage
	var c peftConfig
	if err := json.Unmarshal(b, &raw); err != nil {
		return Config{}, err
	}
	for _, key := range unsupported {
		if v := strings.TrimSpace(string(raw[key])); v != "" && !slices.Contains([]string{"null", "false", "[]", "{}", `""`}, v) {
			return Config{}, fmt.Errorf("%s is %s: not supported", key, v)
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return Config{}, err
	}
	switch {
	case c.PeftType != "LORA":
		return Config{}, fmt.Errorf("peft_type is %q, want LORA", c.PeftType)
	case !slices.Contains(plainInits, strings.ToLower(string(raw["init_lora_weights"]))):
		return Config{}, fmt.Errorf("init_lora_weights is %s: not supported, as it may have changed the base weights; "+
			"PEFT makes a plain adapter of one: save_pretrained with path_initial_model_for_weight_conversion", raw["init_lora_weights"])
	case c.Bias != "" && c.Bias != "none":
		return Config{}, fmt.Errorf("bias %q is not supported, want none", c.Bias)
	case c.Rank < 1 || c.Rank > MaxRank:
		return Config{}, fmt.Errorf("r is %d, want 1 to %d", c.Rank, MaxRank)
	case c.Alpha == 0:
		return Config{}, errors.New("lora_alpha is missing or 0: the adapter would change nothing")
	case !alphaFits(c.Alpha):
		return Config{}, fmt.Errorf("lora_alpha is %v, want %v to %v", c.Alpha, MinAlpha, MaxAlpha)
	case c.Dropout < 0 || c.Dropout >= 1:
		return Config{}, fmt.Errorf("lora_dropout is %v, want 0 or more and less than 1", c.Dropout)
	}
	for _, r := range c.AlphaPattern {
		if !alphaFits(r.Value) {
			return Config{}, fmt.Errorf("alpha_pattern: %q: %v, want %v to %v", r.Modules, r.Value, MinAlpha, MaxAlpha)
		}
	}
	out := Config{Rank: c.Rank, Alpha: c.Alpha, Dropout: c.Dropout, RSLoRA: c.RSLoRA, Layers: c.Layers, Lenient: true,
		RankPattern: c.RankPattern, AlphaPattern: c.AlphaPattern}
	switch t := c.Targets.(type) {
	case string:
		out.Targets.Pattern = t
	case []any:
		for _, v := range t {
			s, ok := v.(string)
			if !ok {
				return Config{}, errors.New("target_modules holds something that is not a string")
			}
			out.Targets.Names = append(out.Targets.Names, s)
		}
	}
	if out.Targets.Pattern == "" && len(out.Targets.Names) == 0 {
		return Config{}, errors.New("target_modules is missing or empty")
	}
	return out, nil
}

// WriteConfig writes the adapter_config.json for adapters that were trained on
// the base model in a folder.
func (c Config) WriteConfig(w io.Writer, d *model.Decoder, folder string) error {
	adapters, err := c.Adapters(d)
	if err != nil {
		return err
	}
	p := peftConfig{
		AlphaPattern: c.AlphaPattern, Base: folder, Bias: "none", Inference: true, Init: true,
		Alpha: c.Alpha, Dropout: c.Dropout, PeftType: "LORA", Rank: c.Rank, RankPattern: c.RankPattern,
		TaskType: "CAUSAL_LM", RSLoRA: c.RSLoRA,
	}
	var layers []int
	p.Targets, layers = c.TargetList(d, adapters)
	p.Layers = layers
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// TargetList returns target_modules as names that PEFT resolves to exactly the
// adapted modules: ends of paths, with layers_to_transform where only some
// layers are adapted, or else whole paths. Both are in order, whatever c's are;
// layers is nil for all.
func (c Config) TargetList(d *model.Decoder, adapters map[string]model.Adapter) (names []string, layers []int) {
	var whole []string
	for m := range adapters {
		whole = append(whole, m)
		if n := last(m); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	slices.Sort(whole)
	slices.Sort(names)
	short := Config{Rank: 1, Targets: Targets{Names: names}, Layers: c.Layers, Lenient: c.Lenient}
	if got, err := short.Adapters(d); err == nil && len(got) == len(adapters) {
		layers = slices.Compact(slices.Sorted(slices.Values(c.Layers)))
		return names, slices.DeleteFunc(layers, func(l int) bool { return l < 0 || l >= len(d.Layers) })
	}
	return whole, nil
}

// WriteWeights writes the adapter_model.safetensors of an instance.
func WriteWeights(w io.Writer, in *model.Instance) error {
	return safetensors.WriteTo(w, Tensors(in), map[string]string{"format": "pt"})
}

// Tensors returns the adapters under PEFT's keys.
func Tensors(in *model.Instance) []stored.Tensor {
	var out []stored.Tensor
	for _, q := range in.Params.List() {
		t := Stored(&q.Value.Tensor)
		t.Name = peftPrefix + q.Name
		out = append(out, t)
	}
	return out
}

// Stored describes a tensor of a backend as one for a file.
func Stored(t *kernels.Tensor) stored.Tensor {
	return stored.Tensor{Name: t.Name, DType: t.DType, Shape: []int{t.Rows, t.Cols}, Data: t.Raw()}
}

// Load fills the adapters of an instance from a PEFT folder. Every matrix must
// be there, with the instance's shape, and there must be no others, but for the
// model's own weights of adapted layers.
func Load(dir string, in *model.Instance) error {
	path := filepath.Join(dir, WeightsFile)
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	used := map[string]bool{}
	for _, q := range in.Params.List() {
		used[peftPrefix+q.Name] = true
		if err := load(path, f, q); err != nil {
			return err
		}
	}
	for _, n := range f.Names() {
		if module, ok := strings.CutSuffix(n, suffixBase); ok && used[module+suffixA] { // PEFT puts that of lm_head beside its adapter
			if t, _ := f.Tensor(n); !t.Equal(in.Base(strings.TrimPrefix(module, peftPrefix))) {
				return fmt.Errorf("%s: tensor %s, the weight that the adapter was trained beside, is not that of model %s: train from the adapter's own model, in its type", path, n, in.Dir)
			}
		} else if !used[n] {
			return fmt.Errorf("%s: tensor %s belongs to no adapted layer of this model", path, n)
		}
	}
	return nil
}

func load(path string, f stored.Source, q *program.Parameter) error {
	t, ok := f.Tensor(peftPrefix + q.Name)
	if !ok {
		return fmt.Errorf("%s: tensor %s%s is missing", path, peftPrefix, q.Name)
	}
	if !slices.Equal(t.Shape, []int{q.Rows, q.Cols}) {
		return fmt.Errorf("%s: tensor %s: shape %v, want [%d %d]", t.File, t.Name, t.Shape, q.Rows, q.Cols)
	}
	v, err := t.Float64s()
	if err != nil {
		return err
	}
	q.Value.SetFloat64s(v)
	return nil
}
