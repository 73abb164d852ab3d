package driver

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"graft/kernels"
	"graft/kernels/metal"
)

func TestIndex(t *testing.T) {
	of, err := index([]metal.Source{
		{Name: "a.metal", Text: `[[host_name("x_f32")]] … [[host_name("x_f16")]]`},
		{Name: "b.metal", Text: `[[host_name("y")]]`},
	})
	if want := map[string]int{"x_f32": 0, "x_f16": 0, "y": 1}; err != nil || !maps.Equal(of, want) {
		t.Errorf("%v, %v, want %v", of, err, want)
	}
	twice := []metal.Source{{Name: "a.metal", Text: `host_name("x")`}, {Name: "b.metal", Text: `host_name("x")`}}
	if _, err := index(twice); err == nil || err.Error() != "metal: kernel x is both in a.metal and in b.metal" {
		t.Errorf("one kernel in two files: %v", err)
	}
}

func TestIndexOfOurs(t *testing.T) {
	sources := metal.Sources()
	of, err := index(sources)
	if err != nil {
		t.Fatal(err)
	}
	for _, kernel := range []string{"softmax_f32", "softmax_f16", "softmax_bf16"} {
		if i, ok := of[kernel]; !ok || sources[i].Name != "softmax.metal" {
			t.Errorf("%s is not found in softmax.metal", kernel)
		}
	}
}

// launches returns a list of one threadgroup each.
func launches(kernels ...string) []metal.Launch {
	var list []metal.Launch
	for _, k := range kernels {
		list = append(list, metal.Launch{Kernel: k, Groups: [3]int{1, 1, 1}, Threads: [3]int{32, 1, 1}})
	}
	return list
}

func TestBudget(t *testing.T) {
	var b budget
	list := launches(slices.Repeat([]string{"x"}, 1000)...)
	if n := b.next(list); n != firstLaunches {
		t.Errorf("%d launches of unknown length, want %d", n, firstLaunches)
	}
	if n := b.next(nil); n != 0 {
		t.Errorf("%d of no launches", n)
	}
	const each = 50e-6
	for range 10 {
		n := b.next(list)
		b.done(list[:n], float64(n)*each)
	}
	if n := b.next(list); n < 155 || n > 160 {
		t.Errorf("%d launches of 50 µs, want 160", n)
	}
	list[0].Groups = [3]int{80, 2, 1} // the whole target by itself
	if n := b.next(list); n > 2 {
		t.Errorf("a launch of 160 threadgroups and %d more", n-1)
	}
	list[0].Groups = [3]int{4000, 1, 1}
	if n := b.next(list); n != 1 {
		t.Errorf("a launch over the target has %d others with it", n-1)
	}
	before := b.next(list[1:])
	b.done(list[1:3], 0)
	if n := b.next(list[1:]); n != before {
		t.Errorf("a clock that stands changed %d launches to %d", before, n)
	}
}

// TestBudgetMixed: many short launches of one kernel and few long ones of
// another. Once both are learned no buffer takes far more than the target.
func TestBudgetMixed(t *testing.T) {
	seconds := map[string]float64{"short": 10e-6, "long": 5e-3}
	var list []metal.Launch
	for i := range 4000 {
		list = append(list, launches([]string{"short", "long"}[min(max(i%500-490, 0), 1)])...)
	}
	var b budget
	for round := range 20 {
		worst := 0.0
		for at := 0; at < len(list); {
			n := b.next(list[at:])
			sum := 0.0
			for _, l := range list[at : at+n] {
				sum += seconds[l.Kernel]
			}
			b.done(list[at:at+n], sum)
			worst = max(worst, sum)
			at += n
		}
		if round > 4 && worst > 2.5*target {
			t.Errorf("round %d: a buffer of %.1f ms", round, 1e3*worst)
		}
	}
}

// fakeQueue takes a second for each launch, and fails at one of its buffers.
type fakeQueue struct {
	buffers  [][]metal.Launch
	waited   []int
	pending  int
	most     int
	failWait int // which buffer's wait fails
	failNext int // which submit fails
}

var errFake = errors.New("it broke")

func (q *fakeQueue) submit(list []metal.Launch) (int, error) {
	if len(q.buffers) == q.failNext {
		return 0, errFake
	}
	q.buffers = append(q.buffers, list)
	q.pending++
	q.most = max(q.most, q.pending)
	return len(q.buffers) - 1, nil
}

func (q *fakeQueue) wait(i int) (float64, error) {
	q.pending--
	q.waited = append(q.waited, i)
	if i >= q.failWait {
		return 0, errFake
	}
	return 1e-3 * float64(len(q.buffers[i])), nil
}

func TestRun(t *testing.T) {
	names := strings.Fields("a b c d e f g h i j k l m n o p q r s t")
	list := launches(names...)
	q := &fakeQueue{failWait: 99, failNext: 99}
	if err := run[int](q, &budget{}, list, nil); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range q.buffers {
		if len(b) > firstLaunches {
			t.Errorf("a buffer of %d launches", len(b))
		}
		for _, l := range b {
			got = append(got, l.Kernel)
		}
	}
	if !slices.Equal(got, names) || !slices.IsSorted(q.waited) || len(q.waited) != len(q.buffers) || q.most != inFlight {
		t.Errorf("ran %v, waited for %v of %d, %d at a time", got, q.waited, len(q.buffers), q.most)
	}

	q = &fakeQueue{failWait: 99, failNext: 99}
	times := make([]time.Duration, len(list))
	if err := run[int](q, &budget{}, list, times); err != nil || len(q.buffers) != len(list) {
		t.Errorf("with times: %d buffers, %v", len(q.buffers), err)
	}
	for i, d := range times {
		if d != time.Millisecond {
			t.Errorf("launch %d took %v, want 1 ms", i, d)
		}
	}
}

func TestRunFails(t *testing.T) {
	list := launches(strings.Fields("a b c d e f g h i j k l m n o p q r s t u v w x y z")...)
	q := &fakeQueue{failWait: 1, failNext: 99}
	err := run[int](q, &budget{}, list, nil)
	if want := "metal: launches 8 to 15 of 26 (i to p): it broke"; !errors.Is(err, errFake) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if q.pending != 0 || len(q.buffers) != 3 {
		t.Errorf("%d buffers submitted, %d not waited for", len(q.buffers), q.pending)
	}
	q = &fakeQueue{failWait: 99, failNext: 1}
	if err := run[int](q, &budget{}, list, nil); !errors.Is(err, errFake) || q.pending != 0 {
		t.Errorf("submit fails: %v, %d not waited for", err, q.pending)
	}
}

// hostMemory is memory for bindings.
type hostMemory struct{ kernels.Host }

func (hostMemory) Skew() int { return 0 }

func TestCheck(t *testing.T) {
	is := limits{threads: 256, static: 1024, threadgroup: 32 << 10}
	m := hostMemory{make(kernels.Host, 100)}
	good := func() *metal.Launch {
		return &metal.Launch{Kernel: "softmax_f32", Groups: [3]int{4, 1, 1}, Threads: [3]int{128, 2, 1}, Shared: []int{16, 31<<10 - 16},
			Buffers: []metal.Binding{{Memory: m, Offset: 40, Size: 60}, {}}, Params: make([]byte, maxParams)}
	}
	if err := check(good(), is); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		change func(l *metal.Launch)
		want   string
	}{
		{func(l *metal.Launch) { l.Threads[2] = 2 }, "512 threads a threadgroup, this GPU allows 256 for this kernel"},
		{func(l *metal.Launch) { l.Threads[0] = 0 }, "threadgroups of [0 2 1] threads"},
		{func(l *metal.Launch) { l.Groups[1] = 0 }, "a grid of [4 0 1] threadgroups"},
		{func(l *metal.Launch) { l.Groups[1] = 1 << 31 }, "a grid of [4 2147483648 1] threadgroups"},
		{func(l *metal.Launch) { l.Shared[1] += 16 }, "32784 bytes of threadgroup memory, this GPU has 32768"},
		{func(l *metal.Launch) { l.Shared[0] = 8 }, "threadgroup(0) has 8 bytes, want a positive multiple of 16"},
		{func(l *metal.Launch) { l.Shared[1] = 0 }, "threadgroup(1) has 0 bytes"},
		{func(l *metal.Launch) { l.Buffers = make([]metal.Binding, 31) }, "32 buffers, Metal binds 31"},
		{func(l *metal.Launch) { l.Params = make([]byte, maxParams+4) }, "4100 bytes of parameters, Metal binds 4096"},
		{func(l *metal.Launch) { l.Buffers[0].Size = 61 }, "buffer(0): 61 bytes at 40, of 100"},
		{func(l *metal.Launch) { l.Buffers[0].Size = 1<<63 - 1 }, "buffer(0): 9223372036854775807 bytes at 40, of 100"},
		{func(l *metal.Launch) { l.Buffers[0].Offset = -4 }, "buffer(0): 60 bytes at -4, of 100"},
		{func(l *metal.Launch) { l.Buffers[0].Offset = 2 }, "buffer(0): 60 bytes at 2, of 100"},
	} {
		l := good()
		c.change(l)
		if err := check(l, is); err == nil || !strings.HasPrefix(err.Error(), "metal: softmax_f32: "+c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestWindow(t *testing.T) {
	const page = 16 << 10
	for _, c := range []struct {
		address      uintptr
		n            int
		start        uintptr
		size, before int
		ok           bool
	}{
		{10 * page, 16 * page, 10 * page, 16 * page, 0, true},
		{10*page + 48, 16 * page, 10 * page, 17 * page, 48, true},
		{11*page - 16, 16*page + 16, 10 * page, 17 * page, page - 16, true},
		{10*page + 48, 17*page - 48, 10 * page, 17 * page, 48, true},
		{10*page + 48, 17*page - 47, 10 * page, 18 * page, 48, true},
		{10*page + 8, 16 * page, 10 * page, 17 * page, 8, true},
		{10*page + 6, 16 * page, 0, 0, 0, false},
		{10 * page, 16*page - 1, 0, 0, 0, false},
		{0, 0, 0, 0, 0, false},
	} {
		start, size, before, ok := window(c.address, c.n, page)
		if start != c.start || size != c.size || before != c.before || ok != c.ok {
			t.Errorf("window(%d, %d): %d, %d, %d, %v", c.address, c.n, start, size, before, ok)
		}
	}
	for n, want := range map[int]int{0: page, 1: page, page: page, page + 1: 2 * page} {
		if got := roundUp(n, page); got != want {
			t.Errorf("roundUp(%d) = %d, want %d", n, got, want)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want []string
	}{
		{needs("darwin", "arm64"), []string{"this build has no cgo", "CGO_ENABLED=1"}},
		{needs("linux", "amd64"), []string{"Metal needs macOS on Apple silicon", "linux/amd64"}},
		{newEnough("13.6.1"), []string{"macOS 13.6.1", "macOS 14 or newer"}},
		{noMemory(3<<30, 10<<30, 9<<30, 12<<30), []string{"3.00 GiB more", "10.00 GiB are in use", "more than 12.00 GiB", "train.batch_size", "data.max_length", "train.recompute"}},
		{noMemory(10<<30, 0, 9<<30, 12<<30), []string{"a buffer of 10.00 GiB", "allows 9.00 GiB", "train.batch_size"}},
		{commandError(errTimeout, "Caused GPU Timeout Error"), []string{"Caused GPU Timeout Error: ", "train.batch_size", "error 2"}},
		{commandError(errPageFault, "x"), []string{"an error in a kernel", "train doctor"}},
		{commandError(errNoMemory, "x"), []string{"the GPU's memory is full", "train.recompute"}},
		{commandError(errRemoved, "x"), []string{"the GPU is gone", "-resume"}},
		{commandError(-1, "odd"), []string{"odd (Metal's error -1)", "train doctor"}},
	} {
		for _, want := range c.want {
			if c.err == nil || !strings.Contains(c.err.Error(), want) || strings.Contains(c.err.Error(), "\n") {
				t.Errorf("%v, want %q", c.err, want)
			}
		}
	}
	for _, version := range []string{"14.0", "26.1", ""} {
		if err := newEnough(version); err != nil {
			t.Errorf("%q: %v", version, err)
		}
	}
}

func TestArchivePath(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	t.Setenv("LocalAppData", home)
	sources := []metal.Source{{Name: "a.metal", Text: "x"}}
	seen := map[string]bool{}
	for _, p := range []string{
		archivePath(sources, "Apple M3", "24A1"), archivePath(sources, "Apple M4", "24A1"), archivePath(sources, "Apple M3", "24A2"),
		archivePath([]metal.Source{{Name: "a.metal", Text: "y"}}, "Apple M3", "24A1"),
	} {
		if info, err := os.Stat(filepath.Dir(p)); seen[p] || err != nil || !info.IsDir() || !strings.HasPrefix(p, home) {
			t.Errorf("%s: %v, seen before: %v", p, err, seen[p])
		}
		seen[p] = true
	}
	path := archivePath(sources, "Apple M3", "24A1")
	write := func(text string, ok bool) {
		replace(path, func(p string) bool { return os.WriteFile(p, []byte(text), 0o644) == nil && ok })
	}
	write("whole", true)
	write("damaged", false)
	left, err := os.ReadDir(filepath.Dir(path))
	if b, _ := os.ReadFile(path); string(b) != "whole" || err != nil || len(left) != 1 {
		t.Errorf("%q, %d files, %v", b, len(left), err)
	}
}
