// Package lora decides which linear layers get a low-rank adapter and what its
// matrices start as, and reads and writes adapters in PEFT's folder format.
//
// An adapter adds Scale·B·A to a weight W [out, in], with A [rank, in] and B
// [out, rank] (Hu et al., 2021). Scale is alpha/rank, or alpha/sqrt(rank) with
// rank-stabilised LoRA (Kalajdzievski, 2023). B starts at zero, so training
// starts from the base model.
//
//	adapters, err := cfg.Adapters(decoder)           // which layers, which ranks
//	in, err := m.Place(backend, model.Options{Adapters: adapters})
//	lora.Initialize(in, lora.Kaiming, seed)          // or lora.Load(dir, in)
package lora

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"graft/kernels/random"
	"graft/model"
)

// Config says which layers are adapted, and how. It holds what a PEFT
// adapter_config.json does.
type Config struct {
	Rank    int
	Alpha   float64
	Dropout float64
	RSLoRA  bool
	Targets Targets
	Layers  []int // layers that may be adapted; empty: all

	// Lenient passes over names and layers that the model does not have, as PEFT
	// does, if there are others that it has. What is missing then, [Load] finds.
	Lenient bool

	// RankPattern and AlphaPattern change Rank and Alpha for the modules
	// whose path ends in a match.
	RankPattern  Pattern[int]
	AlphaPattern Pattern[float64]
}

// Targets says which linear layers are adapted.
type Targets struct {
	Names   []string // module paths or their ends: "q_proj", "mlp.up_proj"
	Pattern string   // AllLinear, or a regular expression for the whole path
}

// The bounds of alpha and rank, so that sizes cannot overflow. A rank above a
// layer's width is a waste, but other programs allow it.
const (
	MinAlpha = 1e-9
	MaxAlpha = 1e9
	MaxRank  = 1 << 16
)

func alphaFits(a float64) bool { return a >= MinAlpha && a <= MaxAlpha }

// AllLinear targets every linear layer but the output head.
const AllLinear = "all-linear"

func (t Targets) String() string {
	if t.Pattern != "" {
		return t.Pattern
	}
	return strings.Join(t.Names, ", ")
}

// Adapters returns the adapter of every layer that the targets match, by
// module path.
func (c Config) Adapters(d *model.Decoder) (map[string]model.Adapter, error) {
	match, err := c.Targets.matcher()
	if err != nil {
		return nil, err
	}
	rankOf, err := c.RankPattern.picker()
	if err != nil {
		return nil, fmt.Errorf("rank_pattern: %w", err)
	}
	alphaOf, err := c.AlphaPattern.picker()
	if err != nil {
		return nil, fmt.Errorf("alpha_pattern: %w", err)
	}
	for _, l := range c.Layers {
		if !c.Lenient && (l < 0 || l >= len(d.Layers)) {
			return nil, fmt.Errorf("layer %d: the model has layers 0 to %d", l, len(d.Layers)-1)
		}
	}
	out := map[string]model.Adapter{}
	used := map[string]bool{}
	var there []string // the last parts of what may be adapted
	for _, l := range d.Linears() {
		if !c.layer(l.Layer) {
			continue
		}
		if n := last(l.Module); !slices.Contains(there, n) {
			there = append(there, n)
		}
		name, ok := match(l.Module)
		if !ok {
			continue
		}
		used[name] = true
		rank, alpha := rankOf(l.Module, c.Rank), alphaOf(l.Module, c.Alpha)
		if rank < 1 || rank > MaxRank {
			return nil, fmt.Errorf("rank %d for %s: want 1 to %d", rank, l.Module, MaxRank)
		}
		out[l.Module] = model.Adapter{Rank: rank, Scale: c.scale(rank, alpha), Dropout: c.Dropout}
	}
	where := ""
	if len(c.Layers) > 0 {
		where = fmt.Sprintf(" of layers %v", c.Layers)
	}
	for _, n := range c.Targets.Names {
		if !used[n] && !c.Lenient {
			return nil, fmt.Errorf("target %q matches no linear layer%s; there are: %s", n, where, strings.Join(there, ", "))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("targets %q match no linear layer%s; there are: %s", c.Targets, where, strings.Join(there, ", "))
	}
	return out, nil
}

func (c Config) layer(i int) bool {
	return len(c.Layers) == 0 || i >= 0 && slices.Contains(c.Layers, i)
}

func (c Config) scale(rank int, alpha float64) float64 {
	if c.RSLoRA {
		return alpha / math.Sqrt(float64(rank))
	}
	return alpha / float64(rank)
}

// matcher returns a function that says whether a module is a target, and by
// which name.
func (t Targets) matcher() (func(module string) (string, bool), error) {
	switch {
	case t.Pattern == AllLinear:
		return func(m string) (string, bool) { return AllLinear, m != "lm_head" }, nil
	case t.Pattern != "":
		re, err := compile("^(?:", t.Pattern, ")$")
		if err != nil {
			return nil, fmt.Errorf("targets: %w", err)
		}
		return func(m string) (string, bool) { return t.Pattern, re.MatchString(m) }, nil
	}
	return func(m string) (string, bool) {
		for _, n := range t.Names {
			if m == n || strings.HasSuffix(m, "."+n) {
				return n, true
			}
		}
		return "", false
	}, nil
}

func compile(before, pattern, after string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(before + pattern + after)
	if err != nil {
		return nil, fmt.Errorf("%q is no regular expression that Go understands: %w", pattern, err)
	}
	return re, nil
}

func last(module string) string { return module[strings.LastIndexByte(module, '.')+1:] }

// Initialisations of A, by PEFT's names for init_lora_weights.
const (
	Kaiming  = "default"  // U(-1/sqrt(in), 1/sqrt(in)): Kaiming uniform with a = sqrt 5
	Gaussian = "gaussian" // N(0, 1/rank²)
)

// Initialize sets A to random values, which depend only on the seed and the
// module's path, and B to zero.
func Initialize(in *model.Instance, init string, seed uint64) {
	for _, q := range in.Params.List() {
		values := make([]float64, q.Rows*q.Cols)
		if strings.HasSuffix(q.Name, suffixA) {
			stream := hash(q.Name)
			for i := range values {
				if init == Gaussian {
					values[i] = random.Normal(seed, random.Init, stream, uint64(i)) / float64(q.Rows)
				} else {
					values[i] = (2*random.Uniform(seed, random.Init, stream, uint64(i)) - 1) / math.Sqrt(float64(q.Cols))
				}
			}
		}
		q.Value.SetFloat64s(values)
	}
}

// hash is 32-bit FNV-1a.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h
}
