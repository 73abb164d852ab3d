package metal

import (
	"errors"
	"time"

	"graft/kernels"
)

// noDevice has memory and runs nothing.
type noDevice struct{}

// NoDevice returns a device that cannot run anything: with it, a backend counts
// the launches of a program on any machine.
func NoDevice() Device { return noDevice{} }

func (noDevice) Info() DeviceInfo { return DeviceInfo{Name: "no device"} }

func (noDevice) Alloc(n int) (Memory, error) { return &paper{size: n}, nil }

func (noDevice) Wrap(data []byte) (Memory, error) { return &paper{size: len(data)}, nil }

func (noDevice) Check(*Launch) error { return nil }

func (noDevice) Run([]Launch, []time.Duration) error {
	return errors.New("metal: there is no device to run on")
}

func (noDevice) Close() error { return nil }

// paper is memory of which only the size is real.
type paper struct{ size int }

func (p *paper) Skew() int            { return 0 }
func (p *paper) Size() int            { return p.size }
func (p *paper) Read(b []byte, _ int) { clear(b) }
func (p *paper) Write([]byte, int)    {}

// Dispatches returns how many launches each operation of a list takes.
// Operations that share launches count them once, for the first.
func (b *Backend) Dispatches(ops []kernels.Op) ([]int, error) {
	if err := b.reserve(ops); err != nil {
		return nil, err
	}
	n := make([]int, len(ops))
	for _, g := range b.encoder.encode(ops).groups {
		n[g.ops[0]] = g.end - g.first
	}
	return n, nil
}
