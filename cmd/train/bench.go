package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"

	"graft/benchmark"
	"graft/profile"
	"graft/trainer"
)

const benchUsage = `train bench times operations against what the machine can do, measured beside them.

  train bench                                    every kernel, at typical shapes
  train bench -only softmax -json softmax.json   some of them, for other programs
  train bench -model smollm2 -batch 4 -length 256   all operations of a training step of a model

A time is the best of many; "of peak" is the share of the limit that is nearer: the rate of multiply-adds, or of memory.
FLOPs are those of the formula; large products may take an eighth less, and so come out above what their arithmetic runs at.

Flags:
`

// bench runs train bench.
func bench(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("train bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var backend trainer.BackendOptions
	flags.StringVar(&backend.Name, "backend", "auto", "`name` of the backend: auto, cpu, metal or reference")
	flags.StringVar(&backend.Precision, "precision", "float32", "`type` of activations: float32, or on a GPU bfloat16 or float16")
	flags.IntVar(&backend.Threads, "threads", 0, "`number` of threads; 0: as many as the process may use")
	flags.StringVar(&backend.ISA, "isa", "", "instruction `set` of backend cpu, one that train doctor names; \"\": the best")
	each := flags.Duration("time", 300*time.Millisecond, "how long each case is timed")
	only := flags.String("only", "", "`regexp` of what to time, as in \"softmax|attention\"")
	file := flags.String("json", "", "`file` for the rows, as JSON")
	s := benchmark.StepOptions{Progress: trainer.Progress(stdout, "timing steps")}
	flags.StringVar(&s.Model, "model", "", "`folder` of a model whose step is timed")
	flags.IntVar(&s.Batch, "batch", 4, "sequences in a step of -model")
	flags.IntVar(&s.Length, "length", 256, "tokens of each")
	flags.IntVar(&s.Rank, "rank", 16, "of the adapters, on all linear layers")
	flags.IntVar(&s.Steps, "steps", 5, "steps that are timed")
	flags.BoolVar(&s.Recompute, "recompute", false, "as train.recompute: block")
	flags.Usage = func() {
		fmt.Fprint(stderr, benchUsage)
		flags.PrintDefaults()
	}
	if code, done := parse(flags, args); done {
		return code
	}
	err := errors.Join(between("threads", backend.Threads, 0, 1024), between("batch", s.Batch, 1, 1<<16), between("length", s.Length, 2, 1<<20),
		between("rank", s.Rank, 1, 1<<12), between("steps", s.Steps, 1, 1<<20), between("time", int(each.Milliseconds()), 0, 3_600_000))
	pattern, perr := regexp.Compile(*only)
	if perr != nil {
		err = errors.Join(err, fmt.Errorf("-only: %w", perr))
	}
	if err != nil {
		return report(stderr, err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o := benchmark.Options{Time: *each, Only: pattern, Open: backend.Open}
	if err := timeAll(ctx, s, o, *file, stdout); err != nil {
		return report(stderr, err)
	}
	return 0
}

func between(name string, v, least, most int) error {
	if v < least || v > most {
		return fmt.Errorf("-%s is %d, want %d to %d", name, v, least, most)
	}
	return nil
}

// timeAll prints a table and writes the file, of whatever was timed when it
// was interrupted too.
func timeAll(ctx context.Context, s benchmark.StepOptions, o benchmark.Options, file string, stdout io.Writer) error {
	b, err := o.Open()
	if err != nil {
		return err
	}
	info := b.Info()
	if err := b.Close(); err != nil {
		return err
	}
	if file != "" { // what is wrong with it is found before the time is spent; it is emptied when there are rows for it
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
		if err != nil {
			return fmt.Errorf("-json: %w", err)
		}
		defer f.Close()
	}
	all := benchmark.Report{Backend: info.Name + ", " + info.Detail, Machine: profile.Machine()}
	fmt.Fprintf(stdout, "backend  %s\nmachine  %s\n", all.Backend, all.Machine)
	table := benchmark.NewTable(stdout)
	emit := func(r benchmark.Row) {
		all.Rows = append(all.Rows, r)
		table.Add(r)
	}
	if s.Model != "" {
		err = benchmark.Step(ctx, s, o, emit)
	} else {
		err = benchmark.Run(ctx, benchmark.Kernels(), o, emit)
	}
	if err == nil && len(all.Rows) == 0 {
		err = fmt.Errorf("-only: nothing is named like %s", o.Only)
	}
	return errors.Join(err, table.Err(), writeReport(file, all))
}

func writeReport(file string, all benchmark.Report) (err error) {
	if file == "" || len(all.Rows) == 0 {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return benchmark.WriteJSON(f, all)
}
