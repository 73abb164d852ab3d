package driver

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"graft/kernels/metal"
)

// TestDriver runs driver.go on a GPU that is written in C and writes down what it
// is asked for.
func TestDriver(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	opened, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	d := opened.(*device)
	m, err := d.Alloc(1000)
	if err != nil || m.Size() != 1000 {
		t.Fatal(m, err)
	}
	mapped, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	heap := make([]byte, 1<<20)
	wrapped := map[string]metal.Memory{}
	for name, data := range map[string][]byte{"aligned": mapped[48:], "words": mapped[40:], "odd": mapped[42:], "small": mapped[:100], "heap": heap[:1<<19]} {
		data[7] = 42
		if wrapped[name], err = d.Wrap(data); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1)
		if wrapped[name].Read(got, 7); got[0] != 42 || wrapped[name].Size() != len(data) {
			t.Errorf("%s: byte 7 is %d, size %d", name, got[0], wrapped[name].Size())
		}
		data[7] = 0
	}

	if n := wrapped["words"].Skew(); n != 8 {
		t.Errorf("skew %d, want 8", n)
	}

	list := []metal.Launch{
		{Kernel: "softmax_f32", Groups: [3]int{5, 6, 7}, Threads: [3]int{128, 2, 1}, Params: []byte{1, 2, 3, 4, 5},
			Buffers: []metal.Binding{{Memory: m, Offset: 16, Size: 4}, {}, {Memory: wrapped["aligned"], Offset: 4}, {Memory: wrapped["odd"]}}},
		{Kernel: "softmax_f16", Groups: [3]int{1, 1, 1}, Threads: [3]int{32, 1, 1}, Params: []byte{0xff}, Shared: []int{16, 1024}},
	}
	const want = "softmax_f32 5,6,7 x 128,2,1 b+16 b+0 w+52 b+0 params 0102030405\nsoftmax_f16 1,1,1 x 32,1,1 params ff shared 16 shared 1024\nwait\n"
	for range 2 {
		if err := d.Run(list, nil); err != nil {
			t.Fatal(err)
		}
		if got := seen(); got != want {
			t.Errorf("the GPU saw\n%swant\n%s", got, want)
		}
	}
	times := make([]time.Duration, 2)
	if err := d.Run(list, times); err != nil || times[0] != time.Millisecond || times[1] != time.Millisecond {
		t.Errorf("%v, %v", times, err)
	}
	if n := strings.Count(seen(), "wait"); n != 2 {
		t.Errorf("%d command buffers for 2 times", n)
	}

	for _, c := range []struct {
		change func(l *metal.Launch)
		want   string
	}{
		{func(l *metal.Launch) { l.Groups[0] = 666 }, "metal: launches 0 to 0 of 1 (softmax_f32 to softmax_f32): Caused GPU Timeout Error: the GPU took too long"},
		{func(l *metal.Launch) { l.Threads[0] = 129 }, "metal: softmax_f32: 258 threads a threadgroup, this GPU allows 256"},
		{func(l *metal.Launch) { l.Shared = []int{32 << 10} }, "32896 bytes of threadgroup memory"},
		{func(l *metal.Launch) { l.Kernel = "nothing" }, "metal: no source has a kernel nothing"},
		{func(l *metal.Launch) { l.Kernel = "softmax_grad_f32" }, "metal: softmax.metal: kernel softmax_grad_f32: out of registers"},
		{func(l *metal.Launch) { l.Buffers = []metal.Binding{{Memory: hostMemory{heap}, Size: 4}} }, "buffer(0) is memory of another device"},
	} {
		l := list[0]
		c.change(&l)
		if err := d.Run([]metal.Launch{l}, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := d.Alloc(1 << 30); err == nil || !strings.Contains(err.Error(), "a buffer of 1.00 GiB, this GPU allows 512.0 MiB") {
		t.Errorf("%v", err)
	}

	path := d.path
	if err := d.Close(); err != nil || objects() != 0 {
		t.Errorf("%v, %d objects are left", err, objects())
	}
	if b, err := os.ReadFile(path); string(b) != "pipelines" {
		t.Errorf("%q, %v", b, err)
	}
}
