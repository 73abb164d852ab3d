//go:build darwin && cgo

package driver

// #cgo CFLAGS: -fobjc-arc -O2
// #cgo LDFLAGS: -framework Metal -framework Foundation
// #include <stdlib.h>
// #include "driver.h"
import "C"

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"graft/kernels"
	"graft/kernels/metal"
)

// oldestFamily is Apple7, that of the M1, as MTLGPUFamily numbers them: it brought
// matrices of a SIMD-group, which the kernels need.
const oldestFamily = 1007

// device is the Mac's GPU.
type device struct {
	p, queue unsafe.Pointer // MTLDevice, MTLCommandQueue
	info     metal.DeviceInfo
	budget   budget
	page     int
	empty    *memory // is bound where a launch binds nothing
	memories []*memory
	held     int // bytes of memories that are not wrapped

	mu        sync.Mutex // of what follows
	sources   []metal.Source
	of        map[string]int         // places of kernels in sources
	libraries map[int]unsafe.Pointer // MTLLibrary, by place in sources
	pipelines map[string]*pipeline

	archive unsafe.Pointer // MTLBinaryArchive, or nil
	path    string         // of the archive
	added   bool           // pipelines that the file lacks

	encoder encoder
}

// pipeline is a compiled kernel.
type pipeline struct {
	p      unsafe.Pointer // MTLComputePipelineState
	limits limits
	err    error // it does not compile
}

// memory is an MTLBuffer. Where it was wrapped, before bytes lie ahead of its
// own.
type memory struct {
	kernels.Host
	p      unsafe.Pointer
	before int
	pin    runtime.Pinner // keeps wrapped memory that is Go's
}

// Skew implements metal.Memory.
func (m *memory) Skew() int { return m.before % 16 }

// Open returns the Mac's GPU.
func Open() (metal.Device, error) {
	p := C.gm_device()
	if p == nil {
		return nil, errors.New("metal: macOS shows this process no GPU (as in most virtual machines and some sessions over ssh); backend: cpu works everywhere")
	}
	d := &device{p: p, page: os.Getpagesize(), sources: metal.Sources(), libraries: map[int]unsafe.Pointer{}, pipelines: map[string]*pipeline{}}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *device) open() (err error) {
	d.info = describe(d.p)
	if C.gm_family(d.p, oldestFamily) == 0 {
		return fmt.Errorf("metal: %s is not Apple silicon (GPU family Apple7 or newer), which the kernels need; backend: cpu works everywhere", d.info.Name)
	}
	version, build := system()
	if err := newEnough(version); err != nil {
		return err
	}
	if d.of, err = index(d.sources); err != nil {
		return err
	}
	if d.queue = C.gm_queue(d.p); d.queue == nil {
		return errors.New("metal: no command queue to be had: restart the Mac")
	}
	if d.path = archivePath(d.sources, d.info.Name, build); d.path != "" {
		path := C.CString(d.path)
		defer C.free(unsafe.Pointer(path))
		d.archive = C.gm_archive(d.p, path)
	}
	d.empty, err = d.alloc(d.page)
	return err
}

// Info implements metal.Device.
func (d *device) Info() metal.DeviceInfo { return d.info }

// Alloc implements metal.Device.
func (d *device) Alloc(n int) (metal.Memory, error) {
	m, err := d.alloc(n)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (d *device) alloc(n int) (*memory, error) {
	var contents unsafe.Pointer
	length := roundUp(n, d.page)
	var p unsafe.Pointer
	if length <= d.info.MaxBuffer {
		p = C.gm_alloc(d.p, C.uint64_t(length), &contents)
	}
	if p == nil {
		return nil, noMemory(n, d.held, d.info.MaxBuffer, d.info.Memory)
	}
	m := &memory{Host: unsafe.Slice((*byte)(contents), n), p: p}
	d.memories = append(d.memories, m)
	d.held += length
	return m, nil
}

// Wrap implements metal.Device. Data that the GPU cannot use in place is copied.
func (d *device) Wrap(data []byte) (metal.Memory, error) {
	if m := d.inPlace(data); m != nil {
		d.memories = append(d.memories, m)
		return m, nil
	}
	m, err := d.alloc(len(data))
	if err != nil {
		return nil, err
	}
	m.Write(data, 0)
	return m, nil
}

// inPlace returns data in place, or nil.
func (d *device) inPlace(data []byte) *memory {
	address := unsafe.Pointer(unsafe.SliceData(data))
	start, length, before, ok := window(uintptr(address), len(data), d.page)
	if !ok || length > d.info.MaxBuffer {
		return nil
	}
	m := &memory{Host: data, before: before}
	m.pin.Pin(address)
	if m.p = C.gm_wrap(d.p, C.uintptr_t(start), C.uint64_t(length)); m.p == nil {
		m.pin.Unpin()
		return nil
	}
	return m
}

// Check implements metal.Device.
func (d *device) Check(l *metal.Launch) error {
	p, err := d.pipeline(l.Kernel)
	if err != nil {
		return err
	}
	return check(l, p.limits)
}

// Run implements metal.Device.
func (d *device) Run(list []metal.Launch, times []time.Duration) error {
	for i := range list {
		if err := d.Check(&list[i]); err != nil {
			return err
		}
	}
	return run[unsafe.Pointer](d, &d.budget, list, times)
}

// pipeline returns a kernel's pipeline and compiles it at its first use.
func (d *device) pipeline(kernel string) (*pipeline, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pipelines[kernel]
	if p == nil {
		p = d.compile(kernel)
		d.pipelines[kernel] = p
	}
	return p, p.err
}

func (d *device) compile(kernel string) *pipeline {
	i, ok := d.of[kernel]
	if !ok {
		return &pipeline{err: fmt.Errorf("metal: no source has a kernel %s", kernel)}
	}
	library, err := d.library(i)
	if err != nil {
		return &pipeline{err: err}
	}
	name := C.CString(kernel)
	defer C.free(unsafe.Pointer(name))
	var l C.gm_limits
	var added C.int
	var text *C.char
	p := C.gm_pipeline(d.p, library, name, d.archive, &l, &added, &text)
	if p == nil {
		return &pipeline{err: fmt.Errorf("metal: %s: kernel %s: %s", d.sources[i].Name, kernel, take(text))}
	}
	d.added = d.added || added != 0
	return &pipeline{p: p, limits: limits{threads: int(l.threads), static: int(l.static_shared), threadgroup: d.info.ThreadgroupBytes}}
}

// library returns a source's library and compiles it at its first use.
func (d *device) library(i int) (unsafe.Pointer, error) {
	if l := d.libraries[i]; l != nil {
		return l, nil
	}
	source := C.CString(d.sources[i].Text)
	defer C.free(unsafe.Pointer(source))
	var text *C.char
	l := C.gm_library(d.p, source, &text)
	if l == nil {
		return nil, fmt.Errorf("metal: %s does not compile: %s", d.sources[i].Name, take(text))
	}
	d.libraries[i] = l
	return l, nil
}

// take frees a text of C's and returns it.
func take(text *C.char) string {
	defer C.free(unsafe.Pointer(text))
	return C.GoString(text)
}

// Close implements metal.Device.
func (d *device) Close() error {
	if d.archive != nil && d.added {
		replace(d.path, d.writeArchive)
	}
	for _, m := range d.memories {
		C.gm_release(m.p)
		m.pin.Unpin()
	}
	for _, p := range d.pipelines {
		C.gm_release(p.p)
	}
	for _, l := range d.libraries {
		C.gm_release(l)
	}
	C.gm_release(d.archive)
	C.gm_release(d.queue)
	C.gm_release(d.p)
	*d = device{}
	return nil
}

func (d *device) writeArchive(path string) bool {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	return C.gm_archive_write(d.archive, p) != 0
}

// encoder holds launches as C takes them. Its memory is used again.
type encoder struct {
	launches []C.gm_launch
	bindings []C.gm_binding
	params   []byte
	shared   []C.uint32_t
}

// submit implements queue.
func (d *device) submit(list []metal.Launch) (unsafe.Pointer, error) {
	e := &d.encoder
	e.launches, e.bindings, e.params, e.shared = e.launches[:0], e.bindings[:0], e.params[:0], e.shared[:0]
	for i := range list {
		if err := d.encode(&list[i]); err != nil {
			return nil, err
		}
	}
	var text *C.char
	commands := C.gm_submit(d.queue, unsafe.SliceData(e.launches), C.uint32_t(len(e.launches)), unsafe.SliceData(e.bindings),
		(*C.uint8_t)(unsafe.SliceData(e.params)), unsafe.SliceData(e.shared), &text)
	if commands == nil {
		return nil, fmt.Errorf("metal: %s", take(text))
	}
	return commands, nil
}

// encode appends a launch, which has been checked.
func (d *device) encode(l *metal.Launch) error {
	p, err := d.pipeline(l.Kernel)
	if err != nil {
		return err
	}
	e := &d.encoder
	c := C.gm_launch{
		pipeline: p.p,
		binding:  C.uint32_t(len(e.bindings)), bindings: C.uint32_t(len(l.Buffers)),
		params: C.uint32_t(len(e.params)), params_size: C.uint32_t(len(l.Params)),
		shared: C.uint32_t(len(e.shared)), shareds: C.uint32_t(len(l.Shared)),
	}
	for i := range 3 {
		c.groups[i], c.threads[i] = C.uint32_t(l.Groups[i]), C.uint32_t(l.Threads[i])
	}
	for i, b := range l.Buffers {
		m := d.empty
		if b.Memory != nil {
			var ok bool
			if m, ok = b.Memory.(*memory); !ok {
				return fmt.Errorf("metal: %s: buffer(%d) is memory of another device", l.Kernel, i)
			}
		}
		e.bindings = append(e.bindings, C.gm_binding{buffer: m.p, offset: C.uint64_t(m.before + b.Offset)})
	}
	for _, n := range l.Shared {
		e.shared = append(e.shared, C.uint32_t(n))
	}
	// Metal copies parameters from addresses that suit their type.
	e.params = append(e.params, l.Params...)
	for len(e.params)%16 != 0 {
		e.params = append(e.params, 0)
	}
	e.launches = append(e.launches, c)
	return nil
}

// wait implements queue.
func (d *device) wait(commands unsafe.Pointer) (float64, error) {
	var seconds C.double
	var text *C.char
	if code := C.gm_wait(commands, &seconds, &text); code != 0 {
		return math.NaN(), commandError(int(code), take(text))
	}
	return float64(seconds), nil
}
