// Package configs is the typed configuration of a training job: defaults, a
// YAML file, the environment (TRAIN_LORA_RANK=8) and -set flags, each over the
// one before.
//
//	cfg, err := configs.Load("llama-lora.yaml", []string{"lora.rank=8"}, os.Environ())
//
// Viper merges the layers. What goes into it is decoded strictly first, since
// viper by itself would let 7.9 become 7 and take a mistyped key for none:
// every problem of a file is reported at once, each with its line, and an
// unknown key with the nearest one that there is.
//
// The struct [Config] is the one list of keys: names, help texts, and which of
// them may change when a run is resumed, stand in its tags.
package configs

import (
	"fmt"
	"math"
	"regexp"

	"graft/lora"
)

// Config is a training job. A key is harmless if a resumed run computes the
// same with another value; steps are, if the schedule does not depend on them.
// (What is behind a name is compared by the trainer: auto and cpu may be the same
// backend, and a model or data may lie elsewhere. isa changes last bits, which it says.)
type Config struct {
	Model string `yaml:"model" harmless:"yes" help:"folder with config.json, weights and tokenizer.json, or one weights file in it"`
	Out   string `yaml:"out" harmless:"yes" help:"folder of the run; default runs/NAME of the config file"`
	Seed  uint64 `yaml:"seed" help:"of everything random: first values, order of the data, dropout"`
	Mode  string `yaml:"mode" help:"lora, or full to train all weights"`

	Data struct {
		Train      string `yaml:"train" harmless:"yes" help:"JSON lines to train on"`
		Valid      string `yaml:"valid" harmless:"yes" help:"JSON lines to validate with"`
		Format     string `yaml:"format" help:"text, completion (prompt and completion), or auto: by the first line"`
		MaskPrompt bool   `yaml:"mask_prompt" help:"train completions only, not prompts"`
		MaxLength  int    `yaml:"max_length" help:"tokens that an example may have"`
		TooLong    string `yaml:"too_long" help:"what to do with longer ones: error, truncate or drop"`
		Shuffle    bool   `yaml:"shuffle" help:"visit examples in another order each epoch"`
	} `yaml:"data"`

	LoRA struct {
		Rank    int     `yaml:"rank" help:"of the adapters"`
		Alpha   float64 `yaml:"alpha" help:"adapters are scaled by alpha/rank"`
		Dropout float64 `yaml:"dropout" help:"of the adapters' inputs, in training only"`
		Targets Targets `yaml:"targets" help:"all-linear, a list of layer names, or a regular expression for the whole path"`
		Layers  Layers  `yaml:"layers" help:"all, the number of last layers, or a list of layers"`
		Init    string  `yaml:"init" help:"default (Kaiming uniform) or gaussian"`
		Adapter string  `yaml:"adapter" help:"PEFT folder to start from; its rank, alpha and targets hold"`
	} `yaml:"lora"`

	Optimizer struct {
		Name        string    `yaml:"name" help:"adamw"`
		LR          float64   `yaml:"lr" help:"learning rate"`
		WeightDecay float64   `yaml:"weight_decay" help:"decoupled; not of norms and biases"`
		Betas       []float64 `yaml:"betas,flow" help:"decay of the two moments"`
		Eps         float64   `yaml:"eps" help:"added to the root of the second moment"`
		Clip        float64   `yaml:"clip" help:"largest global norm of the gradient; 0: any"`
		Schedule    string    `yaml:"schedule" help:"constant, linear or cosine"`
		MinLR       float64   `yaml:"min_lr" help:"where linear and cosine would be one step after the last"`
		Warmup      Warmup    `yaml:"warmup" help:"steps, or a fraction of all steps (0.05 or 5%)"`
	} `yaml:"optimizer"`

	Train struct {
		Steps       int     `yaml:"steps" harmless:"steps" help:"optimizer steps; 0: by epochs"`
		Epochs      float64 `yaml:"epochs" harmless:"steps" help:"passes over the data"`
		BatchSize   int     `yaml:"batch_size" help:"sequences in a micro-batch"`
		Accumulate  int     `yaml:"accumulate" help:"micro-batches in a step"`
		Recompute   string  `yaml:"recompute" harmless:"yes" help:"none, or block: less memory, a third more work"`
		EvalEvery   int     `yaml:"eval_every" harmless:"yes" help:"steps between validations; 0: at the end"`
		SaveEvery   int     `yaml:"save_every" harmless:"yes" help:"steps between checkpoints; 0: at the end"`
		Keep        int     `yaml:"keep" harmless:"yes" help:"newest checkpoints to keep; 0: all"`
		ReportEvery int     `yaml:"report_every" harmless:"yes" help:"steps between lines of progress"`
	} `yaml:"train"`

	Sample struct {
		Prompts   []string `yaml:"prompts" harmless:"yes" help:"answered before and after training"`
		MaxTokens int      `yaml:"max_tokens" harmless:"yes" help:"of an answer"`
	} `yaml:"sample"`

	Backend   string `yaml:"backend" harmless:"yes" help:"auto (metal on a Mac with Apple silicon, else cpu), cpu, metal or reference (float64)"`
	Precision string `yaml:"precision" help:"of activations: float32, or on a GPU bfloat16 or float16; parameters and sums are float32"`
	Threads   int    `yaml:"threads" harmless:"yes" help:"of the CPU; 0: all that the process may use"`
	ISA       string `yaml:"isa" harmless:"yes" help:"instruction set of the CPU, one that train doctor names, on which last bits depend; empty: the best"`
	Profile   bool   `yaml:"profile" harmless:"yes" help:"print where the time went, and write profile.json"`
}

// Values of keys that are words.
const (
	LoRA  = "lora"
	Full  = "full"
	Block = "block"
)

// Defaults returns the configuration before anything is set.
func Defaults() Config {
	var c Config
	c.Mode, c.Backend, c.Precision, c.Profile = LoRA, "auto", "float32", true
	c.Data.Format, c.Data.MaskPrompt, c.Data.MaxLength, c.Data.TooLong, c.Data.Shuffle = "auto", true, 2048, "error", true
	c.LoRA.Rank, c.LoRA.Alpha, c.LoRA.Init = 16, 32, "default"
	c.LoRA.Targets = Targets{Pattern: "all-linear"}
	c.Optimizer.Name, c.Optimizer.LR, c.Optimizer.Betas, c.Optimizer.Eps = "adamw", 2e-4, []float64{0.9, 0.999}, 1e-8
	c.Optimizer.Clip, c.Optimizer.Schedule = 1, "cosine"
	c.Train.Epochs, c.Train.BatchSize, c.Train.Accumulate, c.Train.Recompute = 1, 4, 1, "none"
	c.Train.SaveEvery, c.Train.Keep, c.Train.ReportEvery = 100, 3, 10
	c.Sample.MaxTokens = 64
	return c
}

// problem is something wrong with the value of a key.
type problem struct{ key, text string }

// check collects what is wrong with values.
type check struct{ list []problem }

func (c *check) that(ok bool, key, format string, args ...any) {
	if !ok {
		c.list = append(c.list, problem{key, fmt.Sprintf(format, args...)})
	}
}

func (c *check) number(key string, v, min, max float64) {
	c.that(v >= min && v <= max, key, "%g, want %g to %g", v, min, max)
}

func (c *check) count(key string, v, min, max int) {
	c.that(v >= min && v <= max, key, "%d, want %d to %d", v, min, max)
}

func (c *check) word(key, v string, words ...string) {
	for _, w := range words {
		if v == w {
			return
		}
	}
	near := nearest(v, words)
	c.that(false, key, "%q, want one of %s%s", v, join(words), suggest(near))
}

// The largest values that make sense, and keep products within range.
const (
	maxSteps  = 1 << 30
	maxBatch  = 1 << 16
	maxTokens = 1 << 24
)

// problems lists everything that is wrong with the values.
func (c *Config) problems() []problem {
	var k check
	k.that(c.Model != "", "model", "missing: name the folder of the base model")
	k.that(c.Out != "", "out", "empty: name the folder of the run")
	k.that(c.Data.Train != "", "data.train", "missing: name a file of JSON lines")
	k.word("mode", c.Mode, LoRA, Full)
	k.word("backend", c.Backend, "auto", "cpu", "metal", "reference")
	k.word("precision", c.Precision, "float32", "bfloat16", "float16")
	k.count("threads", c.Threads, 0, 4096)

	k.word("data.format", c.Data.Format, "auto", "text", "completion")
	k.word("data.too_long", c.Data.TooLong, "error", "truncate", "drop")
	k.count("data.max_length", c.Data.MaxLength, 2, maxTokens)

	k.count("lora.rank", c.LoRA.Rank, 1, lora.MaxRank)
	k.number("lora.alpha", c.LoRA.Alpha, lora.MinAlpha, lora.MaxAlpha)
	k.that(c.LoRA.Dropout >= 0 && c.LoRA.Dropout < 1, "lora.dropout", "%g, want 0 or more and less than 1", c.LoRA.Dropout)
	k.word("lora.init", c.LoRA.Init, "default", "gaussian")
	k.that(c.LoRA.Targets.Pattern != "" || len(c.LoRA.Targets.Names) > 0, "lora.targets", "empty: name at least one layer, or all-linear")

	if p := c.LoRA.Targets.Pattern; p != "" {
		_, err := regexp.Compile(p)
		k.that(err == nil, "lora.targets", "%q is no regular expression that Go understands: %v", p, err)
	}
	k.that(c.LoRA.Adapter == "" || c.Mode != Full, "lora.adapter", "mode full trains all weights and takes no adapter")

	o := c.Optimizer
	k.word("optimizer.name", o.Name, "adamw")
	k.number("optimizer.lr", o.LR, 0, 1e3)
	k.number("optimizer.weight_decay", o.WeightDecay, 0, 1e3)
	k.that(len(o.Betas) == 2, "optimizer.betas", "%d numbers, want 2", len(o.Betas))
	for i, b := range o.Betas {
		k.that(b >= 0 && b < 1, fmt.Sprintf("optimizer.betas[%d]", i), "%g, want 0 or more and less than 1", b)
	}
	k.number("optimizer.eps", o.Eps, 1e-37, 1) // a float32 that is not 0
	k.number("optimizer.clip", o.Clip, 0, math.MaxFloat32)
	k.word("optimizer.schedule", o.Schedule, "constant", "linear", "cosine")
	k.number("optimizer.min_lr", o.MinLR, 0, o.LR)

	t := c.Train
	k.count("train.steps", t.Steps, 0, maxSteps)
	k.that(t.Steps > 0 || t.Epochs > 0 && t.Epochs <= 1e6, "train.epochs", "%g, want more than 0 and at most 1e6 (or set train.steps)", t.Epochs)
	k.count("train.batch_size", t.BatchSize, 1, maxBatch)
	k.count("train.accumulate", t.Accumulate, 1, maxBatch)
	k.word("train.recompute", t.Recompute, "none", Block)
	k.count("train.eval_every", t.EvalEvery, 0, maxSteps)
	k.count("train.save_every", t.SaveEvery, 0, maxSteps)
	k.count("train.keep", t.Keep, 0, maxSteps)
	k.count("train.report_every", t.ReportEvery, 0, maxSteps)
	k.count("sample.max_tokens", c.Sample.MaxTokens, 1, 1<<16)
	return k.list
}
