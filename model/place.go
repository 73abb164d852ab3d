package model

import (
	"fmt"
	"math"
	"path/filepath"

	"graft/kernels"
	"graft/model/stored"
	"graft/program"
)

// Adapter is the low-rank addition to one linear layer.
type Adapter struct {
	Rank    int
	Scale   float64 // what B·A is multiplied by
	Dropout float64 // of the input of A
}

// Options say what is trained.
type Options struct {
	Full     bool               // everything, instead of adapters
	Adapters map[string]Adapter // by module path
	Seed     uint64             // of dropout
}

// Instance is a model on a backend.
type Instance struct {
	*Model
	Params  *program.Parameters
	options Options
	backend kernels.Backend

	frozen   map[string]kernels.Tensor
	trained  map[string]*program.Parameter // by tensor name, when everything is trained
	adapters map[string]*adapter           // by module path
	groups   map[string]*program.Value     // stacked A's, by the path of the group's first layer
	streams  map[string]uint32             // dropout streams, by module path
	rotaries map[*Rotary]kernels.Tensor
}

// adapter holds the matrices of one adapted layer: U = X·Aᵀ, Y += Scale·U·Bᵀ.
type adapter struct {
	Adapter
	a, b  *program.Parameter
	group string // the first layer of those that share its input
	col   int    // first column in the U of its group
}

// Place puts the weights on a backend and declares what is trained. Values of
// adapters are zero until something sets them. Heads that the backend's attention
// does not take are an error.
func (m *Model) Place(b kernels.Backend, o Options) (*Instance, error) {
	if i := b.Info(); i.MaxHead > 0 && m.Decoder.HeadDim > i.MaxHead {
		return nil, fmt.Errorf("%s: head_dim %d: backend %s takes at most %d, backend cpu any",
			filepath.Join(m.Dir, configFile), m.Decoder.HeadDim, i.Name, i.MaxHead)
	}
	in := &Instance{
		Model: m, Params: program.NewParameters(b.Info().Float), options: o, backend: b,
		frozen: map[string]kernels.Tensor{}, trained: map[string]*program.Parameter{},
		adapters: map[string]*adapter{}, groups: map[string]*program.Value{},
		streams: map[string]uint32{}, rotaries: map[*Rotary]kernels.Tensor{},
	}
	in.declareAdapters()
	if o.Full {
		for _, t := range m.Tensors() {
			if t.DType.Quantised() {
				return nil, fmt.Errorf("%s: tensor %s is quantised (%v): all weights can be trained (mode: full) only of a model in floating point", t.File, t.Name, t.DType)
			}
			rows, cols := matrix(t.Shape)
			in.trained[t.Name] = in.Params.Add(t.Name, rows, cols, rows > 1)
		}
	}
	if err := in.Params.Allocate(b); err != nil {
		return nil, err
	}
	for _, t := range m.Tensors() {
		if q := in.trained[t.Name]; q != nil {
			fill(&q.Value.Tensor, t)
		} else if err := in.freeze(t); err != nil {
			return nil, err
		}
	}
	return in, in.placeRotaries()
}

// matrix returns the shape that operations see: a vector is one row.
func matrix(shape []int) (rows, cols int) {
	if len(shape) == 1 {
		return 1, shape[0]
	}
	return shape[0], shape[1]
}

func (in *Instance) freeze(t stored.Tensor) error {
	buf, err := in.backend.Wrap(t.Data)
	if err != nil {
		return fmt.Errorf("%s: tensor %s: %w", t.File, t.Name, err)
	}
	rows, cols := matrix(t.Shape)
	in.frozen[t.Name] = kernels.Tensor{Name: t.Name, DType: t.DType, Rows: rows, Cols: cols, Stride: cols, Buf: buf}
	return nil
}

// fill decodes a stored tensor into a trainable one, a few rows at a time.
func fill(to *kernels.Tensor, from stored.Tensor) {
	rows := max(1, 1<<16/to.Cols)
	size := from.DType.Size() * to.Cols
	values := make([]float64, rows*to.Cols)
	for i := 0; i < to.Rows; i += rows {
		part := *to
		part.Rows = min(rows, to.Rows-i)
		part.Off += i * to.Stride * to.DType.Size()
		v := values[:part.Rows*to.Cols]
		kernels.DecodeFloat64(v, from.Data[i*size:], from.DType)
		part.SetFloat64s(v)
	}
}

// inputGroups lists the layers that share an input, in forward order.
func (d *Decoder) inputGroups() [][]Linear {
	var out [][]Linear
	all := d.Linears()
	for i := 0; i < len(all); {
		n := 1
		switch {
		case endsIn(all[i].Module, "self_attn.q_proj"):
			n = 3
		case endsIn(all[i].Module, "mlp.gate_proj"):
			n = 2
		}
		out = append(out, all[i:i+n])
		i += n
	}
	return out
}

func endsIn(module, name string) bool {
	return len(module) > len(name) && module[len(module)-len(name):] == name
}

// declareAdapters adds A and B of every adapted layer. The A's of layers that
// share an input lie one after the other, so that one thin product serves all;
// with dropout each layer has a mask of its own, so they stay apart.
func (in *Instance) declareAdapters() {
	for i, l := range in.Linears() {
		in.streams[l.Module] = uint32(i)
	}
	for _, group := range in.inputGroups() {
		var parts []*program.Parameter
		col := 0
		for _, l := range group {
			spec, ok := in.options.Adapters[l.Module]
			if !ok {
				continue
			}
			if spec.Rank < 1 || spec.Rank > math.MaxInt32 {
				panic(fmt.Sprintf("model: adapter of %s: rank %d", l.Module, spec.Rank))
			}
			a := &adapter{Adapter: spec, a: in.Params.Add(l.Module+".lora_A.weight", spec.Rank, l.In, true), group: group[0].Module, col: col}
			in.adapters[l.Module] = a
			if spec.Dropout > 0 {
				continue
			}
			parts = append(parts, a.a)
			col += spec.Rank
		}
		if len(parts) > 0 {
			in.groups[group[0].Module] = in.Params.Stack(group[0].Module+" A", parts)
		}
		for _, l := range group {
			if a := in.adapters[l.Module]; a != nil {
				a.b = in.Params.Add(l.Module+".lora_B.weight", l.Out, a.Rank, true)
			}
		}
	}
}

func (in *Instance) placeRotaries() error {
	for _, l := range in.Layers {
		if _, done := in.rotaries[l.Rotary]; done || l.Rotary == nil {
			continue
		}
		n := len(l.Rotary.Freqs)
		t := kernels.Tensor{Name: "rotary frequencies", DType: kernels.F64, Rows: 1, Cols: n, Stride: n}
		bytes := make([]byte, 8*n)
		kernels.EncodeFloat64(bytes, l.Rotary.Freqs, kernels.F64)
		var err error
		if t.Buf, err = in.backend.Wrap(bytes); err != nil {
			return err
		}
		in.rotaries[l.Rotary] = t
	}
	return nil
}
