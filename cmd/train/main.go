// Command train fine-tunes language models with low-rank adapters.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"graft/configs"
	"graft/trainer"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// Exit codes: 1 for anything that is wrong, 130 for a run that was interrupted
// and saved.
const (
	exitError       = 1
	exitInterrupted = 130
)

const usage = `train fine-tunes a language model with low-rank adapters (LoRA).

  train -config llama-lora.yaml                  train from the start
  train -config llama-lora.yaml -resume          go on from the newest checkpoint
  train -config llama-lora.yaml -set lora.rank=8 -set train.epochs=3

  train bench                                    time every kernel against the machine's limits (train bench -h)
  train doctor                                   what this machine has, and whether it computes right

Ctrl-C (or SIGTERM, a closed terminal, or output that nobody reads any more) saves a checkpoint and ends the run; kill -USR1
prints the profile so far.

Flags:
`

// list collects the values of a repeatable flag.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func run(args []string, stdout, stderr io.Writer) int {
	commands := map[string]func(args []string, stdout, stderr io.Writer) int{"bench": bench, "doctor": doctor}
	if len(args) > 0 && commands[args[0]] != nil {
		return commands[args[0]](args[1:], stdout, stderr)
	}
	flags := flag.NewFlagSet("train", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var sets list
	config := flags.String("config", "", "the job, a YAML `file`")
	resume := flags.Bool("resume", false, "go on from the newest valid checkpoint in the run's folder")
	backend := flags.String("backend", "", "`name` of the backend: auto, cpu, metal or reference")
	out := flags.String("out", "", "`folder` of the run")
	flags.Var(&sets, "set", "`key=value` that overrides the config; may be repeated")
	flags.Usage = func() { help(flags) }
	if code, done := parse(flags, args); done {
		return code
	}
	if *config == "" {
		fmt.Fprintln(stderr, "train: -config is missing: name a YAML file, such as configs/llama-lora.yaml; see train -h")
		return exitError
	}
	if *backend != "" {
		sets = append(sets, "backend="+*backend)
	}
	if *out != "" {
		sets = append(sets, "out="+*out)
	}
	cfg, err := configs.Load(*config, sets, os.Environ())
	if err != nil {
		return report(stderr, err)
	}
	// The first signal ends the run in order, the second at once.
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup does
		ends = append(ends, syscall.SIGHUP)
	}
	// Every write to a pipe without a reader is such a signal: none of them may end the run while it saves.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	context.AfterFunc(ctx, stop)
	err = trainer.Run(ctx, cfg, trainer.Options{Resume: *resume, Out: stdout, Log: slog.New(plain{w: stderr}), Show: showSignal()})
	if errors.Is(err, trainer.ErrInterrupted) {
		report(stderr, err)
		return exitInterrupted
	}
	if err != nil {
		return report(stderr, err)
	}
	return 0
}

// parse parses flags, after which nothing may follow. done says that there is
// nothing to do but to end with code.
func parse(flags *flag.FlagSet, args []string) (code int, done bool) {
	out, usage := flags.Output(), flags.Usage
	flags.SetOutput(io.Discard) // an error is one line here
	flags.Usage = func() {}
	err := flags.Parse(args)
	flags.SetOutput(out)
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage()
		return 0, true
	case err != nil:
		fmt.Fprintf(out, "train: %v; see %s -h\n", err, flags.Name())
		return exitError, true
	case flags.NArg() > 0:
		fmt.Fprintf(out, "train: %q is no flag; see %s -h\n", flags.Arg(0), flags.Name())
		return exitError, true
	}
	return 0, false
}

// report prints an error, one line for each of its parts.
func report(w io.Writer, err error) int {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "train: %s\n", shorten(strings.TrimRight(line, "\n")))
	}
	return exitError
}

// maxLine bounds a line of an error in bytes: a value that it repeats may be of any length.
const maxLine = 1000

// shorten leaves out the middle of a line that is too long: it begins with the place and ends
// with what is wrong.
func shorten(line string) string {
	if len(line) <= maxLine {
		return line
	}
	first, last := line[:maxLine/2], line[len(line)-maxLine/2:]
	return strings.ToValidUTF8(first, "") + " … " + strings.ToValidUTF8(last, "")
}

func help(flags *flag.FlagSet) {
	w := flags.Output()
	fmt.Fprint(w, usage)
	flags.PrintDefaults()
	fmt.Fprint(w, "\nKeys of the config, with their defaults; TRAIN_LORA_RANK=8 in the environment sets lora.rank:\n")
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, k := range configs.Keys() {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\n", k.Name, k.Type, k.Default, k.Help)
	}
	t.Flush()
}
