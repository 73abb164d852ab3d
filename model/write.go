package model

import (
	"fmt"
	"math"

	"graft/kernels"
	"graft/program"
)

// Run is a program of a model with the values that the caller fills and reads.
type Run struct {
	*program.Program
	Tokens    *program.Value // I32 [T, 1]
	Positions *program.Value // I32 [T, 1], from 0 in each sequence
	Bounds    *program.Value // I32 [S+1, 1]
	Rows      *program.Value // I32 [N, 1]: tokens whose successor is predicted
	Targets   *program.Value // I32 [N, 1]: those successors; nil for logits
	Loss      *program.Value // [N, 1]; nil for logits
	Logits    *program.Value // [N, vocab]; nil for losses
}

// Inputs are the tokens of a micro-batch, sequences end to end.
type Inputs struct {
	Tokens    []int32 // [T]
	Positions []int32 // [T], from 0 in each sequence
	Bounds    []int32 // [S+1], where the sequences start, and T
	Rows      []int32 // [N], tokens whose successor is predicted
	Targets   []int32 // [N], those successors; none for logits
}

// Fill sizes the program for a micro-batch and sets its inputs. Of the step only
// what came before is the caller's.
func (r *Run) Fill(in Inputs, s program.Step) {
	s.Tokens, s.LossRows, s.Bounds = len(in.Tokens), len(in.Rows), in.Bounds
	r.Bind(s)
	r.Tokens.SetInt32s(in.Tokens)
	r.Positions.SetInt32s(in.Positions)
	r.Bounds.SetInt32s(in.Bounds)
	r.Rows.SetInt32s(in.Rows)
	if r.Targets != nil {
		r.Targets.SetInt32s(in.Targets)
	}
}

// Train writes the program of one micro-batch: losses, and gradients added to
// those of the parameters. With recompute, the values inside each layer are
// computed again in the backward pass instead of being kept.
func (in *Instance) Train(recompute bool) *Run {
	w := in.begin()
	w.train, w.recompute = true, recompute
	w.losses()
	w.Backward()
	return &w.Run
}

// Eval writes the program that computes losses only, without dropout.
func (in *Instance) Eval() *Run {
	w := in.begin()
	w.losses()
	return &w.Run
}

// Infer writes the program that computes the logits of the rows asked for,
// without dropout. Soft caps of the logits are left to CapLogits.
func (in *Instance) Infer() *Run {
	w := in.begin()
	x := w.decoder()
	w.At(-1, headModule)
	w.Logits = w.Linear(x, w.head(), nil, w.adapter(headModule, x), in.LogitScale)
	w.Keep(w.Logits)
	return &w.Run
}

// CapLogits applies the model's soft cap to logits in place.
func (d *Decoder) CapLogits(logits []float64) {
	if c := d.LogitSoftCap; c > 0 {
		for i, z := range logits {
			logits[i] = c * math.Tanh(z/c)
		}
	}
}

func (w *writer) losses() {
	w.Targets = w.Input("targets", program.LossRows)
	x := w.decoder()
	w.At(-1, headModule)
	w.Loss = w.CrossEntropy(x, w.head(), w.Targets, w.adapter(headModule, x), w.in.LogitScale, w.in.LogitSoftCap)
}

// writer writes the forward pass of one program.
type writer struct {
	Run
	in        *Instance
	train     bool // dropout is for training only
	recompute bool
	weights   map[string]*program.Value
	angles    map[*Rotary]*program.Value
	thin      map[string]*program.Value // U of a group of adapters, by its first layer
}

func (in *Instance) begin() *writer {
	info := in.backend.Info()
	p := program.New(info.Activations(), info.Float)
	p.Apart = info.Apart
	return &writer{
		Run: Run{
			Program:   p,
			Tokens:    p.Input("tokens", program.Tokens),
			Positions: p.Input("positions", program.Tokens),
			Bounds:    p.Input("bounds", program.Bounds),
			Rows:      p.Input("rows", program.LossRows),
		},
		in:      in,
		weights: map[string]*program.Value{},
		angles:  map[*Rotary]*program.Value{},
		thin:    map[string]*program.Value{},
	}
}

// weight returns the value of a stored tensor, trained or frozen.
func (w *writer) weight(name string) *program.Value {
	if q := w.in.trained[name]; q != nil {
		return w.Use(q.Value)
	}
	if w.weights[name] == nil {
		t, ok := w.in.frozen[name]
		if !ok {
			panic(fmt.Sprintf("model: no weight %s", name))
		}
		w.weights[name] = w.Constant(t)
	}
	return w.weights[name]
}

func (w *writer) head() *program.Value {
	return w.weight(w.in.weightName(headModule))
}

// decoder writes everything up to the output head: the final hidden states of
// the rows that are asked for, [N, hidden].
func (w *writer) decoder() *program.Value {
	d := w.in.Decoder
	w.At(-1, embedModule)
	hidden := w.Embed(w.Tokens, w.weight(embedModule+".weight"), d.EmbedScale)
	w.tables()
	var delta *program.Value // what the layer before adds to hidden
	names := d.normNames()
	for i := range d.Layers {
		path := layerPath(i)
		last := i == len(d.Layers)-1
		w.At(i, path+names.attention)
		w.Block(false)
		var x *program.Value
		hidden, x = w.norm(hidden, delta, path, names.attention)
		w.Block(w.recompute)
		attended := w.attention(i, x)
		if last { // what does not feed the loss ends here
			w.At(i, path+"rows")
			hidden, attended = w.Gather(w.Rows, hidden), w.Gather(w.Rows, attended)
		}
		delta = w.output(i, "self_attn.o_proj", names.attentionOut, attended)
		w.At(i, path+names.mlp)
		hidden, x = w.norm(hidden, delta, path, names.mlp)
		delta = w.output(i, "mlp.down_proj", names.mlpOut, w.gated(i, x))
	}
	w.Block(false)
	w.At(-1, normModule)
	_, out := w.norm(hidden, delta, "", normModule)
	return out
}

// tables writes the angles of every rotary embedding that the layers use.
func (w *writer) tables() {
	for i, l := range w.in.Layers {
		if l.Rotary == nil || w.angles[l.Rotary] != nil {
			continue
		}
		w.At(-1, fmt.Sprintf("rotary.%d", i))
		freqs := w.Constant(w.in.rotaries[l.Rotary])
		w.angles[l.Rotary] = w.RotaryTable(w.Positions, freqs, l.Rotary.Scale)
	}
}

// norm adds delta (nil: nothing) to hidden and normalises the sum. A family
// without a norm at this place (name "") only adds.
func (w *writer) norm(hidden, delta *program.Value, path, name string) (sum, out *program.Value) {
	if name != "" {
		return w.RMSNorm(hidden, delta, w.weight(path+name+".weight"), w.in.NormEps, w.in.NormOffset)
	}
	if delta != nil {
		hidden = w.Add(hidden, delta)
	}
	return hidden, hidden
}

// output writes the projection at the end of attention or MLP, with the norm
// that some families put after it.
func (w *writer) output(layer int, name, norm string, x *program.Value) *program.Value {
	d := w.in.Decoder
	scale := d.ResidualScale
	y := w.linear(layer, name, x, scale)
	if norm == "" {
		return y
	}
	module := layerPath(layer) + norm
	w.At(layer, module)
	_, y = w.RMSNorm(y, nil, w.weight(module+".weight"), d.NormEps, d.NormOffset)
	return y
}

// linear writes one linear layer with its adapter, if it has one.
func (w *writer) linear(layer int, name string, x *program.Value, scale float64) *program.Value {
	module := layerPath(layer) + name
	w.At(layer, module)
	var bias *program.Value
	if b := module + ".bias"; w.has(b) {
		bias = w.weight(b)
	}
	return w.Linear(x, w.weight(module+".weight"), bias, w.adapter(module, x), scale)
}

func (w *writer) has(name string) bool {
	_, ok := w.in.tensors[name]
	return ok
}

// adapter returns the adapter of a layer with input x. The first layer of a
// group that is asked for writes the thin product for all of them.
func (w *writer) adapter(module string, x *program.Value) *program.Adapter {
	a := w.in.adapters[module]
	if a == nil {
		return nil
	}
	b := w.Use(a.b.Value)
	if a.Dropout > 0 { // A has no group
		if w.train {
			x = w.Dropout(x, a.Dropout, w.in.options.Seed, w.in.streams[module])
		}
		return &program.Adapter{U: w.Linear(x, w.Use(a.a.Value), nil, nil, 1), B: b, Scale: a.Scale}
	}
	u := w.thin[a.group]
	if u == nil {
		u = w.Linear(x, w.Use(w.in.groups[a.group]), nil, nil, 1)
		w.thin[a.group] = u
	}
	return &program.Adapter{U: w.Slice(u, a.col, a.Rank), B: b, Scale: a.Scale}
}

// attention writes projections, norms, rotation and attention of one layer.
func (w *writer) attention(i int, x *program.Value) *program.Value {
	d := w.in.Decoder
	path, l := layerPath(i)+"self_attn", d.Layers[i]
	qDim, kvDim := d.Heads*d.HeadDim, d.KVHeads*d.HeadDim
	var q, k, v *program.Value
	if d.FusedQKV {
		qkv := w.linear(i, "self_attn.qkv_proj", x, 1)
		q, k, v = w.Slice(qkv, 0, qDim), w.Slice(qkv, qDim, kvDim), w.Slice(qkv, qDim+kvDim, kvDim)
	} else {
		q, k, v = w.linear(i, "self_attn.q_proj", x, 1), w.linear(i, "self_attn.k_proj", x, 1), w.linear(i, "self_attn.v_proj", x, 1)
	}
	if d.QKNorm != NoQKNorm {
		w.At(i, path+".q_norm")
		_, q = w.RMSNorm(q, nil, w.weight(path+".q_norm.weight"), d.NormEps, d.NormOffset)
		w.At(i, path+".k_norm")
		_, k = w.RMSNorm(k, nil, w.weight(path+".k_norm.weight"), d.NormEps, d.NormOffset)
	}
	w.At(i, path)
	if t := w.angles[l.Rotary]; t != nil {
		q, k = w.Rotary(q, t, d.HeadDim), w.Rotary(k, t, d.HeadDim)
	}
	return w.Attention(q, k, v, w.Bounds, kernels.AttentionShape{
		HeadDim: d.HeadDim, Scale: d.AttentionScale, Window: l.Window, SoftCap: d.AttentionSoftCap,
	})
}

// gated writes the first half of the MLP.
func (w *writer) gated(i int, x *program.Value) *program.Value {
	d := w.in.Decoder
	var gate, up *program.Value
	if d.FusedGateUp {
		both := w.linear(i, "mlp.gate_up_proj", x, 1)
		gate, up = w.Slice(both, 0, d.Intermediate), w.Slice(both, d.Intermediate, d.Intermediate)
	} else {
		gate, up = w.linear(i, "mlp.gate_proj", x, 1), w.linear(i, "mlp.up_proj", x, 1)
	}
	w.At(i, layerPath(i)+"mlp")
	return w.Gated(gate, up, d.Act)
}
