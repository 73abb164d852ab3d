package emulator

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"graft/kernels/metal"
	"graft/kernels/metal/msl"
)

//go:embed cpp
var cpp embed.FS

// Mode is how kernels are compiled.
type Mode int

const (
	Checked  Mode = iota // every access is checked; slow
	Fast                 // float results exactly as IEEE 754 has them
	FastMath             // -ffast-math, as a GPU's compiler may take it
)

func (m Mode) String() string { return [...]string{"checked", "fast", "fastmath"}[m] }

// BuildOptions say what to build.
type BuildOptions struct {
	Mode     Mode
	Compiler string         // a clang++ or g++; "" is the newest clang++ there is, else g++
	Sources  []metal.Source // nil: metal.Sources()
}

// ErrNoCompiler is the error of Build and Strict where there is no compiler.
var ErrNoCompiler = errors.New("no C++ compiler (clang++ or g++) in PATH")

// CacheDir is the folder that Build is meant to be given: the user's, so that
// unchanged kernels are compiled once.
func CacheDir() string {
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	return filepath.Join(base, "graft", "emulator")
}

// Build translates and compiles kernels into a program for Open, under dir. What
// is there already is used again: an object file's name is a hash of all that
// it is made of. Kernels that package msl finds fault with are an error.
func Build(dir string, o BuildOptions) (program string, err error) {
	b, err := newBuilder(dir, o)
	if err != nil {
		return "", err
	}
	units, err := translate(o.Sources)
	if err != nil {
		return "", err
	}
	objects := make([]string, len(units)+1)
	errs := make([]error, len(objects))
	var wait sync.WaitGroup
	slots := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i := range objects {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if i < len(units) {
				objects[i], errs[i] = b.compile(units[i].Name, units[i].Text, b.kernelFlags())
			} else {
				objects[i], errs[i] = b.compile("runtime.cpp", "#include \"runtime.cpp\"\n", b.runtimeFlags())
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	return b.link(objects)
}

// translate returns the sources as C++.
func translate(sources []metal.Source) ([]metal.Source, error) {
	if sources == nil {
		sources = metal.Sources()
	}
	var out []metal.Source
	var faults []string
	from := map[string]string{} // kernel to file
	for _, s := range sources {
		u, err := msl.Parse(s.Name, s.Text)
		if err != nil {
			return nil, err
		}
		for _, l := range u.Lints() {
			if !slices.Contains(faults, l) { // of a header
				faults = append(faults, l)
			}
		}
		for _, k := range u.Kernels() {
			if was, dup := from[k]; dup && was != s.Name {
				faults = append(faults, fmt.Sprintf("%s: kernel %s is also in %s", s.Name, k, was))
			}
			from[k] = s.Name
		}
		out = append(out, metal.Source{Name: s.Name, Text: u.Translate()})
	}
	if len(faults) > 0 {
		return nil, errors.New(strings.Join(faults, "\n"))
	}
	return out, nil
}

// builder compiles for one mode.
type builder struct {
	dir      string
	include  string // folder of the prelude
	compiler string
	clang    bool
	mode     Mode
	key      string // hash of what all objects have in common
}

func newBuilder(dir string, o BuildOptions) (*builder, error) {
	b := &builder{dir: dir, compiler: o.Compiler, mode: o.Mode}
	if b.compiler == "" {
		b.compiler = find("clang++", "g++")
	}
	if b.compiler == "" {
		return nil, ErrNoCompiler
	}
	version, err := exec.Command(b.compiler, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --version: %w", b.compiler, err)
	}
	b.clang = bytes.Contains(version, []byte("clang"))
	prelude, err := b.writePrelude()
	if err != nil {
		return nil, err
	}
	b.key = hash(string(version), prelude, processor())
	return b, nil
}

// find returns the newest compiler of the first family that is installed.
func find(families ...string) string {
	for _, name := range families {
		for v := 40; v >= 14; v-- {
			if p, err := exec.LookPath(fmt.Sprintf("%s-%d", name, v)); err == nil {
				return p
			}
		}
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
	}
	return ""
}

// processor names what the flags for this processor depend on.
func processor() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(info)) {
		if strings.HasPrefix(line, "flags") || strings.HasPrefix(line, "Features") {
			return line
		}
	}
	return runtime.GOARCH
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// writePrelude writes the C++ files and returns their hash.
func (b *builder) writePrelude() (string, error) {
	files := map[string]string{}
	var all []string
	err := fs.WalkDir(cpp, "cpp", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := cpp.ReadFile(path)
		files[d.Name()] = string(text)
		all = append(all, d.Name(), string(text))
		return err
	})
	if err != nil {
		return "", err
	}
	h := hash(all...)
	b.include = filepath.Join(b.dir, "include-"+h)
	if _, err := os.Stat(b.include); err == nil {
		return h, nil
	}
	if err := os.MkdirAll(b.dir, 0o777); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(b.dir, "include-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(temp, name), []byte(text), 0o666); err != nil {
			return "", err
		}
	}
	if err := os.Rename(temp, b.include); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return h, nil
}

// kernelFlags are those for what package msl made.
func (b *builder) kernelFlags() []string {
	flags := []string{"-std=c++14", "-w", "-fno-pie", "-fno-strict-aliasing", "-fno-math-errno", "-fno-finite-loops", "-fno-exceptions", "-fno-rtti"}
	native := "-march=native"
	if runtime.GOARCH == "arm64" {
		native = "-mcpu=native"
	}
	switch b.mode {
	case Fast:
		return append(flags, "-O2", native, "-ffp-contract=off")
	case FastMath:
		return append(flags, "-O2", native, "-ffast-math")
	}
	flags = append(flags, "-DMSL_CHECK", "-O1", "-g1", "-ffp-contract=off", "-fsanitize=thread",
		"-fsanitize=alignment,bounds,shift,signed-integer-overflow,integer-divide-by-zero,float-cast-overflow,return,unreachable,bool")
	if b.clang {
		return append(flags, "-fno-vectorize", "-fno-slp-vectorize", "-mllvm", "-tsan-instrument-func-entry-exit=0")
	}
	return append(flags, "-fno-tree-vectorize", "--param=tsan-instrument-func-entry-exit=0")
}

func (b *builder) runtimeFlags() []string {
	flags := []string{"-std=c++17", "-O2", "-Wall", "-fno-pie", "-ffp-contract=off", "-pthread"}
	if b.mode == Checked {
		flags = append(flags, "-DMSL_CHECK")
	}
	return flags
}

// compile makes the object file of a C++ text and returns its path.
func (b *builder) compile(name, text string, flags []string) (string, error) {
	object := filepath.Join(b.dir, hash(append(flags, b.key, name, text)...)+".o")
	return object, b.make(object, name, text, append(flags, "-I", b.include, "-x", "c++", "-c", "-"))
}

// link makes the program of object files and returns its path.
func (b *builder) link(objects []string) (string, error) {
	flags := append(slices.Clone(objects), "-no-pie", "-pthread", "-lm")
	if b.mode == FastMath {
		flags = append(flags, "-ffast-math") // flushes denormals
	}
	program := filepath.Join(b.dir, b.mode.String()+"-"+hash(flags...))
	return program, b.make(program, "the emulator", "", flags)
}

// make runs the compiler for a file unless it is there.
func (b *builder) make(file, name, input string, flags []string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	temp, err := os.CreateTemp(b.dir, "new-")
	if err != nil {
		return err
	}
	temp.Close()
	defer os.Remove(temp.Name())
	if err := compiler(name, input, b.compiler, append(flags, "-o", temp.Name())...); err != nil {
		return err
	}
	if err := os.Chmod(temp.Name(), 0o755); err != nil {
		return err
	}
	return os.Rename(temp.Name(), file)
}

// compiler runs a compiler over a text; its messages become the error.
func compiler(name, input, program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(input)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, &messages
	err := cmd.Run()
	if err == nil {
		return nil
	}
	text := strings.TrimSpace(messages.String())
	return fmt.Errorf("%s: %s: %w\n%s", name, filepath.Base(program), err, text[:min(len(text), 4000)])
}

// Strict checks the sources (nil: metal.Sources()) as C++ for OpenCL, a dialect
// with address spaces: it refuses what Metal refuses, such as a device pointer
// given where a thread's is due. It needs clang.
func Strict(sources []metal.Source) error {
	clang := find("clang")
	if clang == "" {
		return fmt.Errorf("the strict check needs clang: %w", ErrNoCompiler)
	}
	dir, err := os.MkdirTemp("", "graft-strict-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &builder{dir: dir}
	if _, err := b.writePrelude(); err != nil {
		return err
	}
	units, err := translate(sources)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range units {
		errs = append(errs, compiler(u.Name, u.Text, clang, "-fsyntax-only", "--target=spir64", "-x", "cl", "-cl-std=clc++2021",
			"-cl-no-stdinc", "-cl-single-precision-constant", "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unused-const-variable",
			"-Wno-unknown-pragmas", "-Wno-pragma-once-outside-header", "-Wno-unused-local-typedef", "-Xclang",
			"-cl-ext=-__opencl_c_generic_address_space,-__opencl_c_pipes,-__opencl_c_device_enqueue", "-I", b.include, "-"))
	}
	return errors.Join(errs...)
}
