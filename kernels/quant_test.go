package kernels

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"testing"
)

// TestQuantised compares with the decoder of the gguf package (bench/quantised.py),
// bit for bit, from every first element on.
func TestQuantised(t *testing.T) {
	b, err := os.ReadFile("testdata/quantised.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct{ Type, Blocks, Values string }
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for d := DType(1); int(d) < len(dtypes); d++ {
		for _, r := range rows {
			if r.Type != d.String() {
				continue
			}
			seen++
			raw, err := base64.StdEncoding.DecodeString(r.Blocks)
			if err != nil {
				t.Fatal(err)
			}
			want, err := base64.StdEncoding.DecodeString(r.Values)
			if err != nil {
				t.Fatal(err)
			}
			n := len(want) / 4
			if d.Bytes(n) != len(raw) || !d.Quantised() || d.Float() {
				t.Fatalf("%v: %d elements take %d bytes, want %d", d, n, d.Bytes(n), len(raw))
			}
			at := func(i int) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:])) }
			for first := range n {
				got := make([]float32, min(n-first, 70))
				DecodeRange(got, raw, first, d)
				for i, v := range got {
					if v != at(first+i) {
						t.Fatalf("%v from %d: element %d is %v, want %v", d, first, first+i, v, at(first+i))
					}
				}
			}
			wide := make([]float64, n)
			DecodeFloat64(wide, raw, d)
			for i, v := range wide {
				if v != float64(at(i)) {
					t.Fatalf("%v: element %d is %v, want %v", d, i, v, at(i))
				}
			}
		}
	}
	if seen != 8 || len(rows) != 8 {
		t.Errorf("%d types of %d", seen, len(rows))
	}
	if _, ok := ParseDType("Q8_0"); ok {
		t.Error("safetensors has no Q8_0")
	}
}

func TestBlocks(t *testing.T) {
	mustPanic(t, "no whole blocks", func() { Q8_0.Bytes(33) })
	mustPanic(t, "no size", func() { Q4_K.Size() })
	w := &Tensor{Name: "w", DType: Q4_K, Rows: 3, Cols: 256, Stride: 256, Buf: make(Host, 3*144)}
	op := &Embed{Tokens: column(2), Table: w, Out: f32(2, 256), Scale: 1}
	Check(op)
	w.Stride = 300
	mustPanic(t, "no whole blocks", func() { Check(op) })
	w.Stride, w.Buf = 256, make(Host, 3*144-1)
	mustPanic(t, "ends behind its buffer", func() { Check(op) })
	out := &Tensor{Name: "out", DType: Q8_0, Rows: 1, Cols: 32, Stride: 32, Buf: make(Host, 34)}
	mustPanic(t, "not of a floating type", func() { Check(&Zero{Out: out}) })
}
