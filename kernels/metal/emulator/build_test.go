//go:build linux

package emulator_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"graft/kernels/metal"
	"graft/kernels/metal/emulator"
)

// TestObjectsAreUsedAgain: a changed file is compiled, the others and the
// runtime are not.
func TestObjectsAreUsedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the runtime")
	}
	dir := t.TempDir()
	source := func(name, body string) metal.Source {
		return metal.Source{Name: name + ".metal", Text: "#include <metal_stdlib>\nkernel void " + name + "() {" + body + "}\n"}
	}
	a, b := source("a", ""), source("b", "")
	var programs []string
	for _, c := range []struct {
		sources []metal.Source
		objects int // afterwards
	}{
		{[]metal.Source{a, b}, 3},
		{[]metal.Source{a, b}, 3},
		{[]metal.Source{a, source("b", "int x = 1;")}, 4},
	} {
		program, err := emulator.Build(dir, emulator.BuildOptions{Mode: emulator.Fast, Sources: c.sources})
		if errors.Is(err, emulator.ErrNoCompiler) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		programs = append(programs, program)
		objects, err := filepath.Glob(filepath.Join(dir, "*.o"))
		if err != nil || len(objects) != c.objects {
			t.Errorf("%d objects, want %d (%v)", len(objects), c.objects, err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "new-*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q (%v)", left, err)
		}
	}
	if programs[0] != programs[1] || programs[0] == programs[2] {
		t.Errorf("programs %q", programs)
	}
	open(t, emulator.Options{}, programs[2])
}

// TestMutants plants bugs in softmax.metal.
func TestMutants(t *testing.T) {
	const barrier = "    threadgroup_barrier(mem_flags::mem_threadgroup);\n"
	for _, m := range []struct{ name, from, to, want string }{
		{"no barrier before the sums are read", "    }\n" + barrier + "    return simd_sum", "    }\n    return simd_sum", "threadgroup part"},
		{"no barrier before the sums are written", barrier[:len(barrier)-1] + " // part may still be in use\n", "", "race: write of threadgroup part"},
		{"all parts are read", "lane < simds ? part[lane] : 0.0f", "part[lane]", "unwritten: 4-byte read of threadgroup part byte 16"},
		{"a column too many", "c < p.cols; c += threads", "c <= p.cols; c += threads", "race: write of buffer(2) byte 308"},
		{"all groups on one row", "out + ulong(row) * p.outStride", "out", "race: write of buffer(2)"},
	} {
		t.Run(m.name, func(t *testing.T) {
			source := softmax(t)
			text := strings.ReplaceAll(source.Text, m.from, m.to)
			if text == source.Text {
				t.Fatal("the source has no such place")
			}
			source.Text = text
			d := open(t, emulator.Options{}, build(t, emulator.Checked, []metal.Source{source}))
			x, out := alloc(t, d, 4*3*77), alloc(t, d, 4*3*77)
			err := d.Run([]metal.Launch{{
				Kernel: "softmax_f32", Buffers: []metal.Binding{whole(x), {}, whole(out)}, Params: words(3, 77, 77, 77, 0, float32(1)),
				Groups: [3]int{3, 1, 1}, Threads: [3]int{128, 1, 1},
			}}, nil)
			if err == nil || !strings.Contains(err.Error(), m.want) {
				t.Errorf("%v\nwant %s", err, m.want)
			}
		})
	}
}
