package pickle

import (
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"graft/kernels"
	"graft/model/safetensors"
	"graft/model/stored"
)

var (
	count24 = floats("0", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23)
	brains  = testStorage{"1", "BFloat16Storage", 3, bytesOf(kernels.BF16, 1, -2.5, 3)}
	halves  = testStorage{"2", "HalfStorage", 4, bytesOf(kernels.F16, 1.5, math.Copysign(0, -1), 65504, 0x1p-24)}
	doubles = testStorage{"3", "DoubleStorage", 1, bytesOf(kernels.F64, 1e300)}

	floatStorages = []testStorage{count24, brains, halves, doubles}
)

// everyView has a tensor of every kind: see wantViews.
var everyView = []entry{
	{"whole", tensor{count24, 0, []int{4, 6}, []int{6, 1}}},
	{"transposed", tensor{count24, 0, []int{6, 4}, []int{1, 6}}},
	{"row", tensor{count24, 12, []int{6}, []int{1}}},
	{"column", tensor{count24, 2, []int{4}, []int{6}}},
	{"block", tensor{count24, 7, []int{2, 3}, []int{6, 1}}},
	{"swapped", tensor{count24, 0, []int{3, 2, 4}, []int{4, 12, 1}}},
	{"diagonal", tensor{count24, 0, []int{4}, []int{7}}},
	{"repeated", tensor{count24, 5, []int{2, 2}, []int{0, 1}}},
	{"one", tensor{count24, 3, []int{1, 1}, []int{1000, 99}}},
	{"scalar", tensor{count24, 23, nil, nil}},
	{"empty", tensor{count24, 0, []int{0, 5}, []int{5, 1}}},
	{"bf16", tensor{brains, 0, []int{3}, []int{1}}},
	{"bf16.reversed", tensor{brains, 0, []int{2, 1}, []int{2, 1}}},
	{"f16", tensor{halves, 0, []int{2, 2}, []int{2, 1}}},
	{"f64", tensor{doubles, 0, []int{1}, []int{1}}},
	{"parameter", []any{raw("ctorch._utils\n_rebuild_parameter\n("), tensor{count24, 4, []int{2}, []int{1}}, true, emptyOrderedDict, raw("tR")}},
}

var wantViews = map[string][]float64{
	"whole":         {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23},
	"transposed":    {0, 6, 12, 18, 1, 7, 13, 19, 2, 8, 14, 20, 3, 9, 15, 21, 4, 10, 16, 22, 5, 11, 17, 23},
	"row":           {12, 13, 14, 15, 16, 17},
	"column":        {2, 8, 14, 20},
	"block":         {7, 8, 9, 13, 14, 15},
	"swapped":       {0, 1, 2, 3, 12, 13, 14, 15, 4, 5, 6, 7, 16, 17, 18, 19, 8, 9, 10, 11, 20, 21, 22, 23},
	"diagonal":      {0, 7, 14, 21},
	"repeated":      {5, 6, 5, 6},
	"one":           {3},
	"scalar":        {23},
	"empty":         {},
	"bf16":          {1, -2.5, 3},
	"bf16.reversed": {1, 3},
	"f16":           {1.5, math.Copysign(0, -1), 65504, 0x1p-24},
	"f64":           {1e300},
	"parameter":     {4, 5},
}

// formats writes a program and its storages in both formats.
func formats(t testing.TB, program []byte, storages ...testStorage) map[string][]byte {
	return map[string][]byte{"zip": zipFile(t, program, storages...), "legacy": legacyFile(program, storages...)}
}

func checkSource(t *testing.T, name, path string, s stored.Source, want map[string][]float64) {
	t.Helper()
	if got := s.Names(); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("%s: names %v", name, got)
	}
	for n, w := range want {
		for range 2 { // a copy is made once
			v, ok := s.Tensor(n)
			got, err := v.Float64s()
			if !ok || err != nil || !slices.EqualFunc(got, w, func(a, b float64) bool { return math.Float64bits(a) == math.Float64bits(b) }) {
				t.Errorf("%s: %s: %v, %v, want %v", name, n, got, err, w)
			}
			if v.Name != n || v.File != path || v.Len() != len(w) {
				t.Errorf("%s: %s: described as %v", name, n, v)
			}
		}
	}
	if _, ok := s.Tensor("other"); ok {
		t.Errorf("%s: there is a tensor that is not there", name)
	}
}

func TestViews(t *testing.T) {
	for name, data := range formats(t, build(everyView), floatStorages...) {
		path := save(t, data)
		s, err := Open(path)
		if err != nil {
			t.Fatal(name, err)
		}
		checkSource(t, name, path, s, wantViews)
		v, _ := s.Tensor("swapped")
		if !slices.Equal(v.Shape, []int{3, 2, 4}) || v.DType != kernels.F32 {
			t.Errorf("%s: %v", name, v)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestStateDict finds the tensors in what training scripts save.
func TestStateDict(t *testing.T) {
	w := tensor{count24, 1, []int{2}, []int{1}}
	other := tensor{count24, 5, []int{1}, []int{1}}
	state := []entry{{"w", w}}
	ordered := []any{emptyOrderedDict, raw("("), "w", w, raw("u")}
	attributes := append(slices.Clone(ordered), raw("}"), "_metadata", emptyOrderedDict, raw("("), "", []entry{{"version", 1}}, raw("usb"))
	for name, object := range map[string]any{
		"plain":         state,
		"others":        []entry{{"step", 3}, {"lr", raw("G?\xf0\x00\x00\x00\x00\x00\x00")}, {"w", w}, {"none", nil}, {"list", raw("](K\x01K\x02e")}, {"set", raw("\x8f(K\x01\x90")}},
		"ordered":       ordered,
		"attributes":    attributes,
		"state_dict":    []entry{{"state_dict", state}, {"epoch", 3}, {"other", other}},
		"model":         []entry{{"optimizer", []entry{{"x", other}}}, {"model", attributes}, {"big", raw("\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x40")}},
		"module":        []entry{{"module", state}},
		"nested":        []entry{{"model", []entry{{"model_state_dict", state}, {"x", other}}}},
		"most specific": []entry{{"model", []entry{{"x", other}}}, {"state_dict", state}},
		"memo":          []any{raw("}q\x00X\x01\x00\x00\x00w"), w, raw("q\x05s0h\x00")},
	} {
		for format, data := range formats(t, build(object), count24) {
			path := save(t, data)
			s, err := Open(path)
			if err != nil {
				t.Errorf("%s, %s: %v", name, format, err)
				continue
			}
			checkSource(t, name, path, s, map[string][]float64{"w": {1, 2}})
			s.Close()
		}
	}
}

// TestProtocol4 reads a program with frames, short strings and names from the
// stack.
func TestProtocol4(t *testing.T) {
	body := raw("}\x94\x8c\x01w\x94\x8c\x0ctorch._utils\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94(" +
		"(\x8c\x07storage\x94\x8c\x05torch\x94\x8c\x0cFloatStorage\x94\x93\x94\x8c\x010\x94\x8c\x03cpu\x94K\x18t\x94Q" +
		"K\x01K\x02\x85\x94K\x01\x85\x94\x89\x8c\x0bcollections\x94\x8c\x0bOrderedDict\x94\x93\x94)R\x94t\x94R\x94s.")
	framed := []byte("\x80\x04\x95" + string([]byte{byte(len(body))}) + "\x00\x00\x00\x00\x00\x00\x00" + string(body))
	s, err := Open(save(t, zipFile(t, framed, count24)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, _ := s.Tensor("w")
	if got, err := v.Float64s(); err != nil || !slices.Equal(got, []float64{1, 2}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestIntegers(t *testing.T) {
	want := map[string]kernels.DType{"Long": kernels.I64, "Int": kernels.I32, "Short": kernels.I16, "Char": kernels.I8, "Byte": kernels.U8, "Bool": kernels.Bool}
	var storages []testStorage
	var entries []entry
	for class, d := range want {
		data := []byte("0123456789abcdef")[:2*d.Size()]
		storages = append(storages, testStorage{class, class + "Storage", 2, data})
		entries = append(entries, entry{class, tensor{storages[len(storages)-1], 1, []int{1}, []int{1}}})
	}
	for format, data := range formats(t, build(entries), storages...) {
		s, err := Open(save(t, data))
		if err != nil {
			t.Fatal(format, err)
		}
		for class, d := range want {
			v, ok := s.Tensor(class)
			if !ok || v.DType != d || string(v.Data) != "0123456789abcdef"[d.Size():2*d.Size()] {
				t.Errorf("%s: %s: %v", format, class, v)
			}
		}
		s.Close()
	}
}

// TestViewsAreMapped sees that a contiguous tensor is a part of the file and
// that shared storages stay shared.
func TestViewsAreMapped(t *testing.T) {
	views, err := parse(zipFile(t, build(everyView), floatStorages...))
	if err != nil {
		t.Fatal(err)
	}
	whole, row := views["whole"].data(), views["row"].data()
	if &whole[4*12] != &row[0] {
		t.Error("two views of one storage have different bytes")
	}
	if a, b := views["transposed"].data(), views["transposed"].data(); &a[0] != &b[0] {
		t.Error("a copy is made each time")
	}
}

// TestSixteenBits decodes all halves and bfloats and compares with the
// definition: (-1)^s · 2^(e-bias) · (1 + m/2^bits), without the 1 for e = 0.
func TestSixteenBits(t *testing.T) {
	all := make([]byte, 2<<16)
	for i := range 1 << 16 {
		all[2*i], all[2*i+1] = byte(i), byte(i>>8)
	}
	for _, c := range []struct {
		class      string
		bits, bias int // of the mantissa, of the exponent
	}{{"HalfStorage", 10, 15}, {"BFloat16Storage", 7, 127}} {
		s := testStorage{"0", c.class, 1 << 16, all}
		views, err := parse(zipFile(t, build([]entry{{"w", tensor{s, 0, []int{1 << 16}, []int{1}}}}), s))
		if err != nil {
			t.Fatal(err)
		}
		v := stored.Tensor{DType: views["w"].storage.dtype, Shape: views["w"].shape, Data: views["w"].data()}
		got, err := v.Float64s()
		if err != nil {
			t.Fatal(err)
		}
		single := make([]float32, len(got))
		kernels.DecodeFloat32(single, v.Data, v.DType)
		for i, g := range got {
			want := sixteen(i, c.bits, c.bias)
			if math.IsNaN(want) != math.IsNaN(g) || !math.IsNaN(g) && math.Float64bits(g) != math.Float64bits(want) {
				t.Fatalf("%s %#04x: %v, want %v", c.class, i, g, want)
			}
			if float64(single[i]) != g && !(math.IsNaN(g) && math.IsNaN(float64(single[i]))) {
				t.Fatalf("%s %#04x: %v as float32, want %v", c.class, i, single[i], g)
			}
		}
	}
}

func sixteen(h, bits, bias int) float64 {
	mantissa, exponent := h&(1<<bits-1), h>>bits&(1<<(15-bits)-1)
	v := 0.0
	switch exponent {
	case 1<<(15-bits) - 1:
		v = math.Inf(1)
		if mantissa != 0 {
			v = math.NaN()
		}
	case 0:
		v = math.Ldexp(float64(mantissa), 1-bias-bits)
	default:
		v = math.Ldexp(float64(mantissa+1<<bits), exponent-bias-bits)
	}
	if h>>15 != 0 {
		return math.Copysign(v, -1)
	}
	return v
}

func TestOpenIndexed(t *testing.T) {
	dir := t.TempDir()
	index := filepath.Join(dir, "pytorch_model.bin.index.json")
	for i := range 2 {
		data := zipFile(t, build([]entry{{fmt.Sprint("w", i), tensor{count24, i, []int{1}, []int{1}}}}), count24)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("shard", i)), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(index, []byte(`{"weight_map":{"w0":"shard0","w1":"shard1"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := OpenIndexed(index)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 2 {
		v, _ := s.Tensor(fmt.Sprint("w", i))
		if got, err := v.Float64s(); err != nil || !slices.Equal(got, []float64{float64(i)}) {
			t.Errorf("w%d: %v, %v", i, got, err)
		}
	}
}

// TestShared compares files of torch with the same weights as safetensors.
func TestShared(t *testing.T) {
	const shared = "../../../shared/"
	want, err := safetensors.Open(shared + "models/stories260k/model.safetensors")
	if err != nil {
		t.Skip("../shared/models/stories260k is not there")
	}
	defer want.Close()
	for _, c := range []struct {
		file   string
		stored func(float64) float64
	}{
		{"pytorch_model.bin", func(v float64) float64 { return v }},
		{"nested_bf16.pt", func(v float64) float64 { return float64(kernels.BF16ToFloat32(kernels.Float32ToBF16(float32(v)))) }},
		{"legacy_f16.bin", func(v float64) float64 { return float64(kernels.HalfToFloat32(kernels.Float32ToHalf(float32(v)))) }},
	} {
		s, err := Open(shared + "golden/stories260k/" + c.file)
		if err != nil {
			t.Error(err)
			continue
		}
		if !slices.Equal(s.Names(), want.Names()) {
			t.Errorf("%s: names %v, want %v", c.file, s.Names(), want.Names())
		}
		for _, n := range want.Names() {
			a, _ := s.Tensor(n)
			b, _ := want.Tensor(n)
			got, err1 := a.Float64s()
			values, err2 := b.Float64s()
			if err1 != nil || err2 != nil || !slices.Equal(a.Shape, b.Shape) {
				t.Errorf("%s: %s: %v %v %v %v", c.file, n, err1, err2, a.Shape, b.Shape)
				continue
			}
			for i, v := range values {
				if got[i] != c.stored(v) {
					t.Errorf("%s: %s[%d] = %v, want %v", c.file, n, i, got[i], c.stored(v))
					break
				}
			}
		}
		s.Close()
	}
}

// BenchmarkOpen shows that opening does not depend on the size of the tensors:
// a storage of 512 MB in a sparse file.
func BenchmarkOpen(b *testing.B) {
	const size = 512 << 20
	s := testStorage{"0", "ByteStorage", size, nil}
	head := append(legacyPrologue(true), build([]entry{{"w", tensor{s, 0, []int{size}, []int{1}}}})...)
	head = append(head, build(raw("]"), "0", raw("a"))...)
	head = append(head, 0, 0, 0, 0x20, 0, 0, 0, 0)
	path := save(b, head)
	if err := os.Truncate(path, int64(len(head)+size)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
