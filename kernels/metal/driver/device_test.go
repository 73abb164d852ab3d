//go:build darwin && cgo

package driver

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graft/kernels"
	"graft/kernels/kerneltest"
	"graft/kernels/metal"
)

// open returns the Mac's GPU, or skips the test where there is none. Its archive
// is the test's own.
func open(t *testing.T) *device {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	d, err := Open()
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d.(*device)
}

// TestConformance is the suite that every backend passes, on the real GPU.
func TestConformance(t *testing.T) {
	for d, tolerance := range map[kernels.DType]float64{kernels.F32: 5e-6, kernels.F16: 2e-3, kernels.BF16: 1.6e-2} {
		t.Run(fmt.Sprint(d), func(t *testing.T) {
			kerneltest.Forward(t, metal.New(open(t), metal.Options{Activations: d}), tolerance)
		})
	}
}

func TestInfo(t *testing.T) {
	i := open(t).Info()
	t.Logf("%+v", i)
	if i.Name == "" || !strings.Contains(i.Detail, "Apple7") || i.Memory < 1<<30 || i.MaxBuffer < 1<<28 || i.MaxThreads < 256 || i.ThreadgroupBytes < 32<<10 {
		t.Errorf("%+v", i)
	}
}

// softmaxOf runs softmax over floats in m, one row, and returns the greatest
// error of the sum of what comes out and of its first value.
func softmaxOf(t *testing.T, d *device, m metal.Memory, values []float32) float64 {
	t.Helper()
	out, err := d.Alloc(4 * len(values))
	if err != nil {
		t.Fatal(err)
	}
	n := len(values)
	b := metal.New(d, metal.Options{})
	op := &kernels.Softmax{
		X:   &kernels.Tensor{Name: "x", DType: kernels.F32, Rows: 1, Cols: n, Stride: n, Buf: m},
		Out: &kernels.Tensor{Name: "out", DType: kernels.F32, Rows: 1, Cols: n, Stride: n, Buf: out}, Scale: 1,
	}
	if err := b.Run([]kernels.Op{op}, nil); err != nil {
		t.Fatal(err)
	}
	sum, want := 0.0, 0.0
	for _, v := range values {
		want += math.Exp(float64(v))
	}
	got := op.Out.Float64s()
	for _, v := range got {
		sum += v
	}
	first := math.Exp(float64(values[0])) / want
	return max(math.Abs(sum-1), math.Abs(got[0]-first)/first)
}

// TestWrap: weights mapped from a file, as model files are, two in one page.
func TestWrap(t *testing.T) {
	values := make([]float32, 1<<17)
	for i := range values {
		values[i] = float32(i%97) / 50
	}
	bytes := make([]byte, 4*len(values))
	for i, v := range values {
		kernels.EncodeFloat64(bytes[4*i:4*i+4], []float64{float64(v)}, kernels.F32)
	}
	path := filepath.Join(t.TempDir(), "weights")
	const header = 48
	if err := os.WriteFile(path, append(make([]byte, header), append(bytes, bytes...)...), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := unix.Mmap(int(f.Fd()), 0, header+2*len(bytes), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(data) })
	d := open(t) // closed before the file is unmapped
	for i := range 2 {
		part := data[header+i*len(bytes):][:len(bytes)]
		m, err := d.Wrap(part)
		if err != nil {
			t.Fatal(err)
		}
		if &m.(*memory).Host[0] != &part[0] {
			t.Errorf("part %d was copied", i)
		}
		if e := softmaxOf(t, d, m, values); e > 1e-4 {
			t.Errorf("part %d: error %g", i, e)
		}
	}
	odd, err := d.Wrap(data[header+8 : header+8+len(bytes)-8])
	if err != nil || &odd.(*memory).Host[0] == &data[header+8] {
		t.Errorf("memory that vectors cannot read is used in place (%v)", err)
	}
}

func TestAlloc(t *testing.T) {
	d := open(t)
	m, err := d.Alloc(100_000)
	if err != nil || m.Size() != 100_000 {
		t.Fatal(m, err)
	}
	for i, b := range m.(*memory).Host {
		if b != 0 {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
	if _, err := d.Alloc(1 << 45); err == nil || !strings.Contains(err.Error(), "32768.00 GiB") {
		t.Errorf("32 TiB: %v", err)
	}
}

func TestRefused(t *testing.T) {
	d := open(t)
	l := launches("softmax_f32")[0]
	l.Threads[0] = 4096
	if err := d.Check(&l); err == nil || !strings.Contains(err.Error(), "softmax_f32: 4096 threads a threadgroup, this GPU allows ") {
		t.Errorf("%v", err)
	}
	for _, kernel := range []string{"nothing", ""} {
		if err := d.Run(launches(kernel), nil); err == nil || !strings.Contains(err.Error(), "no source has a kernel "+kernel) {
			t.Errorf("%v", err)
		}
	}
	foreign := launches("softmax_f32")
	foreign[0].Buffers = []metal.Binding{{Memory: hostMemory{make(kernels.Host, 16)}, Size: 16}}
	if err := d.Run(foreign, nil); err == nil || !strings.Contains(err.Error(), "memory of another device") {
		t.Errorf("%v", err)
	}
}

func TestEveryKernelCompiles(t *testing.T) {
	d := open(t)
	for kernel := range d.of {
		p, err := d.pipeline(kernel)
		if err != nil {
			t.Error(err)
		} else if p.limits.threads < 256 {
			t.Logf("%s: %d threads a threadgroup at most, %d bytes of threadgroup memory", kernel, p.limits.threads, p.limits.static)
		}
	}
}

func TestTimesAndArchive(t *testing.T) {
	d := open(t)
	values := make([]float32, 1000)
	m, err := d.Alloc(4 * len(values))
	if err != nil {
		t.Fatal(err)
	}
	softmaxOf(t, d, m, values)
	list := launches("softmax_f32")
	list[0].Params = make([]byte, 64) // no columns: nothing is read
	list[0].Buffers = make([]metal.Binding, 3)
	times := make([]time.Duration, 1)
	if err := d.Run(list, times); err != nil || times[0] <= 0 || times[0] > time.Second {
		t.Errorf("%v, %v", times, err)
	}
	if d.archive == nil || !d.added {
		t.Skip("this Mac keeps no pipelines")
	}
	replace(d.path, d.writeArchive)
	other, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	again := other.(*device)
	if _, err := again.pipeline("softmax_f32"); err != nil || again.added {
		t.Errorf("compiled again: %v, %v", again.added, err)
	}
}
