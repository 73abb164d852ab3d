package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"graft/benchmark"
	"graft/internal/units"
	"graft/kernels"
	"graft/kernels/cpu"
	"graft/kernels/kerneltest"
	"graft/kernels/metal"
	"graft/profile"
	"graft/trainer"
)

const doctorUsage = `train doctor says what this machine has, and whether it computes right.

  train doctor        what was found, and some cases of every kernel on every device
  train doctor -all   all cases, which takes minutes
  train doctor -model smollm2   also how many launches a training step of a model takes on a GPU

Results are compared with the reference, in float64. The exit code is 1 if any are wrong.

Flags:
`

// libraries are those that the program stands on.
var libraries = []string{"github.com/spf13/viper", "github.com/schollz/progressbar/v3", "github.com/nlpodyssey/gopickle", "github.com/progrium/macdriver"}

// doctor runs train doctor.
func doctor(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("train doctor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	all := flags.Bool("all", false, "check all cases, not some of each kernel")
	folder := flags.String("model", "", "`folder` of a model whose launches are counted")
	flags.Usage = func() {
		fmt.Fprint(stderr, doctorUsage)
		flags.PrintDefaults()
	}
	if code, done := parse(flags, args); done {
		return code
	}
	found(stdout)
	if err := launches(stdout, *folder); err != nil {
		return report(stderr, err)
	}
	if err := checkDevices(stdout, devices(), *all); err != nil {
		return report(stderr, err)
	}
	return 0
}

// found prints what the machine and the program have.
func found(w io.Writer) {
	fmt.Fprintf(w, "machine    %s; %s\n", profile.Machine(), strings.Join(cpu.ISAs(), ", "))
	if n := installedMemory(); n > 0 {
		fmt.Fprintf(w, "memory     %s\n", units.Bytes(n))
	}
	fmt.Fprintf(w, "metal      %s\n", metalLine())
	b, why := trainer.Auto()
	defer b.Close()
	info := b.Info()
	fmt.Fprintf(w, "auto       %s, %s\n", info.Name, info.Detail)
	if why != "" && runtime.GOOS == "darwin" {
		fmt.Fprintf(w, "           %s\n", why)
	}
	fmt.Fprintf(w, "program    %s\n", versions())
}

// launches prints how often the GPU is asked to do something in a training step of
// a model. That can be counted on any machine.
func launches(w io.Writer, folder string) error {
	if folder == "" {
		return nil
	}
	forward, backward, err := benchmark.Dispatches(benchmark.StepOptions{Model: folder, Batch: 4, Length: 256, Rank: 16})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "launches   on a GPU a layer takes %d forward and %d backward, with adapters on all linear layers\n", forward, backward)
	return nil
}

// metalLine describes the GPU, or says why there is none.
func metalLine() string {
	d, err := trainer.OpenMetal()
	if err != nil {
		return "none: " + strings.TrimPrefix(err.Error(), "metal: ")
	}
	defer d.Close()
	i := d.Info()
	parts := []string{i.Name, i.Detail}
	if i.Memory > 0 {
		parts = append(parts, units.Bytes(i.Memory)+" to stay within")
	}
	if i.MaxBuffer > 0 {
		parts = append(parts, "buffers of "+units.Bytes(i.MaxBuffer))
	}
	parts = append(parts, fmt.Sprintf("%d threads and %s a threadgroup", i.MaxThreads, units.Bytes(i.ThreadgroupBytes)))
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), ", ")
}

// versions lists Go's and those of the libraries that are in this build.
func versions() string {
	parts := []string{runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return parts[0]
	}
	for _, m := range info.Deps {
		if slices.Contains(libraries, m.Path) {
			parts = append(parts, strings.TrimPrefix(m.Path, "github.com/")+" "+cmp.Or(m.Version, "of unknown version"))
		}
	}
	return strings.Join(parts, ", ")
}

// candidate is a device that is checked.
type candidate struct {
	name string
	// open returns a backend, and how far a value may lie from the reference,
	// relative to its row.
	open func() (kernels.Backend, float64, error)
}

// devices lists every instruction set of the CPU, and the GPU with every type of
// activations.
func devices() []candidate {
	var list []candidate
	for _, isa := range cpu.ISAs() {
		list = append(list, candidate{"cpu " + isa, func() (kernels.Backend, float64, error) {
			return cpu.New(cpu.Options{ISA: isa}), tolerances[kernels.F32], nil
		}})
	}
	if d, err := trainer.OpenMetal(); err != nil {
		return list
	} else if err := d.Close(); err != nil {
		return append(list, candidate{"metal", func() (kernels.Backend, float64, error) { return nil, 0, err }})
	}
	for _, t := range []kernels.DType{kernels.F32, kernels.F16, kernels.BF16} {
		list = append(list, candidate{fmt.Sprintf("metal %v", t), func() (kernels.Backend, float64, error) {
			d, err := trainer.OpenMetal()
			if err != nil {
				return nil, 0, err
			}
			return metal.New(d, metal.Options{Activations: t}), tolerances[t], nil
		}})
	}
	return list
}

// tolerances of results, by the type of activations.
var tolerances = map[kernels.DType]float64{kernels.F32: 5e-6, kernels.F16: 2e-3, kernels.BF16: 1.6e-2}

// checkDevices checks every device and prints a line for each. Its error lists
// the devices that are not right.
func checkDevices(w io.Writer, list []candidate, all bool) error {
	fmt.Fprintf(w, "\nchecked against the reference:\n")
	var errs []error
	for _, c := range list {
		began := time.Now()
		f := findings{w: w, name: c.name}
		what, err := f.check(c, all)
		switch took := time.Since(began).Round(10 * time.Millisecond); {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
			fmt.Fprintf(w, "  %-12s FAILED: %v\n", c.name, err)
		case f.n > 0:
			errs = append(errs, fmt.Errorf("%s: %d results are wrong: do not train on it, and please report this with the output of train doctor", c.name, f.n))
			fmt.Fprintf(w, "  %-12s WRONG: %d results, %s, %v\n", c.name, f.n, what, took)
		default:
			fmt.Fprintf(w, "  %-12s good: %s, %v\n", c.name, what, took)
		}
	}
	return errors.Join(errs...)
}

// findings is a kerneltest.Reporter that prints the first few.
type findings struct {
	w    io.Writer
	name string
	n    int
}

const maxFindings = 10

func (f *findings) Helper() {}

func (f *findings) Errorf(format string, args ...any) {
	if f.n++; f.n <= maxFindings {
		fmt.Fprintf(f.w, "  %-12s %s\n", f.name, fmt.Sprintf(format, args...))
	}
}

// check checks one device and says how much of it.
func (f *findings) check(c candidate, all bool) (what string, err error) {
	b, tolerance, err := c.open()
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if all {
		kerneltest.Forward(f, b, tolerance)
		return "all cases", nil
	}
	tried, kinds := kerneltest.Quick(f, b, tolerance)
	return fmt.Sprintf("%d cases of %d kinds", tried, kinds), nil
}
