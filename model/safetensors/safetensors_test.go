package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"graft/kernels"
	"graft/model/stored"
)

const officialPath = "testdata/official.safetensors"

// file puts a header before data.
func file(header, data string) []byte {
	return append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header+data...)
}

func bytesOf(d kernels.DType, values ...float64) []byte {
	b := make([]byte, len(values)*d.Size())
	kernels.EncodeFloat64(b, values, d)
	return b
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestOfficial reads a file of the format's own library; see testdata/make.py.
func TestOfficial(t *testing.T) {
	f, err := Open(officialPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if want := map[string]string{"format": `pt <&> "é"`}; !maps.Equal(f.Metadata, want) {
		t.Errorf("metadata %v, want %v", f.Metadata, want)
	}
	want := []stored.Tensor{
		{Name: "a.weight", DType: kernels.F16, Shape: []int{3}, Data: bytesOf(kernels.F16, 1.5, math.Copysign(0, -1), 65504)},
		{Name: "bytes", DType: kernels.U8, Shape: []int{3}, Data: []byte{1, 2, 255}},
		{Name: "d", DType: kernels.F64, Shape: []int{}, Data: bytesOf(kernels.F64, 1e300)},
		{Name: "empty", DType: kernels.F32, Shape: []int{0, 4}, Data: []byte{}},
		{Name: "ids", DType: kernels.I64, Shape: []int{1, 2}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc0}},
		{Name: "mask", DType: kernels.Bool, Shape: []int{2}, Data: []byte{1, 0}},
		{Name: `quote"<é>`, DType: kernels.F32, Shape: []int{1, 1, 1}, Data: bytesOf(kernels.F32, 1)},
		{Name: "signed", DType: kernels.I8, Shape: []int{1}, Data: []byte{255}},
		{Name: "small", DType: kernels.I32, Shape: []int{2}, Data: []byte{253, 255, 255, 255, 7, 0, 0, 0}},
		{Name: "tiny", DType: kernels.I16, Shape: []int{2}, Data: []byte{253, 255, 7, 0}},
		{Name: "z.weight", DType: kernels.F32, Shape: []int{2, 3}, Data: bytesOf(kernels.F32, -2.5, -1.5, -0.5, 0.5, 1.5, 2.5)},
	}
	var names []string
	for _, w := range want {
		names = append(names, w.Name)
		w.File = officialPath
		if got, ok := f.Tensor(w.Name); !ok || !reflect.DeepEqual(got, w) {
			t.Errorf("%s:\n got %v\nwant %v", w.Name, got, w)
		}
	}
	if got := f.Names(); !slices.Equal(got, names) {
		t.Errorf("names %q, want %q", got, names)
	}
	if _, ok := f.Tensor("other"); ok {
		t.Error("there is a tensor that is not there")
	}
}

// TestWriteOfficial writes the same file, byte for byte, from any order.
func TestWriteOfficial(t *testing.T) {
	want, err := os.ReadFile(officialPath)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(officialPath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []stored.Tensor
	for _, n := range f.Names() {
		v, _ := f.Tensor(n)
		tensors = append(tensors, v)
	}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for range 2 {
		slices.Reverse(tensors)
		if err := Write(path, tensors, f.Metadata); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Errorf("got\n%q\nwant\n%q", got, want)
		}
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestRoundTrip(t *testing.T) {
	for _, tensors := range [][]stored.Tensor{
		nil,
		{{Name: "b", DType: kernels.BF16, Shape: []int{3}, Data: []byte("abcdef")},
			{Name: "e", DType: kernels.F32, Shape: []int{0}, Data: []byte{}},
			{Name: "a", DType: kernels.BF16, Shape: []int{1, 1}, Data: []byte("gh")}},
	} {
		var b bytes.Buffer
		if err := WriteTo(&b, tensors, map[string]string{"y": "1", "x": "\n\x00\"\\"}); err != nil {
			t.Fatal(err)
		}
		f, err := parse("x", b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if len(f.tensors) != len(tensors) || f.Metadata["x"] != "\n\x00\"\\" || f.Metadata["y"] != "1" {
			t.Errorf("%d tensors, metadata %q", len(f.tensors), f.Metadata)
		}
		for _, want := range tensors {
			want.File = "x"
			if got := f.tensors[want.Name]; !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
	}
}

func TestWriteErrors(t *testing.T) {
	ok := stored.Tensor{Name: "a", DType: kernels.F32, Shape: []int{1}, Data: make([]byte, 4)}
	with := func(edit func(*stored.Tensor)) []stored.Tensor {
		v := ok
		edit(&v)
		return []stored.Tensor{v}
	}
	for _, c := range []struct {
		tensors []stored.Tensor
		want    string
	}{
		{[]stored.Tensor{ok, ok}, "tensor a: the name is taken"},
		{with(func(v *stored.Tensor) { v.Name = metadataKey }), "the name is taken"},
		{with(func(v *stored.Tensor) { v.Name = "" }), "empty name"},
		{with(func(v *stored.Tensor) { v.Name = "\xff" }), "not UTF-8"},
		{with(func(v *stored.Tensor) { v.DType, v.Foreign = 0, "F8_E4M3" }), "type F8_E4M3 cannot be written"},
		{with(func(v *stored.Tensor) { v.Shape = []int{2} }), "4 bytes for shape [2] of F32"},
		{with(func(v *stored.Tensor) { v.Data = v.Data[:3] }), "3 bytes for shape [1] of F32"},
		{with(func(v *stored.Tensor) { v.Shape = []int{-1, -1} }), "for shape [-1 -1]"},
	} {
		path := filepath.Join(t.TempDir(), "x")
		if err := Write(path, c.tensors, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want one with %q", err, c.want)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
			t.Errorf("%s: left behind: %v", c.want, left)
		}
	}
	if err := WriteTo(&bytes.Buffer{}, nil, map[string]string{"a": "\xff"}); err == nil {
		t.Error("metadata that is not UTF-8 was written")
	}
	if err := WriteTo(full(40), []stored.Tensor{ok}, nil); !errors.Is(err, errFull) {
		t.Errorf("a full disk: %v", err)
	}
}

// full is a disk with room for so many bytes in one piece.
type full int

var errFull = errors.New("no space left")

func (f full) Write(p []byte) (int, error) {
	if len(p) > int(f) {
		return int(f), errFull
	}
	return len(p), nil
}

func TestHostile(t *testing.T) {
	one := func(entry string) []byte { return file(`{"a":`+entry+`}`, "12345678") }
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"empty", nil, "0 bytes are no safetensors file"},
		{"short", []byte("1234567"), "7 bytes are no safetensors file"},
		{"no header", file("", ""), "does not begin with {"},
		{"header past the end", file(`{}`, "")[:9], "only 1 follow"},
		{"huge length", append(bytes.Repeat([]byte{255}, 8), "{}"...), "at most 104857600"},
		{"leading space", file(` {}`, ""), "does not begin with {"},
		{"array", file(`[]`, ""), "does not begin with {"},
		{"zero padding", file("{}\x00", ""), "1 bytes after its JSON object"},
		{"second object", file("{}{}", ""), "2 bytes after its JSON object"},
		{"cut JSON", file(`{"a":{"dtype":`, ""), "ends too early"},
		{"deep", file(`{"a":{"dtype":`+strings.Repeat("[", 1<<20), ""), "dtype"},
		{"not UTF-8", file("{\"\xff\":1}", ""), "not UTF-8"},
		{"twice", file(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, "12"), `"a" is there twice`},
		{"dtype twice", one(`{"dtype":"U8","dtype":"I8","shape":[8],"data_offsets":[0,8]}`), `"dtype" is there twice`},
		{"metadata twice", file(`{"__metadata__":{},"__metadata__":{}}`, ""), "is there twice"},
		{"metadata nul", file(`{"__metadata__":nul}`, ""), "__metadata__"},
		{"metadata number", file(`{"__metadata__":{"a":1}}`, ""), "__metadata__: 1, want a string"},
		{"no name", file(`{"":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}`, "12345678"), "empty name"},
		{"terminal escape", file(`{"\u001b[2J":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}`, "12345678"), "unprintable"},
		{"no shape", one(`{"dtype":"U8","data_offsets":[0,8]}`), "tensor a: dtype, shape or data_offsets is missing"},
		{"null", one(`null`), "null, want an object"},
		{"unknown key", one(`{"dtype":"U8","shape":[8],"data_offsets":[0,8],"x":1}`), `unknown key "x"`},
		{"negative", one(`{"dtype":"U8","shape":[-8],"data_offsets":[0,8]}`), "tensor a: shape: -8, want a whole number"},
		{"fraction", one(`{"dtype":"U8","shape":[8.0],"data_offsets":[0,8]}`), "want a whole number"},
		{"product overflows", one(`{"dtype":"U8","shape":[4294967296,4294967296,8],"data_offsets":[0,8]}`), "shape [4294967296 4294967296 8] is too large"},
		{"size overflows", one(`{"dtype":"F64","shape":[2305843009213693953],"data_offsets":[0,8]}`), "8 bytes for shape [2305843009213693953] of F64"},
		{"wrong size", one(`{"dtype":"F32","shape":[3],"data_offsets":[0,8]}`), "tensor a: 8 bytes for shape [3] of F32"},
		{"three offsets", one(`{"dtype":"U8","shape":[8],"data_offsets":[0,8,8]}`), "3 numbers, want 2"},
		{"reversed", one(`{"dtype":"U8","shape":[8],"data_offsets":[8,0]}`), "the end is before the beginning"},
		{"truncated", one(`{"dtype":"U8","shape":[9],"data_offsets":[0,9]}`), "ends at byte 9 of the data and there are 8: truncated"},
		{"trailing", one(`{"dtype":"U8","shape":[7],"data_offsets":[0,7]}`), "1 bytes at the end belong to no tensor"},
		{"gap at the start", one(`{"dtype":"U8","shape":[7],"data_offsets":[1,8]}`), "1 bytes before it belong to no tensor"},
		{"overlap", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, "123"), "tensor b overlaps tensor a"},
		{"same bytes", file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, "12"), "tensor b overlaps tensor a"},
		{"foreign past the end", one(`{"dtype":"F8_E4M3","shape":[9],"data_offsets":[0,9]}`), "truncated"},
		{"dtype with newline", one(`{"dtype":"F8\n","shape":[8],"data_offsets":[0,8]}`), "unprintable"},
	} {
		path := filepath.Join(t.TempDir(), "m.safetensors")
		write(t, path, c.file)
		f, err := Open(path)
		if err == nil || f != nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want an error with %q", c.name, f, err, c.want)
		}
		if err != nil && len(err.Error()) > 300+len(path) {
			t.Errorf("%s: a message of %d bytes", c.name, len(err.Error()))
		}
	}
}

func TestForeignType(t *testing.T) {
	f, err := parse("m", file(`{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`, "123"))
	if err != nil {
		t.Fatal(err)
	}
	v, ok := f.Tensor("a")
	if !ok || v.DType != 0 || v.Foreign != "F8_E4M3" || string(v.Data) != "12" {
		t.Errorf("%v, %v", v, ok)
	}
	if _, err := v.Float64s(); err == nil || !strings.Contains(err.Error(), "m: tensor a: type F8_E4M3") {
		t.Errorf("error %v", err)
	}
}

func TestOpenIndexed(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "model.safetensors.index.json")
	for i, name := range []string{"a", "b"} {
		v := stored.Tensor{Name: name, DType: kernels.F32, Shape: []int{1}, Data: bytesOf(kernels.F32, float64(i))}
		if err := Write(filepath.Join(dir, fmt.Sprintf("model-%d.safetensors", i)), []stored.Tensor{v}, nil); err != nil {
			t.Fatal(err)
		}
	}
	write(t, index, []byte(`{"metadata":{},"weight_map":{"a":"model-0.safetensors","b":"model-1.safetensors"}}`))
	s, err := OpenIndexed(index)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		v, ok := s.Tensor(name)
		if got, err := v.Float64s(); !ok || err != nil || got[0] != float64(i) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "model-1.safetensors"), []byte("x"))
	if _, err := OpenIndexed(index); err == nil || !strings.Contains(err.Error(), "model-1.safetensors: 1 bytes are no") {
		t.Errorf("a damaged shard: %v", err)
	}
	write(t, index, []byte(`{"weight_map":{"a":"model-0.safetensors","b":"model-2.safetensors"}}`))
	if _, err := OpenIndexed(index); err == nil || !strings.Contains(err.Error(), "shard model-2.safetensors is missing") {
		t.Errorf("a missing shard: %v", err)
	}
}

// TestShared opens every safetensors file of the shared folder.
func TestShared(t *testing.T) {
	paths, _ := filepath.Glob("../../../shared/golden/*/*.safetensors")
	if len(paths) == 0 {
		t.Skip("../shared/golden is not there")
	}
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, n := range f.Names() {
			if v, _ := f.Tensor(n); v.DType.Float() {
				if got, err := v.Float64s(); err != nil || len(got) != v.Len() {
					t.Error(n, err)
				}
			}
		}
		f.Close()
	}
}

func FuzzParse(f *testing.F) {
	if b, err := os.ReadFile(officialPath); err == nil {
		f.Add(b)
	}
	f.Add(file(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"F8_E4M3","shape":[],"data_offsets":[2,2]}}  `, "12"))
	f.Add(file(`{"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parse("m", b)
		if err != nil {
			return
		}
		sum, foreign := 0, false
		var tensors []stored.Tensor
		for _, n := range s.Names() {
			v, _ := s.Tensor(n)
			sum += len(v.Data)
			foreign = foreign || v.Foreign != ""
			if v.DType != 0 && v.Len()*v.DType.Size() != len(v.Data) {
				t.Errorf("%s: %d bytes for %v of %v", n, len(v.Data), v.Shape, v.DType)
			}
			tensors = append(tensors, v)
		}
		if n := int(binary.LittleEndian.Uint64(b)); sum != len(b)-8-n {
			t.Errorf("the tensors have %d bytes, the data %d", sum, len(b)-8-n)
		}
		if foreign {
			return
		}
		var again bytes.Buffer
		if err := WriteTo(&again, tensors, s.Metadata); err != nil {
			t.Fatalf("cannot write what was read: %v", err)
		}
		if r, err := parse("m", again.Bytes()); err != nil || !reflect.DeepEqual(r.tensors, s.tensors) {
			t.Errorf("written and read again: %v", err)
		}
	})
}

// BenchmarkOpen shows that opening does not depend on the size of the tensors:
// a sparse file of 512 MB.
func BenchmarkOpen(b *testing.B) {
	const size = 512 << 20
	path := filepath.Join(b.TempDir(), "big")
	if err := os.WriteFile(path, file(fmt.Sprintf(`{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%[1]d]}}`, size), ""), 0o600); err != nil {
		b.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || os.Truncate(path, info.Size()+size) != nil {
		b.Fatal("cannot make the file")
	}
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
