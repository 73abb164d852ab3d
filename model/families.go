package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// families says what is special about each model_type.
var families = map[string]func(*hfConfig, *Decoder) error{
	"llama":       llama,
	"mistral":     mistral,
	"qwen2":       qwen2,
	"qwen3":       qwen3,
	"gemma2":      gemma2,
	"gemma3_text": gemma3,
	"phi3":        phi3,
	"olmo2":       olmo2,
	"granite":     granite,
	"smollm3":     smollm3,
}

func familyNames() string { return strings.Join(slices.Sorted(maps.Keys(families)), ", ") }

// defaults are what transformers takes for keys that config.json does not have,
// where that differs from family to family and a weight's shape would not tell.
// A key that is null is there.
var defaults = map[string]string{
	"mistral": `{"sliding_window": 4096}`,
	"gemma2": `{"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096, "tie_word_embeddings": true,
		"query_pre_attn_scalar": 256, "attn_logit_softcapping": 50, "final_logit_softcapping": 30}`,
	"gemma3_text": `{"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 4096, "tie_word_embeddings": true,
		"query_pre_attn_scalar": 256, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4}`,
	"phi3":    `{"rms_norm_eps": 1e-5}`,
	"olmo2":   `{"rms_norm_eps": 1e-5}`,
	"smollm3": `{"tie_word_embeddings": true, "rope_theta": 2e6, "no_rope_layer_interval": 4}`,
}

// missing returns the config of a file without any keys.
func missing(family string) hfConfig {
	c := hfConfig{RMSNormEps: 1e-6, HiddenAct: "silu"}
	if keys := defaults[family]; keys != "" {
		if err := json.Unmarshal([]byte(keys), &c); err != nil {
			panic(fmt.Sprintf("model: defaults of %s: %v", family, err))
		}
	}
	return c
}

func llama(c *hfConfig, d *Decoder) error {
	d.QKVBias, d.OutBias, d.MLPBias = c.AttentionBias, c.AttentionBias, c.MLPBias
	return nil
}

func mistral(c *hfConfig, d *Decoder) error {
	return c.windows(d, func(int) bool { return true })
}

func qwen2(c *hfConfig, d *Decoder) error {
	d.QKVBias = true
	return c.declaredWindows(d)
}

func qwen3(c *hfConfig, d *Decoder) error {
	d.QKVBias, d.OutBias = c.AttentionBias, c.AttentionBias
	d.QKNorm = NormHeads
	return c.declaredWindows(d)
}

func gemma2(c *hfConfig, d *Decoder) error {
	if c.Bidirectional {
		return errors.New("use_bidirectional_attention is not supported: tokens look back only")
	}
	d.QKVBias, d.OutBias = c.AttentionBias, c.AttentionBias
	d.NormOffset, d.PostNorm = 1, true
	d.EmbedScale = math.Sqrt(float64(d.Hidden))
	if !(c.QueryScalar > 0) {
		return fmt.Errorf("query_pre_attn_scalar is %v, want more than 0", c.QueryScalar)
	}
	d.AttentionScale = 1 / math.Sqrt(c.QueryScalar)
	d.AttentionSoftCap, d.LogitSoftCap = value(c.AttentionSoftCap, 0), value(c.LogitSoftCap, 0)
	if d.AttentionSoftCap < 0 || d.LogitSoftCap < 0 {
		return errors.New("attn_logit_softcapping and final_logit_softcapping must not be negative")
	}
	return c.windows(d, func(i int) bool { return i%2 == 0 })
}

func gemma3(c *hfConfig, d *Decoder) error {
	d.QKNorm = NormHeads
	c.AttentionSoftCap = nil // transformers' attention is not given it
	if c.LayerTypes != nil {
		return gemma2(c, d)
	}
	if err := gemma2(c, d); err != nil {
		return err
	}
	pattern := c.WindowPattern
	if pattern < 1 {
		return fmt.Errorf("sliding_window_pattern is %d, want 1 or more", pattern)
	}
	return c.windows(d, func(i int) bool { return (i+1)%pattern != 0 })
}

func phi3(c *hfConfig, d *Decoder) error {
	d.FusedQKV, d.FusedGateUp = true, true
	if c.ResidualDropout > 0 {
		d.Dropout = append(d.Dropout, "resid_pdrop")
	}
	c.LayerTypes = nil // transformers does not look at them
	return mistral(c, d)
}

func olmo2(c *hfConfig, d *Decoder) error {
	d.QKVBias, d.OutBias = c.AttentionBias, c.AttentionBias
	d.PreNorm, d.PostNorm, d.QKNorm = false, true, NormWhole
	return nil
}

func granite(c *hfConfig, d *Decoder) error {
	if err := llama(c, d); err != nil {
		return err
	}
	if c.AttentionBias || c.MLPBias {
		return errors.New("granite with biases is not supported: residual_multiplier would have to scale them")
	}
	d.EmbedScale = value(c.EmbeddingMultiplier, 1)
	d.ResidualScale = value(c.ResidualMultiplier, 1)
	d.AttentionScale = value(c.AttentionMultiplier, 1)
	scaling := value(c.LogitsScaling, 1)
	if scaling == 0 {
		return errors.New("logits_scaling is 0")
	}
	d.LogitScale = 1 / scaling
	return nil
}

func smollm3(c *hfConfig, d *Decoder) error {
	if n := len(c.RopeLayers); n != 0 && n != len(d.Layers) {
		return fmt.Errorf("no_rope_layers has %d entries for %d layers", n, len(d.Layers))
	}
	if c.RopeLayers == nil { // the last layer of every so many goes without
		every := c.RopeLayerInterval
		if every < 1 {
			return fmt.Errorf("no_rope_layer_interval is %d, want 1 or more", every)
		}
		for i := range d.Layers {
			c.RopeLayers = append(c.RopeLayers, min((i+1)%every, 1))
		}
	}
	if err := llama(c, d); err != nil {
		return err
	}
	return c.declaredWindows(d)
}

// declaredWindows is for families that have windows only where layer_types
// says so.
func (c *hfConfig) declaredWindows(d *Decoder) error {
	if c.UseWindow && c.LayerTypes == nil {
		return errors.New("use_sliding_window needs layer_types, which says for which layers")
	}
	return c.windows(d, func(int) bool { return false })
}

// windows gives the layers that layer_types calls sliding_attention the
// window; without layer_types, those that sliding picks.
func (c *hfConfig) windows(d *Decoder, sliding func(i int) bool) error {
	if n := len(c.LayerTypes); n != 0 && n != len(d.Layers) {
		return fmt.Errorf("layer_types has %d entries for %d layers", n, len(d.Layers))
	}
	for i := range d.Layers {
		yes := sliding(i)
		if c.LayerTypes != nil {
			switch t := c.LayerTypes[i]; t {
			case "full_attention", "sliding_attention":
				yes = t == "sliding_attention"
			default:
				return fmt.Errorf("layer_types[%d]: %q is not supported", i, t)
			}
		}
		d.Layers[i].Window = 0
		if yes {
			d.Layers[i].Window = value(c.SlidingWindow, 0)
		}
	}
	return nil
}

// value returns *p, or missing where config.json does not have the key.
func value[T any](p *T, missing T) T {
	if p == nil {
		return missing
	}
	return *p
}
