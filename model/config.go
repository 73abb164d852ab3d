package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"graft/internal/files"
	"graft/kernels"
)

// hfConfig is the part of a Hugging Face config.json that we read.
type hfConfig struct {
	ModelType        string   `json:"model_type"`
	HiddenSize       int      `json:"hidden_size"`
	IntermediateSize int      `json:"intermediate_size"`
	Layers           int      `json:"num_hidden_layers"`
	Heads            int      `json:"num_attention_heads"`
	KVHeads          *int     `json:"num_key_value_heads"`
	HeadDim          *int     `json:"head_dim"`
	Vocab            int      `json:"vocab_size"`
	MaxPositions     int      `json:"max_position_embeddings"`
	RMSNormEps       float64  `json:"rms_norm_eps"`
	HiddenAct        string   `json:"hidden_act"`
	Tied             bool     `json:"tie_word_embeddings"`
	AttentionBias    bool     `json:"attention_bias"`
	MLPBias          bool     `json:"mlp_bias"`
	SlidingWindow    *int     `json:"sliding_window"`
	UseWindow        bool     `json:"use_sliding_window"`
	LayerTypes       []string `json:"layer_types"`
	EOS              tokenIDs `json:"eos_token_id"`
	AttentionDropout float64  `json:"attention_dropout"`

	// Gemma
	HiddenActivation string   `json:"hidden_activation"`
	QueryScalar      float64  `json:"query_pre_attn_scalar"`
	AttentionSoftCap *float64 `json:"attn_logit_softcapping"`
	LogitSoftCap     *float64 `json:"final_logit_softcapping"`
	Bidirectional    bool     `json:"use_bidirectional_attention"`
	LocalTheta       *float64 `json:"rope_local_base_freq"`
	WindowPattern    int      `json:"sliding_window_pattern"`

	// Granite
	EmbeddingMultiplier *float64 `json:"embedding_multiplier"`
	AttentionMultiplier *float64 `json:"attention_multiplier"`
	ResidualMultiplier  *float64 `json:"residual_multiplier"`
	LogitsScaling       *float64 `json:"logits_scaling"`

	// SmolLM3
	RopeLayers        []int `json:"no_rope_layers"` // 1: with rotary embedding
	RopeLayerInterval int   `json:"no_rope_layer_interval"`

	// Phi 3
	PartialRotary   *float64 `json:"partial_rotary_factor"`
	ResidualDropout float64  `json:"resid_pdrop"`

	OriginalPositions *float64 `json:"original_max_position_embeddings"`

	RopeTheta      *float64        `json:"rope_theta"`
	RopeScaling    *ropeConfig     `json:"rope_scaling"`    // of older files
	RopeParameters *ropeParameters `json:"rope_parameters"` // of newer ones

	Quantization       json.RawMessage `json:"quantization"`
	QuantizationConfig json.RawMessage `json:"quantization_config"`
}

// ropeParameters is one ropeConfig, or one for each type of layer.
type ropeParameters struct {
	ropeConfig
	Full    *ropeConfig `json:"full_attention"`
	Sliding *ropeConfig `json:"sliding_attention"`
}

// ropeConfig describes a rotary embedding.
type ropeConfig struct {
	Type     string   `json:"rope_type"`
	OldType  string   `json:"type"`
	Theta    *float64 `json:"rope_theta"`
	Factor   float64  `json:"factor"`
	Low      float64  `json:"low_freq_factor"`
	High     float64  `json:"high_freq_factor"`
	Original float64  `json:"original_max_position_embeddings"`
	Partial  *float64 `json:"partial_rotary_factor"`
}

// tokenIDs is one number or a list of them.
type tokenIDs []int32

func (t *tokenIDs) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	var one int32
	if json.Unmarshal(b, &one) == nil {
		*t = tokenIDs{one}
		return nil
	}
	var list []int32
	if err := json.Unmarshal(b, &list); err != nil {
		return errors.New("want a token number or a list of them")
	}
	*t = list
	return nil
}

const configFile = "config.json"

// maxConfigBytes bounds config.json; real ones have a few kilobytes.
const maxConfigBytes = 1 << 20

// ReadConfig reads the config.json of a model folder.
func ReadConfig(dir string) (*Decoder, error) {
	path := filepath.Join(dir, configFile)
	b, err := files.Read(path, maxConfigBytes)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: no config.json there: model must be a folder in Hugging Face layout", dir)
	}
	if err != nil {
		return nil, err
	}
	d, err := ParseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return d, nil
}

// ParseConfig turns the bytes of a config.json into a decoder.
func ParseConfig(b []byte) (*Decoder, error) {
	var kind struct {
		ModelType string `json:"model_type"`
	}
	if err := json.Unmarshal(b, &kind); err != nil {
		return nil, jsonError(b, err)
	}
	family, ok := families[kind.ModelType]
	if !ok {
		return nil, fmt.Errorf("model_type %q is not supported; these are: %s", kind.ModelType, familyNames())
	}
	c := missing(kind.ModelType)
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, jsonError(b, err)
	}
	if err := c.checkQuantization(); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	full, sliding, err := c.rotaries()
	if err != nil {
		return nil, err
	}
	d := &Decoder{
		Family: c.ModelType, Vocab: c.Vocab, Hidden: c.HiddenSize, Intermediate: c.IntermediateSize,
		Heads: c.Heads, KVHeads: c.kvHeads(), HeadDim: c.headDim(), MaxPositions: c.MaxPositions,
		Layers: make([]Layer, c.Layers), Tied: c.Tied,
		NormEps: c.RMSNormEps, PreNorm: true, EmbedScale: 1, ResidualScale: 1, LogitScale: 1,
		AttentionScale: 1 / math.Sqrt(float64(c.headDim())), EOS: c.EOS,
	}
	act := c.HiddenAct
	if c.HiddenActivation != "" {
		act = c.HiddenActivation
	}
	if d.Act, err = activation(act); err != nil {
		return nil, err
	}
	if c.AttentionDropout > 0 {
		d.Dropout = append(d.Dropout, "attention_dropout")
	}
	if err := family(&c, d); err != nil {
		return nil, err
	}
	for i := range d.Layers {
		l := &d.Layers[i]
		if l.Rotary = full; l.Window > 0 {
			l.Rotary = sliding
		}
		if i < len(c.RopeLayers) && c.RopeLayers[i] == 0 {
			l.Rotary = nil
		}
	}
	return d, nil
}

// jsonError adds the line to an error of encoding/json.
func jsonError(b []byte, err error) error {
	var at int64 = -1
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = syntax.Offset
	case errors.As(err, &wrong):
		at = wrong.Offset
		if wrong.Field != "" {
			err = fmt.Errorf("%s: %s where a %s is wanted", wrong.Field, wrong.Value, wrong.Type)
		}
	}
	if at < 0 || at > int64(len(b)) {
		return err
	}
	return fmt.Errorf("line %d: %w", 1+strings.Count(string(b[:at]), "\n"), err)
}

// maxDim bounds every size in config.json, so that products of three of them
// cannot overflow.
const maxDim = 1 << 20

func (c *hfConfig) check() error {
	var errs []error
	size := func(name string, v, max int) {
		if v < 1 || v > max {
			errs = append(errs, fmt.Errorf("%s is %d, want 1 to %d", name, v, max))
		}
	}
	size("hidden_size", c.HiddenSize, maxDim)
	size("intermediate_size", c.IntermediateSize, maxDim)
	size("num_hidden_layers", c.Layers, 1024)
	size("num_attention_heads", c.Heads, 4096)
	size("vocab_size", c.Vocab, 1<<24)
	if errs == nil {
		size("num_key_value_heads", c.kvHeads(), c.Heads)
		size("head_dim", c.headDim(), 4096)
	}
	if errs == nil && c.Heads%c.kvHeads() != 0 {
		errs = append(errs, fmt.Errorf("num_attention_heads %d is no multiple of num_key_value_heads %d", c.Heads, c.kvHeads()))
	}
	if errs == nil && c.headDim()%2 != 0 {
		errs = append(errs, fmt.Errorf("head_dim %d is odd: rotary embeddings turn pairs", c.headDim()))
	}
	if !(c.RMSNormEps > 0 && c.RMSNormEps < 1) {
		errs = append(errs, fmt.Errorf("rms_norm_eps is %v, want more than 0 and less than 1", c.RMSNormEps))
	}
	if c.SlidingWindow != nil && *c.SlidingWindow < 0 {
		errs = append(errs, fmt.Errorf("sliding_window is %d", *c.SlidingWindow))
	}
	if c.MaxPositions < 0 {
		errs = append(errs, fmt.Errorf("max_position_embeddings is %d", c.MaxPositions))
	}
	return errors.Join(errs...)
}

func (c *hfConfig) kvHeads() int { return value(c.KVHeads, c.Heads) }

func (c *hfConfig) headDim() int { return value(c.HeadDim, c.HiddenSize/c.Heads) }

func activation(name string) (kernels.Act, error) {
	switch name {
	case "silu", "swish":
		return kernels.SiLU, nil
	case "gelu":
		return kernels.GELU, nil
	case "gelu_pytorch_tanh", "gelu_new":
		return kernels.GELUTanh, nil
	}
	return 0, fmt.Errorf("hidden_act %q is not supported", name)
}
