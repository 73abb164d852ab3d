package msl

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func parse(t *testing.T, src string) *Unit {
	t.Helper()
	u, err := Parse("x.metal", src)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

const structs = `struct Part {
    uint first;
    float scale[2][kParts];
};
struct XParams {
    int sign;
    Part parts[2];
    uint rows, cols;
};
`

func TestTranslate(t *testing.T) {
	src := `#include <metal_stdlib>
constant constexpr uint kParts = 3;
constant float kLow = -1.0f;
` + structs + `inline float f(threadgroup const float* p, device vec<float, 4>& q) { return p[0]; }
template <typename T>
kernel void k(
    device const T* x [[buffer(0)]],
    device T* y [[buffer(1)]],
    constant XParams& p [[buffer(2)]],
    threadgroup float* s [[threadgroup(0)]],
    uint2 at [[thread_position_in_grid]])
{
    alignas(16) threadgroup T tile[4 * kParts];
    threadgroup
        vec<T, 4> one;
    threadgroup const T* pointer = tile;
    y[tile[s[0]]] = x[0];
}
template [[host_name("k_f32")]] kernel decltype(k<float>) k<float>;
kernel void single(constant float* c [[buffer(0)]]) {}
`
	want := `#include <metal_stdlib>
MSL_BEGIN
#line 1 "x.metal"
#include <metal_stdlib>
static constexpr uint kParts = 3;
MSL_CONST float kLow = -1.0f;
` + structs + `MSL_INLINE float f(MSL_THREADGROUP const float* p, MSL_DEVICE vec<float, 4>& q) { return p[0]; }
template <typename T>
MSL_KERNEL void k(
    MSL_DEVICE const T* x ,
    MSL_DEVICE T* y ,
    MSL_CONSTANT XParams& p ,
    MSL_THREADGROUP float* s ,
    uint2 at )
{
    MSL_TG(0, 16, (T), tile, [4 * kParts]);
    MSL_TG(1, 0, (vec<T, 4>), one, )
;
    MSL_THREADGROUP const T* pointer = tile;
    y[tile[s[0]]] = x[0];
}
MSL_INST(MSL_KERNEL decltype(k<float>) k<float>)
MSL_KERNEL void single(MSL_CONSTANT float* c ) {}

#line 1 "x.metal.entries"
static_assert(sizeof(Part) == 28, "Part has other fields");
static_assert(sizeof(XParams) == 68, "XParams has other fields");
MSL_ENTRY(k_f32, "0r 1w 2c68 t0", (k<float>(MSL_BUF(0), MSL_BUF(1), MSL_REF(2), MSL_TGM(0), MSL_AT_thread_position_in_grid)))
MSL_ENTRY(single, "0r", (single(MSL_BUF(0))))
MSL_END
`
	u := parse(t, src)
	if got := u.Translate(); got != want {
		t.Errorf("%s", got)
	}
	if l := u.Lints(); l != nil {
		t.Errorf("lints %q", l)
	}
	if k := u.Kernels(); !slices.Equal(k, []string{"k_f32", "single"}) {
		t.Errorf("kernels %q", k)
	}
	part := Struct{"Part", []Field{{"first", "uint", nil}, {"scale", "float", []int{2, 3}}}, 28}
	all := Struct{"XParams", []Field{{"sign", "int", nil}, {"parts", "Part", []int{2}}, {"rows", "uint", nil}, {"cols", "uint", nil}}, 68}
	if got := u.Structs(); !reflect.DeepEqual(got, []Struct{part, all}) {
		t.Errorf("structures %+v", got)
	}
}

// TestLints has each lint once, with its line.
func TestLints(t *testing.T) {
	const params = "struct P { uint n; };\n"
	kernel := func(args string) string { return params + "kernel void k(" + args + ") {}" }
	body := func(s string) string { return "inline void f(thread float* p) {\n" + s + "\n}" }
	for _, c := range []struct{ src, want string }{
		{"float x = 1.0f;", "1: variable at file scope must be constant"},
		{"constant float x;", "1: constant without a value"},
		{"constant bool x [[function_constant(0)]];", "1: function constants are not in the dialect"},
		{"kernel void k() {}\ntemplate kernel void k();", "2: instantiation of a kernel needs host_name and template arguments"},
		{"template [[host_name(\"a b\")]] kernel decltype(k<int>) k<int>;", "1: instantiation of a kernel needs host_name and template arguments"},
		{"template [[host_name(\"a\")]] kernel decltype(k<int>) k<int>;", "1: no kernel template k before this"},
		{"kernel void k() {}\nkernel void k() {}", "2: kernel k: kernels are not overloaded, nor called main"},
		{"kernel void main() {}", "1: kernel main: kernels are not overloaded, nor called main"},
		{"kernel int k() {}", "1: kernel k must return void"},
		{"kernel (int a) {}", "1: kernel without a name"},
		{kernel("device float* x"), "2: parameter MSL_DEVICE float* x has no attribute"},
		{kernel("[[buffer(0)]]"), "2: parameter without a type"},
		{kernel("device float* x [[buffer(0)]], device float* y [[buffer(0)]]"), "2: buffer(0) is used twice"},
		{kernel("device float* x [[buffer(31)]]"), "2: buffer index 31, Metal has 0 to 30"},
		{kernel("device float* x [[buffer(1)]]"), "2: kernel k: buffers are numbered from 0 without gaps"},
		{kernel("thread float* x [[buffer(0)]]"), "2: buffer MSL_THREAD float* x must be a device or constant pointer or reference"},
		{kernel("device float x [[buffer(0)]]"), "2: buffer MSL_DEVICE float x must be a device or constant pointer or reference"},
		{kernel("device P& p [[buffer(0)]]"), "2: MSL_DEVICE P& p must be a constant structure of this file"},
		{kernel("constant Q& p [[buffer(0)]]"), "2: MSL_CONSTANT Q& p must be a constant structure of this file"},
		{kernel("constant P& p [[buffer(0)]], device float* x [[buffer(1)]]"), "2: parameters are the last buffer"},
		{kernel("threadgroup float s [[threadgroup(0)]]"), "2: MSL_THREADGROUP float s must be a threadgroup pointer, of index 0 to 7"},
		{kernel("threadgroup float* s [[threadgroup(8)]]"), "2: MSL_THREADGROUP float* s must be a threadgroup pointer, of index 0 to 7"},
		{kernel("uint x [[thread_position]]"), "2: attribute thread_position is not in the dialect"},
		{kernel("float x [[thread_position_in_grid]]"), "2: thread_position_in_grid cannot be a float"},
		{kernel("uint2 x [[thread_index_in_simdgroup]]"), "2: thread_index_in_simdgroup cannot be a uint2"},
		{kernel("uint2 x [[thread_position_in_grid]], uint y [[threads_per_grid]]"), "2: position attributes of one kernel must have one width"},
		{"struct P { half n; };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: field n is a half; parameters are uint, int and float"},
		{"struct P { P n; };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: field n is a P; parameters are uint, int and float"},
		{"struct P { uint a_b; };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: field a_b: names are camelCase without underscores"},
		{"struct P { uint a[n]; };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: field a: an array's length is a number or a constant, 1 to 1024"},
		{"struct P { uint a[1024], b; };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: 4100 bytes, parameters have 4 to 4096"},
		{"struct P { };\nkernel void k(constant P& p [[buffer(0)]]) {}", "1: P: 0 bytes, parameters have 4 to 4096"},
		{"void f() {}", "1: helper f must be inline"},
		{"inline void f(float* p) {}", "1: pointer or reference \"float* p\" names no address space"},
		{body("static int n = 0;"), "2: static variable in a function"},
		{body("int n;\nthreadgroup float x[4];"), "3: threadgroup variable outside a kernel"},
		{"kernel void k() { threadgroup float x[4], y[4]; }", "1: one threadgroup variable a declaration, without a value"},
		{"kernel void k() { threadgroup float x = 0; }", "1: one threadgroup variable a declaration, without a value"},
		{"kernel void k() { threadgroup float; }", "1: threadgroup variable without a type or a name"},
		{body("double x = 0;"), "2: double: Metal has no double"},
		{body("float x = INFINITY;"), "2: INFINITY: fast math assumes there is none"},
		{"#include \"x.h\"", "1: include of \"x.h\": a library made from source has only Metal's headers"},
		{"#include <math.h>", "1: include of <math.h>: a library made from source has only Metal's headers"},
		{"#define MAKE(n) kernel void n() {}", "1: macros do not make kernels"},
		{body("float x = 1.5;"), "2: 1.5: write a float literal with f, and half(...) for half"},
		{body("auto g = [](int x) { return x; };"), "2: lambda"},
		{body("float4 v = *(float4*)p;"), "2: cast to a pointer that names no address space"},
		{"kernel void k() {}\ntemplate <typename T> kernel void j() {}\ntemplate [[host_name(\"k\")]] kernel decltype(j<int>) j<int>;", "1: kernel k is here twice"},
		{"inline int f(int n);\ninline int g(int n) { return f(n); }\ninline int f(int n) { return g(n); }", "2: g is recursive"},
		{"#line 7 \"y.h\"\nfloat x;", "y.h:7: variable at file scope must be constant"},
	} {
		want := c.want
		if !strings.HasPrefix(want, "y.h") {
			want = "x.metal:" + want
		}
		if got := parse(t, c.src).Lints(); !slices.Contains(got, want) {
			t.Errorf("%s\n%q, want %q", c.src, got, want)
		}
	}
}

func TestForbiddenWords(t *testing.T) {
	for word, why := range forbidden {
		want := "x.metal:2: " + word + ": " + why
		if got := parse(t, "inline void f() {\n"+word+" x;\n}").Lints(); !slices.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ src, want string }{
		{"\n/* a", "x.metal:2: comment does not end"},
		{"\nx = \"a\n\";", "x.metal:2: literal does not end"},
		{"x = 'a", "x.metal:1: literal does not end"},
		{"\nkernel void k( {", "x.metal:2: { is not closed"},
		{"a)", "x.metal:1: ) closes nothing"},
		{"(]", "x.metal:1: ] closes nothing"},
		{"#line 8 \"y.h\"\n{", "y.h:8: { is not closed"},
	} {
		if _, err := Parse("x.metal", c.src); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v, want %s", c.src, err, c.want)
		}
	}
}

// FuzzParse: no source makes the package panic or hang, and translation keeps
// every line where it was.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("../*.metal")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(structs + "kernel void k(constant XParams& p [[buffer(0)]], uint i [[thread_position_in_grid]]) { alignas(4) threadgroup float x[2]; }")
	f.Add("template <typename T> kernel void k(device T* [[buffer(0)]]) {}\ntemplate [[host_name(\"k\")]] kernel decltype(k<int>) k<int>;")
	f.Add("#define A kernel \\\n b\n#line 3 \"x\"\nconstant float a[2] = {1.0f, 2.0f};")
	f.Fuzz(func(t *testing.T, src string) {
		u, err := Parse("x.metal", src)
		if err != nil {
			return
		}
		out := u.Translate()
		_, body, ok := strings.Cut(out, "#line 1 \"x.metal\"\n")
		entries := strings.LastIndex(body, "\n#line 1 \"x.metal.entries\"\n")
		if !ok || entries < 0 || strings.Count(body[:entries], "\n") != strings.Count(src, "\n") {
			t.Errorf("lines moved:\n%s", out)
		}
	})
}
