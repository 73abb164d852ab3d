// Package model knows decoder-only transformers: it reads config.json into a
// [Decoder], opens and checks the weights, puts both on a backend, and writes
// the programs that train, evaluate and run the model.
//
//	m, err := model.Open("models/SmolLM2-135M")        // config and weights, mapped
//	in, err := m.Place(backend, model.Options{Adapters: …}) // frozen weights, trainable matrices
//	train := in.Train(false)                            // a program.Program with its inputs
//
// Weights are files of others, so every tensor that the model needs is checked
// against config.json when it is opened: there, of the right shape, of a
// floating type. Errors name the file, the tensor and both shapes.
package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"graft/kernels"
	"graft/model/pickle"
	"graft/model/safetensors"
	"graft/model/stored"
)

// Model is a decoder and its weights as they are stored.
type Model struct {
	*Decoder
	Dir     string // the folder with config.json
	Path    string // the weights file, or the index of its shards
	weights stored.Source
	tensors map[string]stored.Tensor // by the names of Hugging Face's causal LMs

	repacked []kernels.Host // weights that do not lie in the file as kernels want them
}

const (
	embedModule = "model.embed_tokens"
	normModule  = "model.norm"
	headModule  = "lm_head"
)

func layerPath(i int) string { return fmt.Sprintf("model.layers.%d.", i) }

// weightFiles are tried in this order in a model's folder.
var weightFiles = []struct {
	name string
	open func(path string) (stored.Source, error)
}{
	{"model.safetensors", openSafetensors},
	{"model.safetensors.index.json", safetensors.OpenIndexed},
	{"pytorch_model.bin", pickle.Open},
	{"pytorch_model.bin.index.json", pickle.OpenIndexed},
}

func openSafetensors(path string) (stored.Source, error) {
	f, err := safetensors.Open(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open opens a model: a folder in Hugging Face layout, or one weights file
// whose folder has the config.json.
func Open(path string) (*Model, error) {
	info, err := os.Stat(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			where := ""
			if here, err := os.Getwd(); err == nil && !filepath.IsAbs(path) {
				where = " in " + here
			}
			return nil, fmt.Errorf("model %s: there is no such file or folder%s", path, where)
		}
		return nil, fmt.Errorf("model: %w", err)
	}
	m := &Model{Dir: path}
	if !info.IsDir() {
		m.Dir, m.Path = filepath.Dir(path), path
	}
	if m.Decoder, err = ReadConfig(m.Dir); err != nil {
		return nil, err
	}
	if err := m.openWeights(); err != nil {
		return nil, err
	}
	m.Tied = m.Tied && !m.ownHead()
	if err := m.check(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// Close releases the weights.
func (m *Model) Close() error {
	for _, h := range m.repacked {
		kernels.FreeHost(h)
	}
	m.repacked = nil
	return m.weights.Close()
}

func (m *Model) openWeights() (err error) {
	if m.Path != "" {
		m.weights, err = openFile(m.Path)
		return err
	}
	var names []string
	for _, f := range weightFiles {
		m.Path = filepath.Join(m.Dir, f.name)
		if _, err := os.Stat(m.Path); err == nil {
			m.weights, err = f.open(m.Path)
			return err
		}
		names = append(names, f.name)
	}
	return fmt.Errorf("%s: no weights there: none of %s", m.Dir, strings.Join(names, ", "))
}

func openFile(path string) (stored.Source, error) {
	switch {
	case strings.HasSuffix(path, ".safetensors"):
		return openSafetensors(path)
	case strings.HasSuffix(path, ".safetensors.index.json"):
		return safetensors.OpenIndexed(path)
	case strings.HasSuffix(path, ".bin.index.json"):
		return pickle.OpenIndexed(path)
	case slices.Contains([]string{".bin", ".pt", ".pth"}, filepath.Ext(path)):
		return pickle.Open(path)
	}
	return nil, fmt.Errorf("%s: not a weights file by its name (.safetensors, .bin, .pt or .pth)", path)
}

// Weight is one tensor that a decoder needs.
type Weight struct {
	Name  string
	Shape []int // [out, in], or [width] of a norm or bias
}

// Needs lists all tensors of the decoder.
func (d *Decoder) Needs() []Weight {
	out := []Weight{{embedModule + ".weight", []int{d.Vocab, d.Hidden}}}
	for _, l := range d.Linears() {
		if l.Module == headModule && d.Tied {
			continue
		}
		out = append(out, Weight{l.Module + ".weight", []int{l.Out, l.In}})
		if l.Bias {
			out = append(out, Weight{l.Module + ".bias", []int{l.Out}})
		}
	}
	n := d.normNames()
	for i := range d.Layers {
		for _, name := range []string{n.attention, n.attentionOut, n.mlp, n.mlpOut} {
			if name != "" {
				out = append(out, Weight{layerPath(i) + name + ".weight", []int{d.Hidden}})
			}
		}
		if d.QKNorm != NoQKNorm {
			q, k := d.qkNormWidths()
			out = append(out, Weight{layerPath(i) + "self_attn.q_norm.weight", []int{q}},
				Weight{layerPath(i) + "self_attn.k_norm.weight", []int{k}})
		}
	}
	return append(out, Weight{normModule + ".weight", []int{d.Hidden}})
}

func (d *Decoder) qkNormWidths() (q, k int) {
	if d.QKNorm == NormWhole {
		return d.Heads * d.HeadDim, d.KVHeads * d.HeadDim
	}
	return d.HeadDim, d.HeadDim
}

// maxReported bounds how many missing or wrong tensors one message lists.
const maxReported = 5

// check finds every tensor that the decoder needs and compares its shape.
func (m *Model) check() error {
	m.tensors = map[string]stored.Tensor{}
	var errs []error
	for _, w := range m.Needs() {
		t, err := m.find(w)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		m.tensors[w.Name] = t
	}
	if n := len(errs) - maxReported; n > 0 {
		errs = append(errs[:maxReported], fmt.Errorf("%s: %d more tensors are missing or wrong", m.Path, n))
	}
	return errors.Join(errs...)
}

// ownHead says whether the files have an output head that is not the embedding.
// transformers takes it then, whatever config.json says. Where they are equal it
// has read both.
func (m *Model) ownHead() bool {
	head, ok := m.tensor(headModule + ".weight")
	embed, both := m.tensor(embedModule + ".weight")
	return ok && both && !head.Equal(embed)
}

// tensor returns a tensor of the files. Those of the bare decoder, without its
// head, lack the prefix.
func (m *Model) tensor(name string) (stored.Tensor, bool) {
	t, ok := m.weights.Tensor(name)
	if !ok {
		t, ok = m.weights.Tensor(strings.TrimPrefix(name, "model."))
	}
	return t, ok
}

func (m *Model) find(w Weight) (stored.Tensor, error) {
	t, ok := m.tensor(w.Name)
	if !ok {
		return t, fmt.Errorf("%s: tensor %s is missing%s", m.Path, w.Name, m.hint(w.Name))
	}
	if q, ok, err := m.affine(w, t); ok {
		return q, err
	}
	if !slices.Equal(t.Shape, w.Shape) {
		return t, fmt.Errorf("%s: tensor %s: shape %v, config.json says %v", t.File, t.Name, t.Shape, w.Shape)
	}
	if !t.DType.Float() {
		return t, fmt.Errorf("%s: tensor %s: type %s, want F32, F16, BF16 or F64", t.File, t.Name, t.Type())
	}
	return t, nil
}

func (m *Model) hint(name string) string {
	if name == headModule+".weight" {
		return " (config.json does not set tie_word_embeddings)"
	}
	return ""
}

// Base returns the weight of a linear layer.
func (m *Model) Base(module string) stored.Tensor { return m.tensors[m.weightName(module)] }

// weightName returns the name of a linear layer's weight: of a tied head, the embedding's.
func (d *Decoder) weightName(module string) string {
	if module == headModule && d.Tied {
		module = embedModule
	}
	return module + ".weight"
}

// Tensors returns the weights that the model uses, in the order of Needs.
func (m *Model) Tensors() []stored.Tensor {
	var out []stored.Tensor
	for _, w := range m.Needs() {
		t := m.tensors[w.Name]
		t.Name = w.Name
		out = append(out, t)
	}
	return out
}

// Bytes returns the size of all weights as they are stored.
func (m *Model) Bytes() int {
	n := 0
	for _, t := range m.tensors {
		n += len(t.Data)
	}
	return n
}

// Parameters returns the number of elements of all weights.
func (m *Model) Parameters() int {
	n := 0
	for _, t := range m.tensors {
		n += t.Len()
	}
	return n
}
