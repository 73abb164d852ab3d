package trainer

import (
	"runtime"
	"strings"
	"testing"

	"graft/kernels/cpu"
)

func TestBackendOptions(t *testing.T) {
	for _, name := range []string{"cpu", "reference"} {
		b, err := BackendOptions{Name: name, Threads: 1}.Open()
		if err != nil || b.Info().Name != name {
			t.Fatalf("%s: %v, %v", name, b, err)
		}
		b.Close()
	}
	if _, err := (BackendOptions{Name: "cuda", Threads: 1}).Open(); err == nil {
		t.Error("a backend that there is not")
	}
	for _, o := range []BackendOptions{{Name: "cpu", Precision: "bfloat16"}, {Name: "reference", Precision: "float16"}, {Name: "cpu", Precision: "int8"}} {
		if _, err := o.Open(); err == nil || !strings.Contains(err.Error(), "precision") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	for _, isa := range cpu.ISAs() {
		b, err := BackendOptions{Name: "cpu", ISA: isa, Threads: 1}.Open()
		if err != nil || !strings.Contains(b.Info().Detail, isa) {
			t.Fatalf("%s: %v, %v", isa, b, err)
		}
		b.Close()
	}
	if _, err := (BackendOptions{Name: "cpu", ISA: "avx1024"}).Open(); err == nil || !strings.Contains(err.Error(), "no avx1024 on this machine; go") {
		t.Errorf("an instruction set that there is not: %v", err)
	}
	for _, name := range []string{"metal", "reference"} {
		if _, err := (BackendOptions{Name: name, ISA: "go"}).Open(); err == nil || !strings.Contains(err.Error(), "isa: go is for backend cpu, not "+name) {
			t.Errorf("an instruction set for %s: %v", name, err)
		}
	}
	b, why := Auto()
	defer b.Close()
	same, err := BackendOptions{Name: "auto"}.Open()
	if err != nil || same.Info() != b.Info() {
		t.Errorf("auto: %v and %v, %v", same, b, err)
	}
	same.Close()
	if name := b.Info().Name; (name == "metal") != (why == "") || name != "metal" && name != "cpu" {
		t.Errorf("auto is %s, because of %q", name, why)
	}
	if runtime.GOOS == "darwin" {
		return
	}
	t.Setenv(emulatorVariable, "")
	_, err = BackendOptions{Name: "metal", Threads: 1}.Open()
	if err == nil || err.Error() != why || !strings.Contains(why, "Metal needs macOS") {
		t.Errorf("metal: %v, but auto: %q", err, why)
	}
}

// TestEmulator: what the environment names is opened for metal, not for auto.
func TestEmulator(t *testing.T) {
	t.Setenv(emulatorVariable, "nowhere/emulator")
	if _, err := (BackendOptions{Name: "metal", Threads: 1}).Open(); err == nil || strings.Contains(err.Error(), "needs macOS") {
		t.Errorf("no emulator: %v", err)
	}
	b, err := BackendOptions{Name: "auto", Threads: 1}.Open()
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	emulate(t)
	b, err = BackendOptions{Name: "metal", Threads: 1}.Open()
	if err != nil || b.Info().Name != "metal" {
		t.Fatalf("%v, %v", b, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
