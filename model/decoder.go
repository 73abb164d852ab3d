package model

import "graft/kernels"

// Decoder is the one definition of a decoder-only transformer that all
// families are described with. Zero values mean "not there".
type Decoder struct {
	Family       string // model_type of config.json
	Vocab        int
	Hidden       int
	Intermediate int
	Heads        int
	KVHeads      int
	HeadDim      int
	MaxPositions int // context length the model was made for; 0: not said
	Layers       []Layer
	Tied         bool // the output head is the embedding table

	Act        kernels.Act
	NormEps    float64
	NormOffset float64 // 1 where files store weight-1

	// Biases of the linear layers.
	QKVBias, OutBias, MLPBias bool
	// FusedQKV and FusedGateUp say that files hold one matrix for them.
	FusedQKV, FusedGateUp bool
	// PreNorm norms the input of attention and MLP, PostNorm their output.
	PreNorm, PostNorm bool
	QKNorm            QKNorm

	// Multipliers; 1 where a family has none.
	EmbedScale, ResidualScale, LogitScale float64
	AttentionScale                        float64 // of Q·K
	AttentionSoftCap, LogitSoftCap        float64

	EOS []int32 // end-of-sequence tokens that config.json names

	// Dropout lists the keys of config.json that ask for dropout in training. It is
	// not applied, so it is no part of the model's fingerprint.
	Dropout []string `json:"-"`
}

// Layer is what may differ from layer to layer.
type Layer struct {
	Window int     // attention looks back this many tokens, itself included; 0: all
	Rotary *Rotary // nil: no rotary embedding
}

// QKNorm says whether queries and keys are normalised before they are rotated.
type QKNorm uint8

// NormHeads normalises each head by itself, NormWhole all heads together.
const (
	NoQKNorm QKNorm = iota
	NormHeads
	NormWhole
)

// Rotary holds the frequencies of a rotary embedding. Layers that share one
// share its table of angles.
type Rotary struct {
	Freqs []float64 // radians per position, [rotated dimensions / 2]
	Scale float64   // of cosine and sine
}

// norms of one layer, as Hugging Face calls them.
type normNames struct {
	attention, attentionOut, mlp, mlpOut string
}

// normNames returns which norm stands where. Families with post-norms use
// "post_attention_layernorm" for the output of attention, the others for the
// input of the MLP.
func (d *Decoder) normNames() normNames {
	var n normNames
	if d.PreNorm {
		n.attention, n.mlp = "input_layernorm", "post_attention_layernorm"
		if d.PostNorm {
			n.mlp = "pre_feedforward_layernorm"
		}
	}
	if d.PostNorm {
		n.attentionOut, n.mlpOut = "post_attention_layernorm", "post_feedforward_layernorm"
	}
	return n
}

// Linear describes one linear layer of a decoder.
type Linear struct {
	Module  string // path in the file: "model.layers.0.self_attn.q_proj"
	Layer   int    // -1 for the output head
	In, Out int
	Bias    bool
}

// Linears lists all linear layers in the order of the forward pass. The output
// head comes last, and is listed even where it is tied to the embedding.
func (d *Decoder) Linears() []Linear {
	var out []Linear
	q, kv := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	for i := range d.Layers {
		add := func(name string, in, n int, bias bool) {
			out = append(out, Linear{layerPath(i) + name, i, in, n, bias})
		}
		if d.FusedQKV {
			add("self_attn.qkv_proj", d.Hidden, q+2*kv, d.QKVBias)
		} else {
			add("self_attn.q_proj", d.Hidden, q, d.QKVBias)
			add("self_attn.k_proj", d.Hidden, kv, d.QKVBias)
			add("self_attn.v_proj", d.Hidden, kv, d.QKVBias)
		}
		add("self_attn.o_proj", q, d.Hidden, d.OutBias)
		if d.FusedGateUp {
			add("mlp.gate_up_proj", d.Hidden, 2*d.Intermediate, d.MLPBias)
		} else {
			add("mlp.gate_proj", d.Hidden, d.Intermediate, d.MLPBias)
			add("mlp.up_proj", d.Hidden, d.Intermediate, d.MLPBias)
		}
		add("mlp.down_proj", d.Intermediate, d.Hidden, d.MLPBias)
	}
	return append(out, Linear{headModule, -1, d.Hidden, d.Vocab, false})
}

// FLOPsPerToken is the usual estimate of a training step, for each token: for each
// weight that the token is multiplied with, 2 forward, 2 for the gradients of inputs,
// and, where all weights are trained, 2 for theirs.
func (d *Decoder) FLOPsPerToken(full bool) float64 {
	n := 0
	for _, l := range d.Linears() {
		n += l.In * l.Out
	}
	if full {
		return 6 * float64(n)
	}
	return 4 * float64(n)
}
