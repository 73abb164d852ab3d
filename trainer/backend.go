package trainer

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

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

// BackendOptions choose a backend, as the config has it.
type BackendOptions struct {
	Name      string // auto, cpu, metal or reference
	Precision string // float32, bfloat16 or float16; "" is float32
	Threads   int    // of the CPU; 0: as many as the process may use
	ISA       string // of the CPU: one of cpu.ISAs; "" is the best
}

// precisions are the types of activations by their names in the config.
var precisions = map[string]kernels.DType{"": kernels.F32, "float32": kernels.F32, "bfloat16": kernels.BF16, "float16": kernels.F16}

// Open returns the backend.
func (o BackendOptions) Open() (kernels.Backend, error) {
	b, _, err := o.open()
	return b, err
}

// open also says why auto, the GPU of a Mac with Apple silicon or else the CPU,
// is not the GPU.
func (o BackendOptions) open() (b kernels.Backend, why string, err error) {
	activations, ok := precisions[o.Precision]
	if !ok {
		return nil, "", fmt.Errorf("precision: there is no %s; float32, bfloat16 and float16 are", o.Precision)
	}
	if o.ISA != "" && o.Name == "auto" {
		o.Name = "cpu"
	}
	if o.ISA != "" && o.Name != "cpu" {
		return nil, "", fmt.Errorf("isa: %s is for backend cpu, not %s", o.ISA, o.Name)
	}
	switch o.Name {
	case "metal":
		b, err = onMetal(OpenMetal, activations)
		return b, "", err
	case "auto":
		if b, err = onMetal(driver.Open, activations); err == nil {
			return b, "", nil
		}
		why = err.Error()
	case "cpu", "reference":
	default:
		return nil, "", fmt.Errorf("backend: there is no %s; auto, cpu, metal and reference are", o.Name)
	}
	if activations != kernels.F32 {
		return nil, "", fmt.Errorf("precision: %s is for backend metal; the others compute in float32 or wider", o.Precision)
	}
	if o.Name == "reference" {
		return reference.New(), "", nil
	}
	if here := cpu.ISAs(); o.ISA != "" && !slices.Contains(here, o.ISA) {
		return nil, "", fmt.Errorf("isa: there is no %s on this machine; %s are", o.ISA, strings.Join(here, ", "))
	}
	return cpu.New(cpu.Options{Threads: o.Threads, ISA: o.ISA}), why, nil
}

func onMetal(open func() (metal.Device, error), activations kernels.DType) (kernels.Backend, error) {
	d, err := open()
	if err != nil {
		return nil, err
	}
	return metal.New(d, metal.Options{Activations: activations}), nil
}

// Auto returns what backend auto is here, and why it is not the GPU.
func Auto() (b kernels.Backend, why string) {
	b, why, err := BackendOptions{Name: "auto"}.open()
	if err != nil {
		panic(err) // the CPU is always there
	}
	return b, why
}

// newBackend returns the config's backend. On a Mac it says why auto is not the
// GPU; elsewhere nobody expects it to be.
func (t *Trainer) newBackend() (kernels.Backend, error) {
	b, why, err := BackendOptions{Name: t.cfg.Backend, Precision: t.cfg.Precision, Threads: t.cfg.Threads, ISA: t.cfg.ISA}.open()
	if why != "" && runtime.GOOS == "darwin" {
		t.options.Log.Info("the CPU is used: " + why)
	}
	return b, err
}
