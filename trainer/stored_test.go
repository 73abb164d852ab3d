package trainer

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"graft/kernels"
	"graft/model"
	"graft/model/safetensors"
	"graft/model/stored"
)

// TestStoredTypes trains from the same values stored in different types and
// files. Frozen weights are widened exactly, wherever they lie, so the
// adapters have the same bytes.
func TestStoredTypes(t *testing.T) {
	m, err := model.Open(demo + "/model")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, narrow := range []kernels.DType{kernels.BF16, kernels.F16} {
		var want []byte
		for _, as := range []kernels.DType{narrow, kernels.F32, kernels.F64} {
			for _, sharded := range []bool{false, true} {
				j := job{out: filepath.Join(t.TempDir(), "run"), sets: []string{"model=" + convert(t, m, narrow, as, sharded)}}
				j.must(t, "")
				got := adapterBytes(t, j.out)
				if want == nil {
					want = got
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%v values stored as %v, sharded %v: another adapter", narrow, as, sharded)
				}
			}
		}
	}
}

// convert writes the model with its values rounded to narrow, stored as as.
func convert(t *testing.T, m *model.Model, narrow, as kernels.DType, sharded bool) string {
	t.Helper()
	dir := t.TempDir()
	var list []stored.Tensor
	for _, x := range m.Tensors() {
		v, err := x.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		rounded := make([]byte, len(v)*narrow.Size())
		kernels.EncodeFloat64(rounded, v, narrow)
		kernels.DecodeFloat64(v, rounded, narrow)
		data := make([]byte, len(v)*as.Size())
		kernels.EncodeFloat64(data, v, as)
		list = append(list, stored.Tensor{Name: x.Name, DType: as, Shape: x.Shape, Data: data})
	}
	write := func(name string, list []stored.Tensor) {
		if err := safetensors.Write(filepath.Join(dir, name), list, nil); err != nil {
			t.Fatal(err)
		}
	}
	if sharded {
		index := map[string]map[string]string{"weight_map": {}}
		for i, name := range []string{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"} {
			part := list[i*len(list)/2 : (i+1)*len(list)/2]
			write(name, part)
			for _, x := range part {
				index["weight_map"][x.Name] = name
			}
		}
		b, err := json.Marshal(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	} else {
		write("model.safetensors", list)
	}
	for _, n := range m.Companions() {
		b, err := os.ReadFile(filepath.Join(m.Dir, n))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, n), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
