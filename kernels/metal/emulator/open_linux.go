package emulator

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"graft/kernels/metal"
)

const (
	maxMemory  = 64 << 30 // bytes of address space that the kernels' memory takes; it takes no more real memory than is used
	minMemory  = 1 << 30
	page       = 4096 // the memory's first page is the runtime's
	alignment  = 256
	maxParams  = 4096
	overTime   = 42 // the program's exit status after a launch that took too long
	maxThreads = 1024
	maxShared  = 32 << 10
	unbound    = math.MaxUint64
)

// device is a running emulator program.
type device struct {
	program string
	checked bool
	options Options
	kernels map[string]kernel
	data    []byte // the memory that both see
	used    int
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	stdout  io.Reader
	stderr  bytes.Buffer
	dead    error
	message []byte
}

// kernel is what the host knows of a kernel.
type kernel struct {
	index   int
	buffers int // arguments, parameters left out
	params  int // bytes
	shared  int // threadgroup arguments
}

// Open starts a program of Build with default options. Close ends it.
func Open(program string) (metal.Device, error) { return Options{}.Open(program) }

// Open starts a program of Build. Close ends it.
func (o Options) Open(program string) (metal.Device, error) {
	if o.Steps == 0 {
		o.Steps = 2e9
	}
	if o.Time == 0 {
		o.Time = 2 * time.Minute
	}
	if o.Workers == 0 {
		o.Workers = runtime.NumCPU()
	}
	d := &device{program: program, options: o, used: page, kernels: map[string]kernel{}}
	memory, err := d.allocate()
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	defer memory.Close()
	if err := d.start(memory); err != nil {
		d.Close()
		return nil, fmt.Errorf("emulator: %w", err)
	}
	return d, nil
}

// allocate makes the memory: as much address space as the system gives.
func (d *device) allocate() (*os.File, error) {
	fd, err := unix.MemfdCreate("graft-emulator", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	for size := maxMemory; size >= minMemory; size /= 2 {
		if err = f.Truncate(int64(size)); err != nil {
			continue
		}
		d.data, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
		if err == nil {
			return f, nil
		}
	}
	f.Close()
	return nil, fmt.Errorf("memory: %w", err)
}

// start starts the program and reads what it says of itself.
func (d *device) start(memory *os.File) error {
	o := d.options
	reverse := "0"
	if o.ReverseLanes {
		reverse = "1"
	}
	d.cmd = exec.Command(d.program, strconv.Itoa(len(d.data)), strconv.FormatFloat(o.Time.Seconds(), 'f', 6, 64),
		strconv.Itoa(o.Steps), strconv.Itoa(o.Workers), reverse)
	d.cmd.Env = []string{}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the trainer alone
	d.cmd.ExtraFiles = []*os.File{memory}
	d.cmd.Stderr = &d.stderr
	var err error
	if d.stdin, err = d.cmd.StdinPipe(); err != nil {
		return err
	}
	if d.stdout, err = d.cmd.StdoutPipe(); err != nil {
		return err
	}
	if err := d.cmd.Start(); err != nil {
		return err
	}
	var n uint32
	if err := binary.Read(d.stdout, binary.LittleEndian, &n); err != nil {
		return d.died(err)
	}
	text, err := io.ReadAll(io.LimitReader(d.stdout, int64(n)))
	if err != nil {
		return d.died(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	d.checked = lines[0] == "checked"
	for i, line := range lines[1:] {
		f := strings.Fields(line)
		d.kernels[f[0]] = newKernel(i, f[1:])
	}
	return nil
}

// newKernel reads a kernel's arguments as package msl writes them.
func newKernel(index int, args []string) kernel {
	k := kernel{index: index}
	for _, a := range args {
		if a[0] == 't' {
			k.shared++
		} else if _, size, ok := strings.Cut(a, "c"); ok {
			k.params, _ = strconv.Atoi(size)
		} else {
			k.buffers++
		}
	}
	return k
}

// Info implements metal.Device.
func (d *device) Info() metal.DeviceInfo {
	detail := "fast"
	if d.checked {
		detail = "checked"
	}
	return metal.DeviceInfo{
		Name: "emulator", Detail: "emulated, " + detail, MaxBuffer: len(d.data) - page,
		MaxThreads: maxThreads, ThreadgroupBytes: maxShared,
	}
}

// memory is a part of the device's memory.
type memory struct {
	d    *device
	off  int
	size int
}

func (m *memory) Size() int { return m.size }

// Skew implements metal.Memory.
func (m *memory) Skew() int { return m.off % 16 }

func (m *memory) bytes() []byte { return m.d.data[m.off : m.off+m.size : m.off+m.size] }

func (m *memory) Read(p []byte, off int) { copy(p, m.bytes()[off:off+len(p)]) }

func (m *memory) Write(p []byte, off int) { copy(m.bytes()[off:off+len(p)], p) }

// Alloc implements metal.Device. Memory is given back by Close only.
func (d *device) Alloc(n int) (metal.Memory, error) {
	return d.alloc(n, 0)
}

// alloc returns n bytes that begin skew bytes behind a multiple of the alignment.
func (d *device) alloc(n, skew int) (metal.Memory, error) {
	if n < 0 || n > len(d.data)-d.used-skew {
		return nil, fmt.Errorf("emulator: %d bytes of memory, %d are left", n, len(d.data)-d.used)
	}
	m := &memory{d, d.used + skew, n}
	d.used = min((m.off+n+alignment-1)/alignment*alignment, len(d.data))
	return m, nil
}

// Wrap implements metal.Device: it copies to memory that begins like data, as far
// as a GPU would use it in place.
func (d *device) Wrap(data []byte) (metal.Memory, error) {
	skew := int(uintptr(unsafe.Pointer(unsafe.SliceData(data))) % 16)
	if skew%4 != 0 {
		skew = 0
	}
	m, err := d.alloc(len(data), skew)
	if err != nil {
		return nil, err
	}
	m.Write(data, 0)
	return m, nil
}

// Check implements metal.Device.
func (d *device) Check(l *metal.Launch) error {
	if err := d.check(l); err != nil {
		return fmt.Errorf("emulator: kernel %s: %w", l.Kernel, err)
	}
	return nil
}

func (d *device) check(l *metal.Launch) error {
	k, ok := d.kernels[l.Kernel]
	if !ok {
		return errors.New("there is none")
	}
	if len(l.Buffers) != k.buffers || len(l.Params) != k.params || len(l.Shared) != k.shared {
		return fmt.Errorf("%d buffers, %d bytes of parameters, %d threadgroup arguments; it takes %d, %d, %d",
			len(l.Buffers), len(l.Params), len(l.Shared), k.buffers, k.params, k.shared)
	}
	for i, b := range l.Buffers {
		if err := d.checkBinding(b); err != nil {
			return fmt.Errorf("buffer %d: %w", i, err)
		}
	}
	threads := 1
	for i := range 3 {
		g, t := l.Groups[i], l.Threads[i]
		if g < 1 || t < 1 || t > maxThreads || g > math.MaxInt32/t {
			return fmt.Errorf("a grid of %v threadgroups of %v threads", l.Groups, l.Threads)
		}
		threads *= t
	}
	if threads > maxThreads {
		return fmt.Errorf("%d threads in a threadgroup, Metal has %d", threads, maxThreads)
	}
	shared := 0
	for _, n := range l.Shared {
		if n < 1 || n%16 != 0 || n > maxShared {
			return fmt.Errorf("threadgroup memory of %d bytes; a multiple of 16 up to %d", n, maxShared)
		}
		shared += n
	}
	if shared > maxShared {
		return fmt.Errorf("threadgroup memory of %d bytes, Metal has %d", shared, maxShared)
	}
	return nil
}

func (d *device) checkBinding(b metal.Binding) error {
	if b.Memory == nil {
		return nil
	}
	m, ok := b.Memory.(*memory)
	if !ok || m.d != d {
		return errors.New("memory of another device")
	}
	if b.Offset < 0 || b.Size < 0 || b.Offset > m.size || b.Size > m.size-b.Offset {
		return fmt.Errorf("bytes %d to %d of a memory of %d", b.Offset, b.Offset+b.Size, m.size)
	}
	if b.Offset%4 != 0 {
		return fmt.Errorf("offset %d is not a multiple of 4", b.Offset)
	}
	return nil
}

// Run implements metal.Device.
func (d *device) Run(list []metal.Launch, times []time.Duration) error {
	if d.dead != nil {
		return d.dead
	}
	if len(list) == 0 {
		return nil
	}
	if err := d.encode(list); err != nil {
		return err
	}
	if _, err := d.stdin.Write(d.message); err != nil {
		return d.crashed(list, err)
	}
	var failed uint32
	if err := binary.Read(d.stdout, binary.LittleEndian, &failed); err != nil {
		return d.crashed(list, err)
	}
	if failed != 0 {
		return d.failure(list)
	}
	seconds := make([]float64, len(list))
	if err := binary.Read(d.stdout, binary.LittleEndian, seconds); err != nil {
		return d.crashed(list, err)
	}
	for i := range times {
		times[i] = time.Duration(seconds[i] * 1e9)
	}
	return nil
}

// encode makes the message that runtime.cpp describes.
func (d *device) encode(list []metal.Launch) error {
	le := binary.LittleEndian
	m := le.AppendUint32(d.message[:0], 0)
	m = le.AppendUint32(m, uint32(len(list)))
	for i := range list {
		l := &list[i]
		if err := d.Check(l); err != nil {
			return fmt.Errorf("launch %d: %w", i, err)
		}
		for _, n := range []int{
			d.kernels[l.Kernel].index, len(l.Buffers), len(l.Shared), len(l.Params),
			l.Groups[0], l.Groups[1], l.Groups[2], l.Threads[0], l.Threads[1], l.Threads[2],
		} {
			m = le.AppendUint32(m, uint32(n))
		}
		for _, n := range l.Shared {
			m = le.AppendUint64(m, uint64(n))
		}
		for _, b := range l.Buffers {
			at := uint64(unbound)
			if b.Memory != nil {
				at = uint64(b.Memory.(*memory).off + b.Offset)
			}
			m = le.AppendUint64(le.AppendUint64(m, at), uint64(b.Size))
		}
		m = append(m, l.Params...)
	}
	if len(m)-4 > math.MaxUint32 {
		return fmt.Errorf("emulator: a list of %d launches is too long", len(list))
	}
	le.PutUint32(m, uint32(len(m)-4))
	d.message = m
	return nil
}

// failure reads the report of a launch that failed.
func (d *device) failure(list []metal.Launch) error {
	var head [2]uint32 // the launch, bytes of text
	if err := binary.Read(d.stdout, binary.LittleEndian, &head); err != nil {
		return d.crashed(list, err)
	}
	text := make([]byte, head[1])
	if _, err := io.ReadFull(d.stdout, text); err != nil {
		return d.crashed(list, err)
	}
	return fmt.Errorf("emulator: launch %d, kernel %s: %s", head[0], list[head[0]].Kernel, locate(d.program, string(text)))
}

// crashed says which launch the program died of.
func (d *device) crashed(list []metal.Launch, err error) error {
	i := binary.LittleEndian.Uint64(d.data)
	name := "?"
	if i < uint64(len(list)) {
		name = list[i].Kernel
	}
	err = d.died(err)
	if s := d.cmd.ProcessState; s != nil && s.ExitCode() == overTime {
		err = fmt.Errorf("it took more than %v of processor time", d.options.Time)
	}
	d.dead = fmt.Errorf("emulator: launch %d, kernel %s: %w", i, name, err)
	return d.dead
}

// died waits for the end of the program and says how it came.
func (d *device) died(err error) error {
	d.stdin.Close()
	if e := d.cmd.Wait(); e != nil {
		err = e
	}
	if text := strings.TrimSpace(d.stderr.String()); text != "" {
		return fmt.Errorf("the emulator has ended: %w: %s", err, text)
	}
	return fmt.Errorf("the emulator has ended: %w", err)
}

// Close implements metal.Device.
func (d *device) Close() error {
	if d.cmd != nil && d.cmd.Process != nil && d.cmd.ProcessState == nil {
		d.stdin.Close()
		d.cmd.Process.Kill()
		d.cmd.Wait()
	}
	if d.dead == nil {
		d.dead = errors.New("emulator: closed")
	}
	if d.data == nil {
		return nil
	}
	data := d.data
	d.data = nil
	return unix.Munmap(data)
}
