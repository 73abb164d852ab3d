//go:build linux

package emulator_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
)

// softmax is softmax.metal alone: all kernels take long to compile.
func softmax(t *testing.T) metal.Source {
	t.Helper()
	for _, s := range metal.Sources() {
		if s.Name == "softmax.metal" {
			return s
		}
	}
	t.Fatal("there is no softmax.metal")
	return metal.Source{}
}

// build makes a program of sources or skips the test.
func build(t *testing.T, mode emulator.Mode, sources []metal.Source) string {
	t.Helper()
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Mode: mode, Sources: sources})
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return program
}

func open(t *testing.T, o emulator.Options, program string) metal.Device {
	t.Helper()
	d, err := o.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// words returns values of 4 bytes, as kernels see them.
func words(values ...any) []byte {
	var out []byte
	for _, v := range values {
		switch v := v.(type) {
		case int:
			out = binary.LittleEndian.AppendUint32(out, uint32(v))
		case float32:
			out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
		default:
			panic(fmt.Sprintf("%T", v))
		}
	}
	return out
}

func floats(m metal.Memory) []float32 {
	b := make([]byte, m.Size())
	m.Read(b, 0)
	out := make([]float32, len(b)/4)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return out
}

func alloc(t *testing.T, d metal.Device, n int) metal.Memory {
	t.Helper()
	m, err := d.Alloc(n)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func wrap(t *testing.T, d metal.Device, data []byte) metal.Memory {
	t.Helper()
	m, err := d.Wrap(data)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func whole(m metal.Memory) metal.Binding { return metal.Binding{Memory: m, Size: m.Size()} }

func TestSoftmax(t *testing.T) {
	const rows, cols, scale = 3, 77, 0.7
	for _, c := range []struct {
		mode    emulator.Mode
		options emulator.Options
	}{
		{emulator.Checked, emulator.Options{}},
		{emulator.Checked, emulator.Options{ReverseLanes: true}},
		{emulator.Fast, emulator.Options{}},
		{emulator.Fast, emulator.Options{Workers: 1}},
		{emulator.FastMath, emulator.Options{}},
	} {
		t.Run(fmt.Sprint(c.mode, c.options), func(t *testing.T) {
			d := open(t, c.options, build(t, c.mode, []metal.Source{softmax(t)}))
			var x []any
			r := rand.New(rand.NewPCG(1, 2))
			for range rows * cols {
				x = append(x, float32(r.NormFloat64()*8))
			}
			in, out := wrap(t, d, words(x...)), alloc(t, d, 4*rows*cols)
			l := metal.Launch{
				Kernel: "softmax_f32", Buffers: []metal.Binding{whole(in), {}, whole(out)},
				Params: words(rows, cols, cols, cols, 0, float32(scale)), Groups: [3]int{rows, 1, 1}, Threads: [3]int{128, 1, 1},
			}
			times := make([]time.Duration, 2)
			if err := d.Run([]metal.Launch{l, l}, times); err != nil {
				t.Fatal(err)
			}
			if times[0] <= 0 || times[1] <= 0 {
				t.Errorf("times %v", times)
			}
			got := floats(out)
			for row := range rows {
				from, want := x[row*cols:(row+1)*cols], make([]float64, cols)
				sum := 0.0
				for i, v := range from {
					want[i] = math.Exp(scale * float64(v.(float32)))
					sum += want[i]
				}
				for i := range want {
					if g := float64(got[row*cols+i]); math.Abs(g-want[i]/sum) > 2e-6 {
						t.Fatalf("row %d column %d: %g, want %g", row, i, g, want[i]/sum)
					}
				}
			}
		})
	}
}

// A kernel's body in bugKernel; what the checks must say of it.
var bugs = []struct {
	name, body string
	want       string // a part of the report; LINE is the line of the body marked with a star, PREV the one before
	groups     int    // threadgroups more than one
}{
	{"none", `part[tid] = float(tid);
		threadgroup_barrier(mem_flags::mem_threadgroup);
		out[tid] = part[(tid + 1) % 64] + in[tid];`, "", 0},
	{"missing barrier", `part[tid] = float(tid);
		out[tid] = part[tid - min(tid, 1u)]; // *`, "race: read of threadgroup part byte 0 by thread 1 (simdgroup 0 lane 1) at LINE, written by thread 0 (simdgroup 0 lane 0) at PREV, no mem_threadgroup barrier between", 0},
	{"device barrier", `part[tid] = float(tid);
		threadgroup_barrier(mem_flags::mem_device);
		out[tid] = part[(tid + 1) % 64]; // *`, "at LINE, ", 0},
	{"two groups", `out[tid + 0 * group] = in[tid]; // *`, "race: write of buffer(1) byte 0 by thread 0 (simdgroup 0 lane 0) at LINE, written by another threadgroup", 1},
	{"read out of bounds", `out[tid] = in[tid + 1]; // *`, "out of bounds: 4-byte read at byte 256 of buffer(0) (256 bytes) by thread 63 (simdgroup 1 lane 31), group (0,0,0), at LINE", 0},
	{"write out of bounds", `out[tid - 1] = in[tid]; // *`, "out of bounds: 4-byte write at byte 17179869180 of buffer(1)", 0},
	{"outside an array", `out[tid] = part[tid + 64]; // *`, "outside", 0},
	{"write to read-only", `device float* to = const_cast<device float*>(in);
		to[tid] = 0.0f; // *`, "write to buffer(0), which is read-only, by thread 0 (simdgroup 0 lane 0) at LINE", 0},
	{"unbound", `out[tid] = none[tid]; // *`, "read at byte 0 of buffer(2), which is not bound, (0 bytes)", 0},
	{"unwritten", `out[tid] = part[tid]; // *`, "unwritten: 4-byte read of threadgroup part byte 0, never written in this threadgroup, by thread 0 (simdgroup 0 lane 0) at LINE", 0},
	{"barrier in a branch", `if (tid < 32) {
			threadgroup_barrier(mem_flags::mem_threadgroup); // *
		}`, "divergence: of 64 threads 32 wait at a threadgroup barrier at LINE, 0 in SIMD-group operations, 32 have returned", 0},
	{"SIMD sum in a branch", `if (lane < 16) {
			out[tid] = simd_sum(in[tid]); // *
		}`, "32 in SIMD-group operations (thread 47 at LINE)", 0},
	{"two barriers", `if (tid < 32) {
			threadgroup_barrier(mem_flags::mem_threadgroup);
		} else {
			threadgroup_barrier(mem_flags::mem_threadgroup); // *
		}`, "LINE", 0},
	{"endless", `while (p.count > 0) out[tid] += 1.0f; // *`, "too long: more than 100000 accesses to memory, at LINE", 0},
	{"endless without memory", `uint n = tid;
		while (p.count > 0) {
			n = n * 3 + 1;
		}
		out[tid] = float(n);`, "more than 1s of processor time", 0},
	{"misaligned", `device const float4* v = (device const float4*)(in + 1);
		out[tid] = v[tid / 8].x; // *`, "misaligned or null access by thread 0 (simdgroup 0 lane 0) at LINE", 0},
	{"overflow", `out[tid] = float(2147483647 + int(p.count)); // *`, "signed overflow by thread 0 (simdgroup 0 lane 0) at LINE", 0},
	{"too much", `threadgroup float more[8192];
		more[tid] = 0.0f;
		part[tid] = more[tid];`, "threadgroup memory: 33024 bytes with threadgroup more, Metal gives 32768", 0},
	{"beside a SIMD barrier", `part[tid] = float(tid);
		simdgroup_barrier(mem_flags::mem_threadgroup);
		out[tid] = part[tid % 32]; // *`, "race: read of threadgroup part byte 124 by thread 63 (simdgroup 1 lane 31) at LINE, written by thread 31 (simdgroup 0 lane 31) at ", 0},
	{"SIMD barrier", `part[tid] = float(tid);
		simdgroup_barrier(mem_flags::mem_threadgroup);
		out[tid] = part[tid ^ 1];`, "", 0},
	{"atomics", `atomic_fetch_add_explicit(total, 1u, memory_order_relaxed);`, "", 0},
	{"matrix", `simdgroup_float8x8 a;
		simdgroup_load(a, in + simd, 16); // *
		simdgroup_store(a, out);`, "out of bounds: 4-byte read at byte 256 of buffer(0) (256 bytes) by thread 16 (simdgroup 0 lane 16), group (0,0,0), at LINE", 0},
	{"matrix in a branch", `simdgroup_float8x8 a = make_filled_simdgroup_matrix<float, 8, 8>(1.0f);
		if (lane > 0) {
			simdgroup_multiply_accumulate(a, a, a, a); // *
		}`, "(thread 63 at LINE)", 0},
}

const bugHead = `#include <metal_stdlib>
using namespace metal;
struct BugParams {
    uint count;
};
`

const bugKernel = `
kernel void bug_%d(
    device const float* in [[buffer(0)]],
    device float* out [[buffer(1)]],
    device const float* none [[buffer(2)]],
    device atomic_uint* total [[buffer(3)]],
    constant BugParams& p [[buffer(4)]],
    uint group [[threadgroup_position_in_grid]],
    uint tid [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simd [[simdgroup_index_in_threadgroup]])
{
    threadgroup float part[64];
    %s
}
`

// bugSource makes one file of all bugs; lines are where their stars are.
func bugSource() (text string, lines []int) {
	text = bugHead
	for i, b := range bugs {
		text += fmt.Sprintf(bugKernel, i, b.body)
		before := text[:max(strings.LastIndex(text, "// *"), 0)]
		lines = append(lines, strings.Count(before, "\n")+1)
	}
	return text, lines
}

func TestBugsAreCaught(t *testing.T) {
	text, lines := bugSource()
	program := build(t, emulator.Checked, []metal.Source{{Name: "bug.metal", Text: text}})
	for i, b := range bugs {
		want := strings.NewReplacer("LINE", fmt.Sprintf("bug.metal:%d", lines[i]), "PREV", fmt.Sprintf("bug.metal:%d", lines[i]-1)).Replace(b.want)
		for _, reverse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s reverse %v", b.name, reverse), func(t *testing.T) {
				d := open(t, emulator.Options{Steps: 100000, Time: time.Second, ReverseLanes: reverse}, program)
				err := d.Run([]metal.Launch{{
					Kernel:  fmt.Sprintf("bug_%d", i),
					Buffers: []metal.Binding{whole(alloc(t, d, 256)), whole(alloc(t, d, 256)), {}, whole(alloc(t, d, 4))}, Params: words(1),
					Groups: [3]int{b.groups + 1, 1, 1}, Threads: [3]int{64, 1, 1},
				}}, nil)
				switch {
				case b.want == "":
					if err != nil {
						t.Error(err)
					}
				case err == nil:
					t.Error("not seen")
				case !reverse && !strings.Contains(err.Error(), want):
					t.Errorf("%v\nwant %s", err, want)
				case !strings.HasPrefix(err.Error(), fmt.Sprintf("emulator: launch 0, kernel bug_%d: ", i)):
					t.Errorf("%v: names no kernel", err)
				}
			})
		}
	}
}
