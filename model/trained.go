package model

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"graft/internal/files"
	"graft/kernels"
	"graft/model/safetensors"
	"graft/model/stored"
)

// Fill sets a tensor of a backend to the one called name in a file, which must
// have its shape.
func Fill(to *kernels.Tensor, f stored.Source, name string) error {
	t, ok := f.Tensor(name)
	if !ok {
		return fmt.Errorf("tensor %s is missing", name)
	}
	if rows, cols := matrixOf(t.Shape); rows != to.Rows || cols != to.Cols || !t.DType.Float() {
		return fmt.Errorf("%s: tensor %s: %v %v, want %d × %d floating point numbers", t.File, name, t.DType, t.Shape, to.Rows, to.Cols)
	}
	fill(to, t)
	return nil
}

func matrixOf(shape []int) (rows, cols int) {
	if len(shape) != 1 && len(shape) != 2 {
		return -1, -1
	}
	return matrix(shape)
}

// Trained returns the weights that training has changed, for a file: in mode
// full all of them, with the shapes of the model's own files.
func (in *Instance) Trained() []stored.Tensor {
	var out []stored.Tensor
	for _, w := range in.Needs() {
		q := in.trained[w.Name]
		out = append(out, stored.Tensor{Name: w.Name, DType: q.Value.DType, Shape: w.Shape, Data: q.Value.Raw()})
	}
	return out
}

// LoadTrained reads back what Trained returned.
func (in *Instance) LoadTrained(path string) error {
	f, err := safetensors.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, w := range in.Needs() {
		if err := Fill(&in.trained[w.Name].Value.Tensor, f, w.Name); err != nil {
			return err
		}
	}
	return nil
}

// Companions returns the files beside the weights that make the folder a model
// for other programs.
func (m *Model) Companions() []string {
	var out []string
	for _, n := range []string{configFile, "generation_config.json", "tokenizer.json", "tokenizer_config.json",
		"special_tokens_map.json", "chat_template.jinja"} {
		if _, err := os.Stat(filepath.Join(m.Dir, n)); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// torchTypes are types as config.json names them.
var torchTypes = map[kernels.DType]string{kernels.F64: "float64", kernels.F32: "float32"}

// WriteCompanion copies a companion to lie beside the weights that Trained returns. Of config.json
// it changes the type of the weights, to which transformers would round them, and says whether the
// head is among them.
func (in *Instance) WriteCompanion(w io.Writer, name string) error {
	path := filepath.Join(in.Dir, name)
	if name == configFile {
		return writeConfig(w, path, torchTypes[in.backend.Info().Float], in.Tied)
	}
	f, err := files.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(w, f)
	return err
}

// writeConfig copies a config.json for other weights.
func writeConfig(w io.Writer, path, dtype string, tied bool) error {
	b, err := files.Read(path, maxConfigBytes)
	if err != nil {
		return err
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(b, &keys); err != nil {
		return fmt.Errorf("%s: %w", path, jsonError(b, err))
	}
	value := json.RawMessage(strconv.Quote(dtype))
	keys["torch_dtype"] = value
	if keys["dtype"] != nil { // newer files have this one
		keys["dtype"] = value
	}
	keys["tie_word_embeddings"] = json.RawMessage(strconv.FormatBool(tied))
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(keys)
}

// Fingerprint identifies the decoder and its weights. It reads all weights
// once, at the speed of memory (CRC-32C, which CPUs have an instruction for):
// it finds accidents, not forgeries.
func (m *Model) Fingerprint() string {
	h := sha256.New()
	decoder, err := json.Marshal(m.Decoder)
	if err != nil {
		panic(fmt.Sprintf("model: %v", err)) // all its numbers are finite
	}
	h.Write(decoder)
	tensors := m.Tensors()
	sums := make([]uint32, len(tensors))
	each(len(tensors), func(i int) { sums[i] = crc32.Checksum(tensors[i].Data, crc32.MakeTable(crc32.Castagnoli)) })
	for i, t := range tensors {
		fmt.Fprintf(h, "%s %v %v %08x\n", t.Name, t.DType, t.Shape, sums[i])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// each calls f for 0 to n-1 on all processors.
func each(n int, f func(i int)) {
	var wg sync.WaitGroup
	workers := min(n, runtime.GOMAXPROCS(0))
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				f(i)
			}
		})
	}
	wg.Wait()
}

// FileAt returns the file that the weights at an address are mapped from, or "".
func (m *Model) FileAt(address uintptr) string {
	for _, t := range m.Tensors() {
		if from := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data))); from <= address && address-from < uintptr(len(t.Data)) {
			return t.File
		}
	}
	return ""
}

// CheckFinite looks through all weights for a value that is not finite. It
// names the first, with its place.
func (m *Model) CheckFinite() error { return CheckFinite(m.Tensors()) }

// CheckFinite is the same for any tensors.
func CheckFinite(tensors []stored.Tensor) error {
	errs := make([]error, len(tensors))
	each(len(tensors), func(i int) { errs[i] = checkFinite(tensors[i]) })
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkFinite(t stored.Tensor) error {
	at, exponent, size := -1, uint64(0), t.DType.Size()
	switch t.DType {
	case kernels.F64:
		exponent = 0x7ff << 52
	case kernels.F32:
		exponent = 0x7f8 << 20
	case kernels.BF16:
		exponent = 0x7f8 << 4
	case kernels.F16:
		exponent = 0x7c00
	}
	var word [8]byte
	for i := 0; i+size <= len(t.Data); i += size {
		copy(word[:], t.Data[i:i+size])
		if binary.LittleEndian.Uint64(word[:])&exponent == exponent {
			at = i / size
			break
		}
	}
	if at < 0 {
		return nil
	}
	var v [1]float64
	kernels.DecodeFloat64(v[:], t.Data[at*size:], t.DType)
	what := "infinite"
	if math.IsNaN(v[0]) {
		what = "NaN"
	}
	err := fmt.Errorf("tensor %s: element %v is %s", t.Name, index(t.Shape, at), what)
	if t.File != "" {
		err = fmt.Errorf("%s: %w", t.File, err)
	}
	return err
}

// index turns a position in row-major order into one index per dimension.
func index(shape []int, at int) []int {
	out := make([]int, len(shape))
	for i := range slices.Backward(shape) {
		out[i] = at % shape[i]
		at /= shape[i]
	}
	return out
}
