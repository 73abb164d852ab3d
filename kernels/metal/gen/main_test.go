package main

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestParamsAreUpToDate(t *testing.T) {
	want, err := params(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../params.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("params.go is not what the .metal files say: go generate ./kernels/metal")
	}
}

const kernel = "\nkernel void k(constant XParams& p [[buffer(0)]]) {}\n"

func TestParams(t *testing.T) {
	dir := fstest.MapFS{
		"a.h": {Data: []byte("constant constexpr uint kParts = 3;\nstruct Part {\n    uint first;\n    float scale[2][kParts];\n};\n")},
		"a.metal": {Data: []byte("#include \"a.h\"\nstruct XParams {\n    int sign; // of it\n    Part parts[4];\n    uint rows, cols;\n};\n" +
			"struct Other {\n    half h;\n};" + kernel)},
	}
	got, err := params(dir)
	if err != nil {
		t.Fatal(err)
	}
	const want = `// Code generated from the .metal files by gen; DO NOT EDIT.

package metal

import "unsafe"

// part is Part of a.metal.
type part struct {
	first uint32
	scale [2][3]float32
}

var _ = [1]struct{}{}[unsafe.Sizeof(part{})-28]

// xParams is XParams of a.metal.
type xParams struct {
	sign  int32
	parts [4]part
	rows  uint32
	cols  uint32
}

var _ = [1]struct{}{}[unsafe.Sizeof(xParams{})-124]
`
	if string(got) != want {
		t.Errorf("%s", got)
	}
}

func TestParamsErrors(t *testing.T) {
	for _, c := range []struct{ name, a, b, want string }{
		{"no structure", "struct X {", "", "a.metal:1: { is not closed"},
		{"two structures of one name", "struct XParams { uint a; };" + kernel, "struct XParams { int a; };" + kernel, "b.metal: structure XParams has other fields"},
		{"a word of Go", "struct XParams { uint range; };" + kernel, "", "expected"},
	} {
		dir := fstest.MapFS{"a.metal": {Data: []byte(c.a)}, "b.metal": {Data: []byte(c.b)}}
		if _, err := params(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
