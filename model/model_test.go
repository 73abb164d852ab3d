package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/metal"
	"graft/kernels/random"
	"graft/kernels/reference"
	"graft/model/safetensors"
	"graft/model/stored"
	"graft/program"
)

// small is a config.json that every family understands; each adds its own keys.
var small = map[string]any{
	"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4,
	"num_key_value_heads": 2, "head_dim": 6, "vocab_size": 17, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}

var familyKeys = []map[string]any{
	{"model_type": "llama"},
	{"model_type": "llama", "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true},
	{"model_type": "mistral", "sliding_window": 3},
	{"model_type": "qwen2", "tie_word_embeddings": true},
	{"model_type": "qwen3"},
	{"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 3, "query_pre_attn_scalar": 5.0,
		"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
	{"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 3, "sliding_window_pattern": 2,
		"rope_theta": 1e6, "rope_local_base_freq": 1e4},
	{"model_type": "phi3"},
	{"model_type": "phi3", "partial_rotary_factor": 0.67}, // 4 of 6 dimensions
	{"model_type": "olmo2"},
	{"model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.5, "logits_scaling": 2.0},
	{"model_type": "smollm3", "no_rope_layers": []int{1, 0}},
}

func name(keys map[string]any) string {
	n := keys["model_type"].(string)
	if keys["attention_bias"] != nil {
		n += "-bias"
	}
	return n
}

// write makes a model folder with random weights.
func write(t *testing.T, keys map[string]any) string {
	t.Helper()
	config := map[string]any{}
	for _, m := range []map[string]any{small, keys} {
		for k, v := range m {
			config[k] = v
		}
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	d, err := ParseConfig(b)
	if err != nil {
		t.Fatal(err)
	}
	var tensors []stored.Tensor
	for i, w := range d.Needs() {
		n := 1
		for _, s := range w.Shape {
			n *= s
		}
		v := make([]float64, n)
		for j := range v {
			if v[j] = 0.4 * random.Normal(1, random.Init, uint32(i), uint64(j)); len(w.Shape) == 1 {
				v[j] += 1
			}
		}
		data := make([]byte, 8*n)
		kernels.EncodeFloat64(data, v, kernels.F64)
		tensors = append(tensors, stored.Tensor{Name: w.Name, DType: kernels.F64, Shape: w.Shape, Data: data})
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := safetensors.Write(filepath.Join(dir, "model.safetensors"), tensors, nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, path string) *Model {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func place(t *testing.T, m *Model, b kernels.Backend, o Options) *Instance {
	t.Helper()
	in, err := m.Place(b, o)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// everyLinear gives all linear layers an adapter, with different ranks.
func everyLinear(d *Decoder, dropout float64) map[string]Adapter {
	out := map[string]Adapter{}
	for i, l := range d.Linears() {
		out[l.Module] = Adapter{Rank: 1 + i%3, Scale: 0.5 + float64(i%2), Dropout: dropout}
	}
	return out
}

func randomize(ps *program.Parameters) {
	for i, q := range ps.List() {
		v := make([]float64, q.Rows*q.Cols)
		for j := range v {
			v[j] = 0.3 * random.Normal(2, random.Init, uint32(i), uint64(j))
		}
		q.Value.SetFloat64s(v)
	}
}

// sequences is a micro-batch: tokens end to end, and for each row whether its
// successor is predicted.
type sequences struct {
	lengths []int
	tokens  []int32
	rows    []int32
}

func example(vocab int) sequences {
	s := sequences{lengths: []int{7, 1, 5, 2}}
	at := int32(0)
	for _, n := range s.lengths {
		for i := range n {
			s.tokens = append(s.tokens, int32(random.At(3, random.Init, 0, uint64(at))[0]%uint32(vocab)))
			if i+1 < n && (i+int(at))%3 != 0 {
				s.rows = append(s.rows, at)
			}
			at++
		}
	}
	return s
}

func (s sequences) bounds() []int32 {
	b := []int32{0}
	for _, n := range s.lengths {
		b = append(b, b[len(b)-1]+int32(n))
	}
	return b
}

func (s sequences) targets() []int32 {
	var out []int32
	for _, r := range s.rows {
		out = append(out, s.tokens[r+1])
	}
	return out
}

// prepare plans and places a program, and fills its inputs.
func prepare(t *testing.T, b kernels.Backend, r *Run, s sequences) {
	t.Helper()
	plan := r.Plan(program.Counts{Tokens: len(s.tokens), LossRows: len(s.rows), Sequences: len(s.lengths)})
	arena, err := b.Alloc(plan.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plan.Place(arena)
	bounds := s.bounds()
	var positions []int32
	for _, n := range s.lengths {
		for i := range n {
			positions = append(positions, int32(i))
		}
	}
	r.Bind(program.Step{Tokens: len(s.tokens), LossRows: len(s.rows), Bounds: bounds, Number: 5, TokensBefore: 2})
	r.Tokens.SetInt32s(s.tokens)
	r.Positions.SetInt32s(positions)
	r.Bounds.SetInt32s(bounds)
	r.Rows.SetInt32s(s.rows)
	if r.Targets != nil {
		r.Targets.SetInt32s(s.targets())
	}
}

func run(t *testing.T, b kernels.Backend, r *Run) {
	t.Helper()
	if err := b.Run(r.Ops, nil); err != nil {
		t.Fatal(err)
	}
}

func loss(r *Run) float64 {
	var sum float64
	for _, l := range r.Loss.Float64s() {
		sum += l
	}
	return sum
}

// TestGradients compares the gradient of every trainable matrix with a central
// difference along a random direction, for every family, for adapters and for
// all weights, kept and recomputed.
func TestGradients(t *testing.T) {
	for _, keys := range familyKeys {
		for _, mode := range []string{"lora", "dropout", "full"} {
			for _, recompute := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/recompute=%v", name(keys), mode, recompute), func(t *testing.T) {
					testGradients(t, keys, mode, recompute)
				})
			}
		}
	}
}

func testGradients(t *testing.T, keys map[string]any, mode string, recompute bool) {
	b := reference.New()
	defer b.Close()
	m := open(t, write(t, keys))
	o := Options{Full: mode == "full"}
	switch mode {
	case "lora":
		o.Adapters = everyLinear(m.Decoder, 0)
	case "dropout":
		o.Adapters = everyLinear(m.Decoder, 0.3)
	}
	in := place(t, m, b, o)
	if mode != "full" {
		randomize(in.Params)
	}
	train, eval := in.Train(recompute), in.Train(recompute)
	s := example(m.Vocab)
	prepare(t, b, train, s)
	prepare(t, b, eval, s)
	run(t, b, train)
	grads := map[string][]float64{}
	for _, q := range in.Params.List() {
		grads[q.Name] = q.Value.Gradient().Float64s()
	}
	const h = 1e-4
	for i, q := range in.Params.List() {
		v := q.Value.Float64s()
		direction := make([]float64, len(v))
		var want, got float64
		for j := range v {
			direction[j] = random.Normal(4, random.Init, uint32(i), uint64(j))
			got += direction[j] * grads[q.Name][j]
		}
		// The five-point stencil is exact up to the fifth derivative.
		for step, weight := range map[float64]float64{1: 8, -1: -8, 2: -1, -2: 1} {
			moved := make([]float64, len(v))
			for j := range v {
				moved[j] = v[j] + step*h*direction[j]
			}
			q.Value.SetFloat64s(moved)
			run(t, b, eval)
			want += weight * loss(eval) / (12 * h)
		}
		q.Value.SetFloat64s(v)
		if math.Abs(got-want) > 1e-6*(1+math.Abs(want)) {
			t.Errorf("%s: gradient along a direction is %v, difference quotient %v", q.Name, got, want)
		}
	}
}

// TestWideAdapters: a rank may exceed a layer's width; the fast kernels agree
// with the plain loops there too.
func TestWideAdapters(t *testing.T) {
	m := open(t, write(t, familyKeys[0]))
	adapters := everyLinear(m.Decoder, 0)
	for name, a := range adapters {
		a.Rank = 50 // of 12 in and 12 to 20 out
		adapters[name] = a
	}
	var losses, grads [2][]float64
	for i, b := range []kernels.Backend{reference.New(), cpu.New(cpu.Options{})} {
		defer b.Close()
		in := place(t, m, b, Options{Adapters: adapters})
		randomize(in.Params)
		r := in.Train(false)
		prepare(t, b, r, example(m.Vocab))
		run(t, b, r)
		losses[i], grads[i] = r.Loss.Float64s(), in.Params.All().Grad.Float64s()
	}
	near := func(what string, got, want []float64) {
		for i := range want {
			if !(math.Abs(got[i]-want[i]) <= 1e-4*(1+math.Abs(want[i]))) {
				t.Fatalf("%s %d: %v, want %v", what, i, got[i], want[i])
			}
		}
	}
	near("loss", losses[1], losses[0])
	near("gradient", grads[1], grads[0])
}

// TestRecompute asks for the same bits with and without recomputation, and for
// less memory with it.
func TestRecompute(t *testing.T) {
	for _, keys := range familyKeys {
		t.Run(name(keys), func(t *testing.T) {
			b := reference.New()
			defer b.Close()
			m := open(t, write(t, keys))
			var losses, grads [2][]float64
			var bytes [2]int
			s := example(m.Vocab)
			for i, recompute := range []bool{false, true} {
				in := place(t, m, b, Options{Adapters: everyLinear(m.Decoder, 0)})
				randomize(in.Params)
				r := in.Train(recompute)
				prepare(t, b, r, s)
				run(t, b, r)
				losses[i], grads[i] = r.Loss.Float64s(), in.Params.All().Grad.Float64s()
				bytes[i] = in.Train(recompute).Plan(program.Counts{Tokens: 500, LossRows: 500, Sequences: 1}).Bytes
			}
			for i := range losses[0] {
				if losses[0][i] != losses[1][i] {
					t.Fatalf("loss %d: %v kept, %v recomputed", i, losses[0][i], losses[1][i])
				}
			}
			for i := range grads[0] {
				if grads[0][i] != grads[1][i] {
					t.Fatalf("gradient %d: %v kept, %v recomputed", i, grads[0][i], grads[1][i])
				}
			}
			if bytes[1] >= bytes[0] {
				t.Errorf("%d bytes kept, %d recomputed", bytes[0], bytes[1])
			}
		})
	}
}

// TestBelowFirstAdapter: with an adapter in the last layer only, no gradient
// operation belongs to the first.
func TestBelowFirstAdapter(t *testing.T) {
	b := reference.New()
	defer b.Close()
	m := open(t, write(t, familyKeys[0]))
	in := place(t, m, b, Options{Adapters: map[string]Adapter{"model.layers.1.mlp.down_proj": {Rank: 2, Scale: 1}}})
	r := in.Train(false)
	for i, l := range r.Labels {
		if l.Pass != program.Forward && (l.Layer == 0 || strings.Contains(l.Module, "self_attn")) {
			t.Errorf("operation %d, %s of %s, is not needed", i, r.Ops[i].Kind(), l.Module)
		}
	}
}

// TestFLOPsPerToken: the head's weights count once, tied or not, and the table of embeddings
// not at all.
func TestFLOPsPerToken(t *testing.T) {
	for _, keys := range familyKeys {
		d := open(t, write(t, keys)).Decoder
		const weights = 2*(2*12*24+2*12*12+3*12*20) + 12*17
		if lora, full := d.FLOPsPerToken(false), d.FLOPsPerToken(true); lora != 4*weights || full != 6*weights {
			t.Errorf("%s: %v, all trained %v, of %d weights", name(keys), lora, full, weights)
		}
	}
}

// parse reads small with other keys.
func parse(t *testing.T, keys string) (*Decoder, error) {
	t.Helper()
	b, err := json.Marshal(small)
	if err != nil {
		t.Fatal(err)
	}
	return ParseConfig([]byte(string(b[:len(b)-1]) + "," + keys + "}"))
}

// TestKeys: keys mean what they do in transformers (5.24), and so do those that
// are missing, which is not what null means.
func TestKeys(t *testing.T) {
	for family, eps := range map[string]float64{"llama": 1e-6, "phi3": 1e-5, "olmo2": 1e-5} {
		if got := missing(family).RMSNormEps; got != eps {
			t.Errorf("%s: rms_norm_eps %v, want %v", family, got, eps)
		}
	}
	for _, c := range []struct {
		keys string
		got  func(d *Decoder) any
		want any
	}{
		{`"model_type":"gemma2"`, func(d *Decoder) any {
			return []any{d.Act, d.Layers[0].Window, d.Layers[1].Window, d.AttentionSoftCap, d.LogitSoftCap, d.Tied}
		}, []any{kernels.GELUTanh, 4096, 0, 50.0, 30.0, true}},
		{`"model_type":"gemma2","sliding_window":null,"attn_logit_softcapping":null,"final_logit_softcapping":null,"hidden_act":"silu"`, func(d *Decoder) any {
			return []any{d.Act, d.Layers[0].Window, d.AttentionSoftCap, d.LogitSoftCap}
		}, []any{kernels.GELUTanh, 0, 0.0, 0.0}},
		{`"model_type":"gemma3_text"`, func(d *Decoder) any {
			return []any{d.Act, d.Layers[0].Window, d.LogitSoftCap, d.Layers[0].Rotary.Freqs[1]}
		}, []any{kernels.GELUTanh, 4096, 0.0, frequencies(1e4, 6)[1]}},
		{`"model_type":"gemma3_text","layer_types":["full_attention","full_attention"]`, func(d *Decoder) any { return d.Layers[0].Rotary.Freqs[1] }, frequencies(1e6, 6)[1]},
		{`"model_type":"gemma3_text","attn_logit_softcapping":50,"final_logit_softcapping":30`, func(d *Decoder) any { return []float64{d.AttentionSoftCap, d.LogitSoftCap} }, []float64{0, 30}},
		{`"model_type":"gemma3_text","rope_parameters":{"full_attention":{"rope_type":"linear","factor":8}}`,
			func(d *Decoder) any { return d.Layers[0].Rotary.Freqs[1] }, frequencies(1e4, 6)[1]},
		{`"model_type":"mistral"`, func(d *Decoder) any { return d.Layers[1].Window }, 4096},
		{`"model_type":"mistral","sliding_window":null`, func(d *Decoder) any { return d.Layers[1].Window }, 0},
		{`"model_type":"mistral","sliding_window":3,"layer_types":["full_attention","sliding_attention"]`, func(d *Decoder) any { return []int{d.Layers[0].Window, d.Layers[1].Window} }, []int{0, 3}},
		{`"model_type":"phi3","sliding_window":3,"layer_types":["full_attention","other"]`, func(d *Decoder) any { return d.Layers[0].Window }, 3},
		{`"model_type":"phi3","attention_dropout":0.1,"resid_pdrop":0.1`, func(d *Decoder) any { return d.Dropout }, []string{"attention_dropout", "resid_pdrop"}},
		{`"model_type":"llama","attention_dropout":0,"resid_pdrop":0.1`, func(d *Decoder) any { return len(d.Dropout) }, 0},
		{`"model_type":"smollm3"`, func(d *Decoder) any { return []any{d.Tied, d.Layers[0].Rotary.Freqs[1]} }, []any{true, frequencies(2e6, 6)[1]}},
		{`"model_type":"smollm3","no_rope_layer_interval":2`, func(d *Decoder) any { return d.Layers[1].Rotary == nil }, true},
		{`"model_type":"phi3","partial_rotary_factor":0.67`, func(d *Decoder) any { return d.Layers[0].Rotary.Freqs }, []float64{1, float64(float32(0.01))}},
		{`"model_type":"phi3","partial_rotary_factor":0.5,"rope_parameters":{"partial_rotary_factor":0.67}`, func(d *Decoder) any { return len(d.Layers[0].Rotary.Freqs) }, 2},
		{`"model_type":"llama","partial_rotary_factor":0.5`, func(d *Decoder) any { return len(d.Layers[0].Rotary.Freqs) }, 3},
		{`"model_type":"llama","rope_parameters":null,"rope_scaling":{"type":"linear","factor":2}`, func(d *Decoder) any { return d.Layers[0].Rotary.Freqs[0] }, 0.5},
	} {
		d, err := parse(t, c.keys)
		if err != nil {
			t.Errorf("%s: %v", c.keys, err)
		} else if got := c.got(d); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.keys, got, c.want)
		}
	}
}

// TestRefusedKeys: keys that transformers honours, or passes over, and that
// would silently give another model.
func TestRefusedKeys(t *testing.T) {
	const llama3 = `"rope_scaling":{"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,"original_max_position_embeddings":64}`
	for keys, want := range map[string]string{
		`"model_type":"gemma3_text","use_bidirectional_attention":true`:                                       "use_bidirectional_attention is not supported",
		`"model_type":"gemma3_text","rope_parameters":{"rope_theta":100}`:                                     "want full_attention and sliding_attention",
		`"model_type":"phi3","partial_rotary_factor":0.9`:                                                     "turns 5 of a head's 6 dimensions",
		`"model_type":"phi3","partial_rotary_factor":1.5`:                                                     "partial_rotary_factor is 1.5",
		`"model_type":"qwen2","rope_parameters":{"partial_rotary_factor":0.5}`:                                "rope_parameters: partial_rotary_factor 0.5 is not supported for qwen2",
		`"model_type":"llama","rope_parameters":{"rope_theta":5},"rope_scaling":{"type":"linear","factor":2}`: "rope_scaling and rope_parameters are both there",
		`"model_type":"llama","original_max_position_embeddings":16,` + llama3:                                "original_max_position_embeddings is 16, and 64 in rope_scaling",
		`"model_type":"smollm3","no_rope_layer_interval":0`:                                                   "no_rope_layer_interval is 0",
	} {
		if _, err := parse(t, keys); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", keys, err, want)
		}
	}
}

func TestParseConfigErrors(t *testing.T) {
	for _, c := range []struct{ config, want string }{
		{``, "unexpected end"},
		{"{\n\"model_type\": \"llama\",\n\"hidden_size\": \"big\"}", "line 3: hidden_size: string where a int is wanted"},
		{`{"model_type":"bert"}`, `model_type "bert" is not supported; these are: gemma2`},
		{`{"model_type":"llama"}`, "hidden_size is 0, want 1 to"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":3,"num_key_value_heads":2,"vocab_size":8}`, "no multiple"},
		{`{"model_type":"llama","hidden_size":1e30,"vocab_size":8}`, "hidden_size"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"rope_parameters":{"rope_type":"yarn"}}`, `rope_type "yarn" is not supported`},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"rope_theta":-1}`, "rope_theta is -1"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"rope_theta":1e-320}`, "frequencies that are not finite"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"hidden_act":"relu"}`, `hidden_act "relu"`},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"quantization_config":{"bits":4}}`, "quantization_config"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"quantization_config":{"bits":4,"group_size":64,"quant_method":"awq"}}`, "only MLX's are read"},
		{`{"model_type":"llama","hidden_size":8,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":8,"quantization":{"bits":4,"group_size":32,"mode":"mxfp4"}}`, `mode "mxfp4" is not supported`},
	} {
		_, err := ParseConfig([]byte(c.config))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", c.config, err, c.want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	for _, keys := range familyKeys {
		b, err := json.Marshal(keys)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseConfig(b)
		if err == nil && (d.Heads%d.KVHeads != 0 || len(d.Layers) == 0 || len(d.Needs()) == 0) {
			t.Errorf("accepted %+v", d)
		}
	})
}

// TestOpenErrors: what is wrong with a folder is said with file, tensor and
// both shapes.
func TestOpenErrors(t *testing.T) {
	for _, c := range []struct {
		title  string
		damage func(t *testing.T, dir string)
		want   []string
	}{
		{"no config", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "config.json")) }, []string{"no config.json"}},
		{"no weights", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "model.safetensors")) }, []string{"no weights there", "pytorch_model.bin"}},
		{"other shape", func(t *testing.T, dir string) { edit(t, dir, `"vocab_size":17`, `"vocab_size":18`) },
			[]string{"model.safetensors: tensor model.embed_tokens.weight: shape [17 12], config.json says [18 12]"}},
		{"tied", func(t *testing.T, dir string) { edit(t, dir, `"num_hidden_layers":2`, `"num_hidden_layers":3`) },
			[]string{"tensor model.layers.2.self_attn.q_proj.weight is missing", "more tensors are missing or wrong"}},
		{"truncated", func(t *testing.T, dir string) {
			p := filepath.Join(dir, "model.safetensors")
			if err := os.Truncate(p, 3000); err != nil {
				t.Fatal(err)
			}
		}, []string{"model.safetensors"}},
	} {
		t.Run(c.title, func(t *testing.T) {
			dir := write(t, familyKeys[0])
			c.damage(t, dir)
			m, err := Open(dir)
			if err == nil {
				m.Close()
				t.Fatal("opened")
			}
			for _, w := range c.want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q lacks %q", err, w)
				}
			}
		})
	}
}

// TestPlaceLargeHeads: heads larger than a backend takes are said with the file,
// before anything runs.
func TestPlaceLargeHeads(t *testing.T) {
	gpu := metal.New(metal.NoDevice(), metal.Options{})
	for _, c := range []struct {
		b    kernels.Backend
		dim  int
		want string
	}{
		{gpu, 256, ""},
		{gpu, 258, "config.json: head_dim 258: backend metal takes at most 256"},
		{reference.New(), 258, ""},
	} {
		m := open(t, write(t, map[string]any{"model_type": "llama", "head_dim": c.dim}))
		_, err := m.Place(c.b, Options{})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, head_dim %d: error %v, want %q", c.b.Info().Name, c.dim, err, c.want)
		}
	}
}

// TestOwnHead: a head in the files that is not the embedding is one, also where
// config.json ties the two, and then config.json beside all weights says so.
func TestOwnHead(t *testing.T) {
	for _, equal := range []bool{false, true} {
		dir := write(t, map[string]any{"model_type": "llama", "tie_word_embeddings": false})
		edit(t, dir, `"tie_word_embeddings":false`, `"tie_word_embeddings":true`)
		if equal {
			m := open(t, dir)
			tensors := m.Tensors()
			for i, w := range tensors {
				if w.Name == "lm_head.weight" {
					tensors[i].Data = tensors[0].Data
				}
			}
			dir = filepath.Join(dir, "equal.safetensors")
			if err := safetensors.Write(dir, tensors, nil); err != nil {
				t.Fatal(err)
			}
		}
		b := reference.New()
		defer b.Close()
		m := open(t, dir)
		if m.Tied != equal {
			t.Errorf("head equal to the embedding: %v, tied: %v", equal, m.Tied)
		}
		var config bytes.Buffer
		if err := place(t, m, b, Options{Full: true}).WriteCompanion(&config, "config.json"); err != nil {
			t.Fatal(err)
		}
		if d, err := ParseConfig(config.Bytes()); err != nil || d.Tied != equal {
			t.Errorf("head equal to the embedding: %v, written: %s, %v", equal, &config, err)
		}
	}
}

func edit(t *testing.T, dir, from, to string) {
	t.Helper()
	p := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), from) {
		t.Fatalf("no %s in %s", from, b)
	}
	if err := os.WriteFile(p, []byte(strings.Replace(string(b), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestCheckFinite plants values that are not finite in every stored type.
func TestCheckFinite(t *testing.T) {
	for _, d := range []kernels.DType{kernels.F32, kernels.F64, kernels.F16, kernels.BF16} {
		for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			v := []float64{1, -2, 0, 0.5, bad, 3}
			data := make([]byte, len(v)*d.Size())
			kernels.EncodeFloat64(data, v, d)
			x := stored.Tensor{Name: "x", File: "f", DType: d, Shape: []int{2, 3}, Data: data}
			if err := checkFinite(x); err == nil || !strings.Contains(err.Error(), "f: tensor x: element [1 1]") {
				t.Errorf("%v %v: %v", d, bad, err)
			}
			kernels.EncodeFloat64(data, []float64{1, -2, 0, 0.5, 6e4, 3}, d)
			if err := checkFinite(x); err != nil {
				t.Errorf("%v: %v", d, err)
			}
		}
	}
}
