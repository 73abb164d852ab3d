//go:build linux

package emulator_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
)

// features is what kernels may use beside what softmax.metal does.
const features = `#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;
struct FeatureParams {
    uint n;
    float scale;
};

// c = c + scale * a * b' of 16x8 and 24x8 matrices, through matrices of T.
template <typename T>
kernel void product(
    device const float* a [[buffer(0)]],
    device const float* b [[buffer(1)]],
    device float* c [[buffer(2)]],
    constant FeatureParams& p [[buffer(3)]],
    uint2 group [[threadgroup_position_in_grid]],
    ushort tid [[thread_index_in_threadgroup]])
{
    alignas(16) threadgroup T as[8 * 12];
    alignas(16) threadgroup T bs[8 * 12];
    for (uint i = tid; i < 64; i += 32) {
        as[i / 8 * 12 + i % 8] = T(a[group.y * 64 + i] * p.scale);
        bs[i / 8 * 12 + i % 8] = T(b[group.x * 64 + i]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    simdgroup_matrix<T, 8, 8> am;
    simdgroup_matrix<T, 8, 8> bm;
    simdgroup_float8x8 cm;
    simdgroup_load(am, as, 12);
    simdgroup_load(bm, bs, 12, ulong2(0, 0), true);
    simdgroup_load(cm, c, 24, ulong2(group.x * 8, group.y * 8));
    simdgroup_multiply_accumulate(cm, am, bm, cm);
    simdgroup_store(cm, c, 24, ulong2(group.x * 8, group.y * 8));
}
template [[host_name("product_f32")]] kernel decltype(product<float>) product<float>;
template [[host_name("product_f16")]] kernel decltype(product<half>) product<half>;
template [[host_name("product_bf16")]] kernel decltype(product<bfloat>) product<bfloat>;

// Sums and exchanges over SIMD-groups, one result a lane.
kernel void exchange(
    device const float* x [[buffer(0)]],
    device float4* out [[buffer(1)]],
    constant FeatureParams& p [[buffer(2)]],
    threadgroup float* shared [[threadgroup(0)]],
    uint i [[thread_position_in_grid]],
    uint tid [[thread_position_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]])
{
    shared[tid] = x[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    const float v = shared[tid ^ 32];
    out[i] = float4(simd_sum(v), simd_prefix_exclusive_sum(v), simd_shuffle_xor(v, 5), simd_shuffle_down(v, 1));
    if (simd_any(v > 1e30f) || lane >= p.n) {
        out[i].x = simd_max(v);
    }
}

kernel void count(
    device const uint* x [[buffer(0)]],
    device atomic_uint* total [[buffer(1)]],
    uint i [[thread_position_in_grid]])
{
    atomic_fetch_add_explicit(total, x[i], memory_order_relaxed);
}

// In place where x and out are one.
kernel void add_one(
    device const float* x [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant FeatureParams& p [[buffer(2)]],
    uint i [[thread_position_in_grid]])
{
    if (i < p.n) {
        out[i] = x[i] + 1.0f;
    }
}

kernel void shift(
    device const float* x [[buffer(0)]],
    device float* out [[buffer(1)]],
    constant FeatureParams& p [[buffer(2)]],
    uint i [[thread_position_in_grid]])
{
    if (i < p.n) {
        out[i] = x[i + 1];
    }
}

kernel void endless(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]])
{
    while (x[i] < 4000000000u) {
        x[i] = x[i] / 2;
    }
}

kernel void wild(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]])
{
    x[i] = 1;
}
`

func featureDevice(t *testing.T, mode emulator.Mode, o emulator.Options) metal.Device {
	t.Helper()
	return open(t, o, build(t, mode, []metal.Source{{Name: "features.metal", Text: features}}))
}

// random returns n floats that bfloat holds exactly.
func random(n int, seed uint64) (bytes []byte, values []float64) {
	r := rand.New(rand.NewPCG(seed, 0))
	var w []any
	for range n {
		v := float32(r.IntN(255)-127) / 64
		w, values = append(w, v), append(values, float64(v))
	}
	return words(w...), values
}

func TestMatrices(t *testing.T) {
	ab, a := random(16*8, 1)
	bb, b := random(24*8, 2)
	cb, c := random(16*24, 3)
	for _, mode := range []emulator.Mode{emulator.Checked, emulator.Fast, emulator.FastMath} {
		d := featureDevice(t, mode, emulator.Options{})
		for _, kernel := range []string{"product_f32", "product_f16", "product_bf16"} {
			out := wrap(t, d, cb)
			err := d.Run([]metal.Launch{{
				Kernel: kernel, Buffers: []metal.Binding{whole(wrap(t, d, ab)), whole(wrap(t, d, bb)), whole(out)},
				Params: words(0, float32(2)), Groups: [3]int{3, 2, 1}, Threads: [3]int{32, 1, 1},
			}}, nil)
			if err != nil {
				t.Fatal(mode, err)
			}
			for i, got := range floats(out) {
				want := c[i]
				for k := range 8 {
					want += 2 * a[i/24*8+k] * b[i%24*8+k]
				}
				if float64(got) != want {
					t.Fatalf("%v %s element %d: %g, want %g", mode, kernel, i, got, want)
				}
			}
		}
	}
}

func TestExchange(t *testing.T) {
	const n = 3 * 64
	xb, x := random(n, 4)
	want := make([]float32, 4*n)
	for i := range n {
		lane, first := i%32, i/32*32^32 // the other SIMD-group's values
		sum, before := 0.0, 0.0
		for j, v := range x[first : first+32] {
			sum += v
			if j < lane {
				before += v
			}
		}
		down := x[first+min(lane+1, 31)]
		copy(want[4*i:], []float32{float32(sum), float32(before), float32(x[first+lane^5]), float32(down)})
		if lane >= 32 {
			want[4*i] = float32(slices.Max(x[first : first+32]))
		}
	}
	for _, mode := range []emulator.Mode{emulator.Checked, emulator.Fast, emulator.FastMath} {
		for _, reverse := range []bool{false, true} {
			d := featureDevice(t, mode, emulator.Options{ReverseLanes: reverse})
			out := alloc(t, d, 16*n)
			err := d.Run([]metal.Launch{{
				Kernel: "exchange", Buffers: []metal.Binding{whole(wrap(t, d, xb)), whole(out)}, Params: words(32, float32(0)),
				Groups: [3]int{n / 64, 1, 1}, Threads: [3]int{64, 1, 1}, Shared: []int{256},
			}}, nil)
			if err != nil {
				t.Fatal(mode, err)
			}
			if got := floats(out); !slices.Equal(got, want) {
				t.Errorf("%v reverse %v: %v\nwant %v", mode, reverse, got, want)
			}
		}
	}
}

func TestAtomics(t *testing.T) {
	for _, mode := range []emulator.Mode{emulator.Checked, emulator.Fast} {
		d := featureDevice(t, mode, emulator.Options{Workers: 4})
		const n = 64 * 50
		var ones []any
		for i := range n {
			ones = append(ones, i)
		}
		total := alloc(t, d, 4)
		err := d.Run([]metal.Launch{{
			Kernel: "count", Buffers: []metal.Binding{whole(wrap(t, d, words(ones...))), whole(total)}, Groups: [3]int{50, 1, 1}, Threads: [3]int{64, 1, 1},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := math.Float32bits(floats(total)[0]); got != n*(n-1)/2 {
			t.Errorf("%v: %d", mode, got)
		}
	}
}

// TestOverlap binds one memory to two arguments: a race through both is seen,
// each keeps its own bounds, and in place is right.
func TestOverlap(t *testing.T) {
	const n = 100
	d := featureDevice(t, emulator.Checked, emulator.Options{})
	run := func(kernel string, in, out metal.Binding) error {
		return d.Run([]metal.Launch{{
			Kernel: kernel, Buffers: []metal.Binding{in, out}, Params: words(n, float32(0)), Groups: [3]int{2, 1, 1}, Threads: [3]int{64, 1, 1},
		}}, nil)
	}
	m := alloc(t, d, 4*(n+1))
	part := func(from, to int) metal.Binding {
		return metal.Binding{Memory: m, Offset: 4 * from, Size: 4 * (to - from)}
	}
	for _, c := range []struct {
		name, kernel string
		in, out      metal.Binding
		want         string
	}{
		{"in place", "add_one", part(0, n), part(0, n), ""},
		{"again: an earlier launch is no race", "add_one", part(0, n), part(0, n), ""},
		{"a view that is read", "add_one", part(0, n+1), part(0, n), ""},
		{"a view that is too short", "add_one", part(0, n-1), part(0, n), "out of bounds: 4-byte read at byte 396 of buffer(0) (396 bytes)"},
		{"a result that is too short", "add_one", part(0, n), part(0, n-1), "out of bounds: 4-byte write at byte 396 of buffer(1) (396 bytes)"},
		{"one thread's result is another's operand", "shift", part(0, n+1), part(0, n), "race: write of buffer(1) byte 4 by thread 1 (simdgroup 0 lane 1)"},
		{"apart", "shift", part(0, n+1), whole(alloc(t, d, 4*n)), ""},
	} {
		err := run(c.kernel, c.in, c.out)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if got := floats(m)[5]; got < 3 {
		t.Errorf("in place, three times: %g", got)
	}
}

// TestEnds: a kernel that crashes or does not end becomes an error that names
// it, and stays one.
func TestEnds(t *testing.T) {
	for _, c := range []struct {
		mode         emulator.Mode
		kernel, want string
	}{
		{emulator.Fast, "wild", "emulator: launch 1, kernel wild: the emulator has ended: signal: segmentation fault"},
		{emulator.FastMath, "endless", "emulator: launch 1, kernel endless: it took more than 200ms of processor time"},
		{emulator.Fast, "endless", "emulator: launch 1, kernel endless: it took more than 200ms of processor time"},
		{emulator.Checked, "wild", "emulator: launch 1, kernel wild: out of bounds: 4-byte write at byte 0 of buffer(0), which is not bound,"},
	} {
		d := featureDevice(t, c.mode, emulator.Options{Time: 200 * time.Millisecond})
		m := whole(alloc(t, d, 4*32))
		one := metal.Launch{Kernel: c.kernel, Buffers: []metal.Binding{m}, Groups: [3]int{1, 1, 1}, Threads: [3]int{32, 1, 1}}
		if c.kernel == "wild" {
			one.Buffers[0].Memory = nil
		}
		first := metal.Launch{Kernel: "add_one", Buffers: []metal.Binding{m, m}, Params: words(0, float32(0)), Groups: [3]int{1, 1, 1}, Threads: [3]int{32, 1, 1}}
		start := time.Now()
		err := d.Run([]metal.Launch{first, one}, nil)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v %s: %v", c.mode, c.kernel, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%v %s: it took %v", c.mode, c.kernel, took)
		}
		if again := d.Run([]metal.Launch{first}, nil); c.mode != emulator.Checked && again == nil {
			t.Errorf("%v %s: runs on after its end", c.mode, c.kernel)
		} else if c.mode == emulator.Checked && again != nil {
			t.Errorf("%v %s: a report ends the device: %v", c.mode, c.kernel, again)
		}
	}
}

// TestCheck has every way in which a launch can be wrong.
func TestCheck(t *testing.T) {
	d := featureDevice(t, emulator.Fast, emulator.Options{})
	other := featureDevice(t, emulator.Fast, emulator.Options{})
	x, out := alloc(t, d, 4*192), alloc(t, d, 16*192)
	for _, c := range []struct {
		name   string
		change func(l *metal.Launch)
		want   string
	}{
		{"right", func(l *metal.Launch) {}, ""},
		{"kernel", func(l *metal.Launch) { l.Kernel = "none" }, "emulator: kernel none: there is none"},
		{"buffers", func(l *metal.Launch) { l.Buffers = l.Buffers[:1] }, "1 buffers, 8 bytes of parameters, 1 threadgroup arguments; it takes 2, 8, 1"},
		{"params", func(l *metal.Launch) { l.Params = l.Params[:4] }, "4 bytes of parameters"},
		{"shared", func(l *metal.Launch) { l.Shared = nil }, "0 threadgroup arguments"},
		{"shared 8", func(l *metal.Launch) { l.Shared[0] = 8 }, "threadgroup memory of 8 bytes"},
		{"shared 32 KiB", func(l *metal.Launch) { l.Shared[0] = 32<<10 + 16 }, "threadgroup memory of 32784 bytes"},
		{"groups", func(l *metal.Launch) { l.Groups[1] = 0 }, "a grid of [3 0 1] threadgroups"},
		{"many groups", func(l *metal.Launch) { l.Groups[0] = 1 << 30 }, "a grid of"},
		{"threads", func(l *metal.Launch) { l.Threads = [3]int{64, 17, 1} }, "1088 threads in a threadgroup"},
		{"size", func(l *metal.Launch) { l.Buffers[0].Size++ }, "buffer 0: bytes 0 to 769 of a memory of 768"},
		{"offset", func(l *metal.Launch) { l.Buffers[0] = metal.Binding{Memory: x, Offset: 2, Size: 4} }, "buffer 0: offset 2 is not a multiple of 4"},
		{"negative", func(l *metal.Launch) { l.Buffers[0].Offset = -4 }, "buffer 0: bytes -4"},
		{"another device's", func(l *metal.Launch) { l.Buffers[0] = whole(alloc(t, other, 768)) }, "buffer 0: memory of another device"},
	} {
		l := metal.Launch{
			Kernel: "exchange", Buffers: []metal.Binding{whole(x), whole(out)}, Params: words(32, float32(0)),
			Groups: [3]int{3, 1, 1}, Threads: [3]int{64, 1, 1}, Shared: []int{256},
		}
		c.change(&l)
		for _, err := range []error{d.Check(&l), d.Run([]metal.Launch{l}, nil)} {
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
		}
	}
}

func TestAlloc(t *testing.T) {
	d := featureDevice(t, emulator.Fast, emulator.Options{})
	for _, n := range []int{-1, 1 << 50} {
		if _, err := d.Alloc(n); err == nil {
			t.Errorf("%d bytes: no error", n)
		}
	}
	m := wrap(t, d, []byte("abc"))
	if m.Size() != 3 {
		t.Errorf("%d bytes", m.Size())
	}
	if got := floats(alloc(t, d, 8)); got[0] != 0 || got[1] != 0 {
		t.Errorf("not zero: %v", got)
	}
	m.Write([]byte("x"), 2)
	b := make([]byte, 2)
	if m.Read(b, 1); string(b) != "bx" {
		t.Errorf("%q", b)
	}
}

func TestStrict(t *testing.T) {
	skip := func(err error) {
		if errors.Is(err, emulator.ErrNoCompiler) {
			t.Skip(err)
		}
	}
	err := emulator.Strict(nil)
	skip(err)
	if err != nil {
		t.Error(err)
	}
	if err := emulator.Strict([]metal.Source{{Name: "features.metal", Text: features}}); err != nil {
		t.Error(err)
	}
	bad := strings.Replace(features, "const float v = shared[tid ^ 32];", "device float* v = shared;", 1)
	if err := emulator.Strict([]metal.Source{{Name: "features.metal", Text: bad}}); err == nil || !strings.Contains(err.Error(), "features.metal:52") {
		t.Errorf("an address space is wrong: %v", err)
	}
}

// TestBuildErrors: lints and the compiler's messages name the .metal file's
// line; two files have no kernel in common.
func TestBuildErrors(t *testing.T) {
	const kernel = "#include <metal_stdlib>\nkernel void k() {}\n"
	for _, c := range []struct {
		a, b, want string
	}{
		{kernel, kernel, "b.metal: kernel k is also in a.metal"},
		{kernel, "\nfloat x;", "b.metal:2: variable at file scope must be constant"},
		{kernel, "\n{", "b.metal:2: { is not closed"},
		{kernel, "#include <metal_stdlib>\nkernel void j() {\n int x = y; }", "b.metal:3:"},
	} {
		_, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: emulator.Fast, Sources: []metal.Source{{Name: "a.metal", Text: c.a}, {Name: "b.metal", Text: c.b}}})
		if errors.Is(err, emulator.ErrNoCompiler) {
			t.Skip(err)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
