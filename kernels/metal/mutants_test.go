package metal_test

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"graft/kernels"
	"graft/kernels/kerneltest"
	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
)

// mutant is a bug of one line, planted into a kernel.
type mutant struct {
	file     string // in which old stands once
	old, new string
	kinds    string // operations that notice it
}

// mutants are bugs such as one writes: a barrier too few, a bound one off, a mask
// or a factor forgotten, strides mixed up.
var mutants = []mutant{
	// Barriers.
	{"common.h", "v = simd_sum(v);\n    threadgroup_barrier(mem_flags::mem_threadgroup); // part may still be in use", "v = simd_sum(v);", "softmax"},
	{"common.h", "        part[simd] = v;\n    }\n    threadgroup_barrier(mem_flags::mem_threadgroup);\n    return simd_sum", "        part[simd] = v;\n    }\n    return simd_sum", "rms_norm"},
	{"common.h", "        part[simd] = v;\n    }\n    threadgroup_barrier(mem_flags::mem_threadgroup);\n    return simd_max", "        part[simd] = v;\n    }\n    return simd_max", "softmax"},
	{"products.metal", "1.0f, tid);\n            }\n            threadgroup_barrier(mem_flags::mem_threadgroup);", "1.0f, tid);\n            }", "product"},
	{"products.metal", "            threadgroup_barrier(mem_flags::mem_threadgroup);\n        }\n    }\n", "        }\n    }\n", "product"},
	{"products.metal", "simdgroup_store(sums[i][j], part, 8);\n            simdgroup_barrier(mem_flags::mem_threadgroup);", "simdgroup_store(sums[i][j], part, 8);", "product"},
	{"products.metal", "            }\n            simdgroup_barrier(mem_flags::mem_threadgroup);\n        }\n    }\n}", "            }\n        }\n    }\n}", "product"},
	{"attention.metal", "stage<T, kDim>(values, kRows, v + kvHead, p.vStride, key, end, p, tid);\n        threadgroup_barrier(mem_flags::mem_threadgroup);\n        if (key > row + 7) {\n            continue; //", "stage<T, kDim>(values, kRows, v + kvHead, p.vStride, key, end, p, tid);\n        if (key > row + 7) {\n            continue; //", "attention"},
	{"attention.metal", "top = m;\n        simdgroup_barrier(mem_flags::mem_threadgroup);", "top = m;", "attention"},
	{"attention.metal", "            }\n            threadgroup_barrier(mem_flags::mem_threadgroup);\n            products<T, kDim, kRows>(s, keys, queries, p.headDim);", "            }\n            products<T, kDim, kRows>(s, keys, queries, p.headDim);", "attention_grad"},
	{"attention.metal", "changes[at] = T(ds[i]);\n            }\n            simdgroup_barrier(mem_flags::mem_threadgroup);", "changes[at] = T(ds[i]);\n            }", "attention_grad"},
	{"rows.metal", "        found[simd] = at;\n    }\n    threadgroup_barrier(mem_flags::mem_threadgroup);", "        found[simd] = at;\n    }", "scatter"},
	{"elementwise.metal", "    part[simd * 32 + lane] = sum;\n    threadgroup_barrier(mem_flags::mem_threadgroup);", "    part[simd * 32 + lane] = sum;", "bias_grad"},
	{"loss.metal", "    threadgroup_barrier(mem_flags::mem_device); // every thread has read the target's logit\n", "", "cross_entropy"},

	// Bounds.
	{"products.metal", "if (r >= o.rows || c >= o.cols) {", "if (r > o.rows || c >= o.cols) {", "product"},
	{"products.metal", "if (row + r < rows && col + c + 8 <= cols) {", "if (row + r <= rows && col + c + 8 <= cols) {", "product"},
	{"products.metal", "v[i] = row + r < rows && col + c + i < cols ? load1(from, type, at + i) : 0.0f;", "v[i] = row + r < rows ? load1(from, type, at + i) : 0.0f;", "product"},
	{"softmax.metal", "for (uint c = tid; c < p.cols; c += threads) {\n        const bool in", "for (uint c = tid; c + 1 < p.cols; c += threads) {\n        const bool in", "softmax"},
	{"norm.metal", "for (uint c = tid; c < p.width; c += threads) {\n        float v = float(from[c]);", "for (uint c = tid; c <= p.width; c += threads) {\n        float v = float(from[c]);", "rms_norm"},
	{"norm.metal", "row < min((place.y + 1) * p.rowsEach, p.rows)", "row < (place.y + 1) * p.rowsEach", "rms_norm_grad"},
	{"rotary.metal", "if (row >= p.rows || index >= p.heads * each) {", "if (row >= p.rows || index > p.heads * each) {", "rotary"},
	{"rotary.metal", "if (place.x >= p.pairs || place.y >= p.tokens) {", "if (place.y >= p.tokens) {", "rotary_table"},
	{"gated.metal", "    if (place.x >= p.cols || place.y >= p.rows) {\n        return;\n    }\n    const ulong row = place.y;\n    const float2 a = activation(p.act, float(gate[row * p.gateStride + place.x]));\n    out", "    const ulong row = place.y;\n    const float2 a = activation(p.act, float(gate[row * p.gateStride + place.x]));\n    out", "gated"},
	{"rows.metal", "for (uint t = first; t < p.count; ++t) {", "for (uint t = first; t + 1 < p.count; ++t) {", "embed_grad"},
	{"elementwise.metal", "for (uint i = 0; i < 4 && 4 * place.x + i < p.cols; ++i) {", "for (uint i = 0; i < 4; ++i) {", "dropout"},
	{"optimizer.metal", "i < min((group + 1) * p.each, p.count); i += threads", "i < (group + 1) * p.each; i += threads", "clip_norm"},
	{"optimizer.metal", "if (i >= p.count) {", "if (i > p.count) {", "adamw"},
	{"loss.metal", "for (uint c = tid; c < p.vocabulary; c += threads) {\n        const float z = ", "for (uint c = tid; c < p.stride; c += threads) {\n        const float z = ", "cross_entropy"},
	{"attention.metal", "if (row + r < end) {", "if (row + r <= end) {", "attention"},
	{"attention.metal", "v[e] = c + e < p.headDim ? from[e] : T(0.0f);", "v[e] = from[e];", "attention"},
	{"attention.metal", "if (row + e / 8 < p.tokens && c < p.headDim) {", "if (row + e / 8 < p.tokens) {", "attention"},

	// Masks.
	{"softmax.metal", "return uint2(uint(bounds[low]), token + 1);", "return uint2(uint(bounds[low]), token + 2);", "softmax"},
	{"softmax.metal", "return uint2(uint(bounds[low]), token + 1);", "return uint2(0, token + 1);", "softmax"},
	{"attention.metal", "const bool seen = key + c >= from && key + c <= last;\n            z[i]", "const bool seen = key + c >= from;\n            z[i]", "attention"},
	{"attention.metal", "const bool seen = key + c >= from && key + c <= last;\n            z[i]", "const bool seen = key + c <= last;\n            z[i]", "attention"},
	{"attention.metal", "token + 1 > start + p.window ? token + 1 - p.window : start", "token + 1 > start + p.window ? token - p.window : start", "attention"},
	{"attention.metal", "end = min(end, newest + p.window);", "end = min(end, first + p.window);", "attention_grad"},
	{"attention.metal", "firsts[tid] = token < end ? first_key(token, bounds, p) : p.tokens;", "firsts[tid] = first_key(query, bounds, p);", "attention_grad"},
	{"attention.metal", "const bool seen = key >= firsts[c] && key <= query + c;", "const bool seen = key <= query + c;", "attention_grad"},
	{"attention.metal", "bounds[sequence_of(newest, bounds, p) + 1]", "bounds[sequence_of(first, bounds, p) + 1]", "attention_grad"},
	{"attention.metal", "if (uint(bounds[middle]) <= token) {", "if (uint(bounds[middle]) <= token && bounds[middle] < bounds[middle + 1]) {", "attention_grad"},
	{"attention.metal", "if (8 * d < p.headDim) {", "if (8 * d < min(p.headDim, 128u)) {", "attention"},
	{"attention.metal", "const uint c = i % (kDim / 4) * 4;", "const uint c = i % min(kDim / 4, 24u) * 4;", "attention"},

	// Addresses.
	{"products.metal", "const uint c = tid % (width / 8) * 8;", "const uint c = tid % (width / 8);", "product"},
	{"products.metal", "const uint partCol = simd % 2 * (kSide / 2);", "const uint partCol = simd / 2 * (kSide / 2);", "product"},
	{"products.metal", "threadgroup float* part = parts + simd * 64;", "threadgroup float* part = parts;", "product"},
	{"products.metal", "store1(out, o.outType, ulong(r) * o.outStride + c, v);", "store1(out, o.outType, ulong(r) * o.cols + c, v);", "product"},
	{"products.metal", "ulong(r) * o.addStride + c);\n                } else", "ulong(r) * o.outStride + c + 1);\n                } else", "product"},
	{"attention.metal", "const uint kvHead = place.y / p.shared * p.headDim;\n    const uint first = place.x * kBlock;\n    const uint row = first + 8 * simd;  //", "const uint kvHead = place.y % p.shared * p.headDim;\n    const uint first = place.x * kBlock;\n    const uint row = first + 8 * simd;  //", "attention"},
	{"attention.metal", "threadgroup float* s = scores + simd * 8 * kRows;\n    threadgroup T* weights = (threadgroup T*)s; // take", "threadgroup float* s = scores;\n    threadgroup T* weights = (threadgroup T*)s; // take", "attention"},
	{"attention.metal", "delta[ulong(token) * p.deltaStride + place.y] = d;", "delta[ulong(token) * p.lseStride + place.y] = d;", "attention_grad"},
	{"norm.metal", "inverse[row * p.inverseStride + place.x] = r;", "inverse[row * p.groups + place.x] = r;", "rms_norm"},
	{"norm.metal", "device T* kept = sum + row * p.sumStride + first;", "device T* kept = sum + row * p.xStride + first;", "rms_norm"},
	{"rotary.metal", "const uint first = index / each * p.headDim;", "const uint first = index / each * each;", "rotary"},
	{"rows.metal", "x[ulong(rows[row]) * p.fromStride + col]", "x[ulong(rows[row]) * p.toStride + col]", "gather"},
	{"rows.metal", "x + ulong(max(at, 1u) - 1) * p.fromStride", "x + ulong(at) * p.fromStride", "scatter"},
	{"operands.h", "device const uint* words = (device const uint*)from + 2 * index;", "device const uint* words = (device const uint*)from + index;", "embed"},
	{"operands.h", "device const uchar* block = from + small * 18;", "device const uchar* block = from + small * 20;", "product"},

	// Arithmetic.
	{"common.h", "return simd_max(lane < simds ? part[lane] : part[0]);", "return simd_max(lane < simds ? part[lane] : 0.0f);", "softmax"},
	{"softmax.metal", "exp(p.scale * (float(from[c]) - m)) * inverse", "exp(p.scale * float(from[c])) * inverse", "softmax"},
	{"softmax.metal", "sum = sum * exp(p.scale * (top - m)) + ", "sum = sum + ", "softmax"},
	{"softmax.metal", "to[c] = T(p.scale * float(y[c]) * (float(d[c]) - sum));", "to[c] = T(float(y[c]) * (float(d[c]) - sum));", "softmax_grad"},
	{"norm.metal", "rsqrt(squares / float(p.width) + p.eps)", "rsqrt(squares / float(p.width))", "rms_norm"},
	{"norm.metal", "to[c] = T(v * r * (load1(weight, p.weightType, c) + p.offset));", "to[c] = T(v * r * load1(weight, p.weightType, c));", "rms_norm"},
	{"norm.metal", "dweight[c] += sum;", "dweight[c] = sum;", "rms_norm_grad"},
	{"products.metal", "threadgroup T4* to = (threadgroup T4*)(tile + r * (width + 4) + c);\n    to[0] = T4(scale * float4", "threadgroup T4* to = (threadgroup T4*)(tile + r * (width + 4) + c);\n    to[0] = T4(float4", "product"},
	{"products.metal", "v += load1(ins[o.bias - 1], o.biasType, c);", "v += load1(ins[o.bias - 1], o.biasType, r);", "product"},
	{"attention.metal", "scale_rows<kDim>(sums, shrink, scratch, lane, p.headDim);", "", "attention"},
	{"attention.metal", "lse[ulong(token) * p.lseStride + place.y] = top + log(sum);", "lse[ulong(token) * p.lseStride + place.y] = log(sum);", "attention"},
	{"attention.metal", "(dp[lane / 4 * kRows + c] - d) * z.y : 0.0f;", "(dp[lane / 4 * kRows + c] - d) : 0.0f;", "attention_grad"},
	{"attention.metal", "(dp[lane / 4 * kRows + c] - deltas[c]) * z.y : 0.0f;", "dp[lane / 4 * kRows + c] * z.y : 0.0f;", "attention_grad"},
	{"rotary.metal", "to[p.pairs + i] = T(b * cosine + a * sine);", "to[p.pairs + i] = T(b * cosine - a * sine);", "rotary"},
	{"rotary.metal", "r = fma(-turns, 7.549789948768648e-8f, r);", "", "rotary_table"},
	{"gated.metal", "dup[row * p.dupStride + place.x] = T(d * a.x);", "dup[row * p.dupStride + place.x] = T(d * a.y);", "gated_grad"},
	{"rows.metal", "dtable[ulong(token) * p.toStride + c] += p.scale * sum;", "dtable[ulong(token) * p.toStride + c] += sum;", "embed_grad"},
	{"elementwise.metal", "k1 += 0xBB67AE85u;", "k1 += 0xBB67AE84u;", "dropout"},
	{"elementwise.metal", "dbias[c] += sum;", "dbias[c] = sum;", "bias_grad"},
	{"optimizer.metal", "(norm + 1e-6f)", "(norm + 1e-3f)", "clip_norm"},
	{"optimizer.metal", "const float v = p.beta2 * second[i] + p.rest2 * g * g;", "const float v = p.beta2 * second[i] + p.rest2 * g;", "adamw"},
	{"loss.metal", "x[c] = z.y * (c == target ? -others / all : exp(z.x - m) / all);", "x[c] = z.y * (c == target ? mine / all - 1.0f : exp(z.x - m) / all);", "cross_entropy"},
	{"loss.metal", "sum = sum * exp(top - m) + (c == target ? 0.0f : exp(z - m));", "sum = sum * exp(top - m) + exp(z - m);", "cross_entropy"},
	{"operands.h", "uint dropped = 29;", "uint dropped = 28;", "embed"},
	{"operands.h", "const uint q = (at < 16 ? b & 15u : b >> 4) |", "const uint q = (at < 16 ? b >> 4 : b & 15u) |", "product"},
	{"operands.h", "v[i] = scale * (float(low | high << 4) - 32.0f);", "v[i] = scale * (float(low | high << 4) - 31.0f);", "product"},

	// Divergence, memory, endlessness.
	{"rows.metal", "    at = simd_max(at);\n    if (lane == 0) {", "    if (lane < 16) {\n        at = simd_max(at);\n    }\n    if (lane == 0) {", "scatter"},
	{"softmax.metal", "    const uint2 seen = visible(row, bounds, p);\n", "    const uint2 seen = visible(row, bounds, p);\n    if (tid >= p.cols) {\n        return;\n    }\n", "softmax"},
	{"attention.metal", "alignas(16) threadgroup T keys[kRows * (kDim + 4)];\n    alignas(16) threadgroup T values[kRows * (kDim + 4)];\n    alignas(16) threadgroup float scores[kThreads / 32 * 8 * kRows];\n    threadgroup float scratches", "alignas(16) threadgroup T keys[kRows * kDim];\n    alignas(16) threadgroup T values[kRows * (kDim + 4)];\n    alignas(16) threadgroup float scores[kThreads / 32 * 8 * kRows];\n    threadgroup float scratches", "attention"},
	{"attention.metal", "while (high - low > 1) {", "while (high - low > 0) {", "attention"},
	{"products.metal", "constant uint kTile = 1280;", "constant uint kTile = 4096;", "product"},
}

// mutantsOfHalves are bugs with activations of two bytes alone: weights of four
// take the place of the scores that a lane has read itself.
var mutantsOfHalves = []mutant{
	{"attention.metal", "simdgroup_barrier(mem_flags::mem_threadgroup); // all scores are read\n        sum *= shrink;", "sum *= shrink;", "attention"},
	{"attention.metal", "simdgroup_barrier(mem_flags::mem_threadgroup); // all scores are read\n            for (uint i = 0; i < kRows / 4; ++i) {\n                const uint at", "for (uint i = 0; i < kRows / 4; ++i) {\n                const uint at", "attention_grad"},
}

// TestMutants plants every mutant and asks that the checked build or the suite
// notice it. All of them take minutes and GRAFT_MUTANTS; without it some do.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles kernels")
	}
	list, halves := mutants, mutantsOfHalves
	if os.Getenv("GRAFT_MUTANTS") == "" {
		list, halves = nil, nil
		for i := 0; i < len(mutants); i += 12 {
			list = append(list, mutants[i])
		}
	}
	plant(t, list, kernels.F32)
	plant(t, halves, kernels.BF16)
}

// plant tries each mutant, and no mutant: else it would not be the mutants that
// are noticed.
func plant(t *testing.T, list []mutant, activations kernels.DType) {
	t.Helper()
	if len(list) == 0 {
		return // nothing to compile for
	}
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Sources: smaller(metal.Sources(), activations)})
	if errors.Is(err, emulator.ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, m := range list {
		kinds = append(kinds, strings.Fields(m.kinds)...)
	}
	noticed, err := notice(program, kinds, activations)
	if err != nil {
		t.Fatal(err)
	}
	if noticed != "" {
		t.Fatalf("without a mutant: %s", noticed)
	}
	var wait sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, m := range list {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			noticed, err := m.notice(t.TempDir(), activations)
			switch {
			case err != nil:
				t.Errorf("%s: %q: %v", m.file, m.old, err)
			case noticed == "":
				t.Errorf("%s: nothing notices %q in the place of %q", m.file, m.new, m.old)
			default:
				t.Logf("%s: %.60q: %.200s", m.file, m.new, noticed)
			}
		})
	}
	wait.Wait()
}

// notice compiles and runs the mutant, and returns what was noticed.
func (m mutant) notice(dir string, activations kernels.DType) (string, error) {
	sources := metal.Sources()
	found := 0
	for i, s := range sources {
		// A header stands in each source that includes it.
		if s.Name != m.file && !strings.HasSuffix(m.file, ".h") {
			continue
		}
		n := strings.Count(s.Text, m.old)
		if n > 1 {
			return "", fmt.Errorf("stands %d times", n)
		}
		found += n
		sources[i].Text = strings.Replace(s.Text, m.old, m.new, 1)
	}
	if found == 0 {
		return "", errors.New("is not there any more")
	}
	program, err := emulator.Build(emulator.CacheDir(), emulator.BuildOptions{Sources: smaller(sources, activations)})
	if err != nil {
		return "", fmt.Errorf("does not compile: %w", err)
	}
	return notice(program, strings.Fields(m.kinds), activations)
}

// mostSteps is how many accesses to memory a launch may make: more than any of
// the suite makes in kernels without a bug, or all would seem to have one.
const mostSteps = 100_000_000

// notice runs kinds of operations, and returns what was noticed.
func notice(program string, kinds []string, activations kernels.DType) (string, error) {
	tolerance := 0.0
	for _, each := range tolerances {
		if each.activations == activations {
			tolerance = each.of
		}
	}
	for _, reverse := range []bool{false, true} {
		d, err := emulator.Options{ReverseLanes: reverse, Steps: mostSteps}.Open(program)
		if err != nil {
			return "", err
		}
		b := metal.New(d, metal.Options{Activations: activations})
		var f finding
		kerneltest.Kinds(&f, b, tolerance, kinds, func() bool { return f != "" })
		b.Close()
		if f != "" {
			return string(f), nil
		}
	}
	return "", nil
}

// finding is a reporter that keeps the first thing that it is told.
type finding string

func (f *finding) Helper() {}

func (f *finding) Errorf(format string, args ...any) {
	if *f == "" {
		*f = finding(fmt.Sprintf(format, args...))
	}
}

// template is an instance of a kernel for one type of activations.
var template = regexp.MustCompile(`(?m)^template \[\[host_name\("\w+_(f32|f16|bf16)"\)\]\].*\n`)

// smaller leaves out the kernels for other types of activations.
func smaller(sources []metal.Source, activations kernels.DType) []metal.Source {
	out := make([]metal.Source, len(sources))
	for i, s := range sources {
		text := template.ReplaceAllStringFunc(s.Text, func(line string) string {
			if strings.EqualFold(template.FindStringSubmatch(line)[1], activations.String()) {
				return line
			}
			return "\n"
		})
		out[i] = metal.Source{Name: s.Name, Text: text}
	}
	return out
}
