package driver

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// plant replaces text that a file has once.
func plant(t *testing.T, file, from, to string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), from); n != 1 {
		t.Fatalf("%s has %q %d times, want once", file, from, n)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), from, to, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// copyFiles copies the files of one folder that match a pattern to another.
func copyFiles(t *testing.T, from, pattern, to string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(from, pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", pattern, len(names), err)
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := os.Stat(name); err != nil || info.IsDir() {
			continue
		}
		b, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(to, filepath.Base(name)), b, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// clang returns a clang's name, or skips the test.
func clang(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"clang", "clang-19", "clang-20", "clang-18", "clang-17", "clang-16"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("driver.m is not checked: there is no clang (apt-get install clang)")
	return ""
}

// TestObjectiveC checks driver.m against the declarations in testdata/sdk, as of
// before and since macOS 15, and that mistakes would be found.
func TestObjectiveC(t *testing.T) {
	clang := clang(t)
	sdk, err := filepath.Abs("testdata/sdk")
	if err != nil {
		t.Fatal(err)
	}
	compile := func(dir, version string) string {
		c := exec.Command(clang, "--target=arm64-apple-macos13", "-ffreestanding", "-nostdlibinc", "-fobjc-arc", "-fblocks",
			"-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-DSDK="+version, "-I"+sdk, "driver.m")
		c.Dir = dir
		out, err := c.CombinedOutput()
		if err != nil && len(out) == 0 {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, version := range []string{"13", "15"} {
		if out := compile(".", version); out != "" {
			t.Errorf("SDK %s:\n%s", version, out)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"c.GPUEndTime", "c.GPUEnd", "property 'GPUEnd' not found"},
		{"newCommandQueue];", "newQueue];", "no known instance method for selector 'newQueue'"},
		{"(__bridge_retained void *)MTLCreate", "MTLCreate", "requires a bridged cast"},
		{"if (@available(macOS 15.0, *)) {", "{", "only available on macOS 15.0"},
		{"gm_family(void *device, int64_t family)", "gm_family(void *device, char *family)", "conflicting types for 'gm_family'"},
	} {
		dir := t.TempDir()
		copyFiles(t, ".", "driver.[mh]", dir)
		plant(t, filepath.Join(dir, "driver.m"), c.from, c.to)
		if out := compile(dir, "15"); !strings.Contains(out, c.want) {
			t.Errorf("%q in the place of %q: %q, want %q", c.to, c.from, out, c.want)
		}
	}
}

// fakec runs the type checker for Macs on packages of the module in a folder.
func fakec(t *testing.T, dir string, packages ...string) (string, error) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fakec")
	if out, err := exec.Command("go", "build", "-o", program, "./internal/fakec").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := exec.Command(program, packages...)
	c.Dir = dir
	out, err := c.CombinedOutput()
	return string(out), err
}

// TestDarwinTypes checks all packages and tests as a Mac with cgo would build them.
func TestDarwinTypes(t *testing.T) {
	if out, err := fakec(t, "../../..", "./..."); err != nil || !strings.Contains(out, "packages of graft are good") {
		t.Errorf("%v\n%s", err, out)
	}
}

// module copies the packages that use cgo on a Mac, and what they are built from,
// to a module of their own.
func module(t *testing.T) (root, driver string) {
	t.Helper()
	root = t.TempDir()
	for _, dir := range []string{"", "internal/units", "kernels", "kernels/cpu", "kernels/cpu/accelerate", "kernels/kerneltest", "kernels/random", "kernels/reference", "kernels/metal", "kernels/metal/driver"} {
		copyFiles(t, filepath.Join("../../..", dir), "*.*", filepath.Join(root, dir))
	}
	return root, filepath.Join(root, "kernels/metal/driver")
}

// TestDarwinTypesCatches plants mistakes in a copy of what uses cgo.
func TestDarwinTypesCatches(t *testing.T) {
	root, driver := module(t)
	cpu := filepath.Join(root, "kernels/cpu")
	plant(t, filepath.Join(cpu, "accelerate_darwin.go"), "accelerate.Sgemm", "accelerate.Dgemm")
	plant(t, filepath.Join(cpu, "accelerate/sgemm.go"), "ldb, len(b)", "ldb, b")
	copyFiles(t, cpu, "neon_arm64.s", filepath.Join(cpu, "accelerate"))
	plant(t, filepath.Join(driver, "driver.go"), "run[unsafe.Pointer](d,", "run[int](d,")
	plant(t, filepath.Join(driver, "info.go"), "int(d.MaxBufferLength())", "d.MaxBufferLength()")
	plant(t, filepath.Join(driver, "device_test.go"), "float32(i%97) / 50", "i % 97")
	out, err := fakec(t, root, "./kernels/metal/driver", "./kernels/cpu/...")
	if n := strings.Count(out, ".go:"); n != 5 {
		t.Errorf("%d mistakes, 5 were planted:\n%s", n, out)
	}
	for _, want := range []string{"undefined: accelerate.Dgemm", "cannot use b", "sgemm.go uses cgo: Go does not assemble neon_arm64.s",
		"driver.go:", "*device does not implement queue[int]", "info.go:", "cannot use d.MaxBufferLength()", "device_test.go:", "cannot use i % 97"} {
		if err == nil || !strings.Contains(out, want) {
			t.Errorf("%v, %q, want %q", err, out, want)
		}
	}
}

// TestCgo builds driver.go with cgo on a GPU that is written in C (testdata/fake),
// and runs the tests there: what the Go side hands to C is then known to arrive,
// and all objects to be released.
func TestCgo(t *testing.T) {
	_, driver := cgoModule(t)
	for _, name := range []string{"driver.m", "driver_other.go", "info.go", "device_test.go", "mac_test.go"} {
		if err := os.Remove(filepath.Join(driver, name)); err != nil {
			t.Fatal(err)
		}
	}
	copyFiles(t, "testdata/fake", "*.*", driver)
	file := filepath.Join(driver, "driver.go")
	plant(t, file, "//go:build darwin && cgo", "//go:build cgo")
	plant(t, file, "-fobjc-arc", "-Wall -Werror")
	plant(t, file, "// #cgo LDFLAGS: -framework Metal -framework Foundation\n", "")
	cgoTest(t, driver, "")
}

// TestCgoAccelerate builds package accelerate with a cblas_sgemm in plain C, for
// a macOS before and since its new interface, and runs its tests there.
func TestCgoAccelerate(t *testing.T) {
	root, _ := cgoModule(t)
	dir := filepath.Join(root, "kernels/cpu/accelerate")
	plant(t, filepath.Join(dir, "sgemm.go"), "darwin && arm64 && cgo", "cgo")
	plant(t, filepath.Join(dir, "sgemm.go"), "// #cgo LDFLAGS: -framework Accelerate\n", "")
	plant(t, filepath.Join(dir, "sgemm_test.go"), "darwin && arm64 && cgo", "cgo")
	fake, err := filepath.Abs("../../cpu/accelerate/testdata/fake")
	if err != nil {
		t.Fatal(err)
	}
	for _, oldest := range []string{"120000", "130300"} {
		cgoTest(t, dir, "-Wall -Werror -DFAKE_OLDEST="+oldest+" -I"+fake)
	}
}

// cgoModule is module, on a system where cgo can be tried.
func cgoModule(t *testing.T) (root, driver string) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the fakes in C are for Linux")
	}
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skip("what uses cgo is not run: there is no gcc")
	}
	return module(t)
}

// cgoTest runs the tests of a package with cgo.
func cgoTest(t *testing.T, dir, flags string) {
	t.Helper()
	c := exec.Command("go", "test", "-count=1", "-v", ".")
	c.Dir = dir
	c.Env = append(os.Environ(), "CGO_ENABLED=1", "CC=gcc", "CGO_CFLAGS="+flags)
	if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: ") {
		t.Errorf("%v\n%s", err, out)
	}
}
