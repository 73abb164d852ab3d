// Command demo makes what the demo needs, from nothing but the grammar in
// text.go and a seed: the text that the demo's base model is pretrained on,
// its tokenizer and its random first weights, and the questions and answers
// that configs/llama-lora.yaml fine-tunes it with.
//
//	go run ./cmd/demo -out runs/demo                         // text, tokenizer, first weights
//	go run ./cmd/train -config configs/demo/pretrain.yaml    // trains all weights
//	cp runs/demo-pretrain/model/* configs/demo/model/        // what the project ships
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"graft/kernels"
	"graft/kernels/random"
	"graft/model"
	"graft/model/safetensors"
	"graft/model/stored"
)

func main() {
	out := flag.String("out", "runs/demo", "`folder` for the pretraining text and the first weights")
	questions := flag.String("questions", "configs/demo", "`folder` for train.jsonl and valid.jsonl")
	seed := flag.Uint64("seed", 1, "of the text and of the weights")
	flag.Parse()
	if err := run(*out, *questions, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// documents and held say how much text there is, and how much of it is only
// for validation.
const (
	documents = 6000
	held      = 200
	vocab     = 512
)

func run(out, questions string, seed uint64) error {
	for _, dir := range []string{out, questions} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	world := newWorld(seed)
	var texts []string
	for i := range documents {
		texts = append(texts, world.document(uint64(i)))
	}
	if err := writeLines(filepath.Join(out, "train.jsonl"), textLines(texts[held:])); err != nil {
		return err
	}
	if err := writeLines(filepath.Join(out, "valid.jsonl"), textLines(texts[:held])); err != nil {
		return err
	}
	known, unknown := world.questions()
	if err := writeLines(filepath.Join(questions, "train.jsonl"), known); err != nil {
		return err
	}
	if err := writeLines(filepath.Join(questions, "valid.jsonl"), unknown); err != nil {
		return err
	}
	if err := writeTokenizer(out, strings.Join(texts[held:], "\n"), vocab); err != nil {
		return err
	}
	return writeModel(out, seed)
}

func textLines(texts []string) []any {
	var out []any
	for _, t := range texts {
		out = append(out, map[string]string{"text": t})
	}
	return out
}

func writeLines(path string, lines []any) error {
	var b strings.Builder
	for _, l := range lines {
		j, err := json.Marshal(l)
		if err != nil {
			return err
		}
		b.Write(j)
		b.WriteByte('\n')
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// configJSON is the demo's model: a Llama with grouped queries and a tied head.
var configJSON = map[string]any{
	"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "vocab_size": vocab,
	"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
	"max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
	"tie_word_embeddings": true, "bos_token_id": bos, "eos_token_id": eos, "torch_dtype": "float32",
}

// writeModel writes config.json and weights from N(0, 0.02²), those that write
// into the residual stream smaller by sqrt(2·layers), norms at 1 (GPT-2's
// initialisation).
func writeModel(dir string, seed uint64) error {
	b, err := json.MarshalIndent(configJSON, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	d, err := model.ParseConfig(b)
	if err != nil {
		return err
	}
	var tensors []stored.Tensor
	for i, w := range d.Needs() {
		n := 1
		for _, s := range w.Shape {
			n *= s
		}
		std := 0.02
		if strings.HasSuffix(w.Name, "o_proj.weight") || strings.HasSuffix(w.Name, "down_proj.weight") {
			std /= math.Sqrt(float64(2 * len(d.Layers)))
		}
		v := make([]float64, n)
		for j := range v {
			if v[j] = 1; len(w.Shape) == 2 {
				v[j] = std * random.Normal(seed, random.Init, uint32(i), uint64(j))
			}
		}
		data := make([]byte, 4*n)
		kernels.EncodeFloat64(data, v, kernels.F32)
		tensors = append(tensors, stored.Tensor{Name: w.Name, DType: kernels.F32, Shape: w.Shape, Data: data})
	}
	return safetensors.Write(filepath.Join(dir, "model.safetensors"), tensors, map[string]string{"format": "pt"})
}
