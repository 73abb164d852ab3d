package metal

import (
	"fmt"
	"time"

	"graft/kernels"
)

// Options choose how a device is used.
type Options struct {
	// Activations is the type of everything between the operations that has a
	// row for each token: F32 (the default), F16 or BF16. Parameters, their
	// gradients, statistics and all sums are float32.
	Activations kernels.DType
}

// Backend runs operations on a device. It serves one goroutine at a time.
type Backend struct {
	device  Device
	suffix  string // of the kernels for the type of activations
	act     kernels.DType
	scratch Memory
	most    int // bytes of working memory that Scratch has been asked for
	encoder encoder
}

// New returns a backend that owns the device. It panics on a type that the
// kernels do not know.
func New(d Device, o Options) *Backend {
	if o.Activations == 0 {
		o.Activations = kernels.F32
	}
	suffix, ok := map[kernels.DType]string{kernels.F32: "_f32", kernels.F16: "_f16", kernels.BF16: "_bf16"}[o.Activations]
	if !ok {
		panic(fmt.Sprintf("metal: no kernels for activations of %v", o.Activations))
	}
	b := &Backend{device: d, suffix: suffix, act: o.Activations}
	b.encoder.b = b
	return b
}

// Info implements kernels.Backend.
func (b *Backend) Info() kernels.Info {
	i := b.device.Info()
	return kernels.Info{Name: "metal", Detail: i.Name + ", " + i.Detail, Arithmetic: i.Name, Float: kernels.F32, Activation: b.act, ClockCosts: true, Apart: 1, MaxHead: maxHead}
}

// Alloc implements kernels.Backend.
func (b *Backend) Alloc(n int) (kernels.Buffer, error) { return b.device.Alloc(n) }

// Wrap implements kernels.Backend.
func (b *Backend) Wrap(data []byte) (kernels.Buffer, error) { return b.device.Wrap(data) }

// Close implements kernels.Backend.
func (b *Backend) Close() error { return b.device.Close() }

// Scratch implements kernels.Backend. A device gives no memory back before it is closed, so the
// most that is asked for is what the first Run allocates.
func (b *Backend) Scratch(ops []kernels.Op) int {
	n := 0
	for _, op := range ops {
		n = max(n, need(op))
	}
	b.most = max(b.most, n)
	return n
}

// Run implements kernels.Backend. With a clock, operations that share launches
// are told the same part of their time each.
func (b *Backend) Run(ops []kernels.Op, clock kernels.Clock) error {
	for _, op := range ops {
		kernels.Check(op)
	}
	if err := b.reserve(ops); err != nil {
		return err
	}
	l := b.encoder.encode(ops)
	if clock == nil {
		return b.device.Run(l.launches, nil)
	}
	times := make([]time.Duration, len(l.launches))
	if err := b.device.Run(l.launches, times); err != nil {
		return err
	}
	for _, g := range l.groups {
		var sum time.Duration
		for _, d := range times[g.first:g.end] {
			sum += d
		}
		for _, i := range g.ops {
			clock(i, sum/time.Duration(len(g.ops)))
		}
	}
	return nil
}

// reserve sees to working memory for a list.
func (b *Backend) reserve(ops []kernels.Op) error {
	n := b.Scratch(ops)
	if b.scratch != nil && n <= b.scratch.Size() {
		return nil
	}
	m, err := b.device.Alloc(max(b.most, 4))
	if err != nil {
		return fmt.Errorf("metal: working memory: %w", err)
	}
	b.scratch = m
	return nil
}

// need returns the bytes of working memory that an operation takes.
func need(op kernels.Op) int {
	switch o := op.(type) {
	case *kernels.CrossEntropy:
		return crossEntropyNeed(o)
	case *kernels.RMSNormGrad:
		return rmsNormGradNeed(o)
	case *kernels.AttentionGrad:
		return attentionGradNeed(o)
	case *kernels.ClipNorm:
		return clipNormNeed(o)
	}
	return 0
}
