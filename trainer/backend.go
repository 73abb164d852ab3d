package trainer

import (
	"fmt"
	"os"
	"runtime"

	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/metal"
	"graft/kernels/metal/driver"
	"graft/kernels/metal/emulator"
	"graft/kernels/reference"
)

// emulatorVariable names, in the environment, a program of package emulator that
// stands in for the GPU of a Mac.
const emulatorVariable = "GRAFT_METAL_EMULATOR"

// OpenMetal returns the GPU of a Mac, or the emulator that the environment names.
func OpenMetal() (metal.Device, error) {
	if program := os.Getenv(emulatorVariable); program != "" {
		return emulator.Open(program)
	}
	return driver.Open()
}

// NewBackend returns the backend of a name, as the config has it.
func NewBackend(name string, threads int) (kernels.Backend, error) {
	switch name {
	case "auto":
		b, _ := Auto(threads)
		return b, nil
	case "cpu":
		return cpu.New(cpu.Options{Threads: threads}), nil
	case "metal":
		return onMetal(OpenMetal())
	case "reference":
		return reference.New(), nil
	}
	return nil, fmt.Errorf("backend: there is no %s; auto, cpu, metal and reference are", name)
}

// Auto returns the backend that the name auto stands for: the GPU of a Mac with
// Apple silicon, or else the CPU and why it is not the GPU.
func Auto(threads int) (b kernels.Backend, why string) {
	b, err := onMetal(driver.Open())
	if err != nil {
		return cpu.New(cpu.Options{Threads: threads}), err.Error()
	}
	return b, ""
}

func onMetal(d metal.Device, err error) (kernels.Backend, error) {
	if err != nil {
		return nil, err
	}
	return metal.New(d, metal.Options{}), nil
}

// newBackend returns the config's backend. On a Mac it says why auto is not the
// GPU; elsewhere nobody expects it to be.
func (t *Trainer) newBackend() (kernels.Backend, error) {
	if t.cfg.Backend != "auto" {
		return NewBackend(t.cfg.Backend, t.cfg.Threads)
	}
	b, why := Auto(t.cfg.Threads)
	if why != "" && runtime.GOOS == "darwin" {
		t.options.Log.Info("the CPU is used: " + why)
	}
	return b, nil
}
