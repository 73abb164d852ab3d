package trainer

import (
	"runtime"
	"strings"
	"testing"
)

func TestNewBackend(t *testing.T) {
	for _, name := range []string{"cpu", "reference"} {
		b, err := NewBackend(name, 1)
		if err != nil || b.Info().Name != name {
			t.Fatalf("%s: %v, %v", name, b, err)
		}
		b.Close()
	}
	if _, err := NewBackend("cuda", 1); err == nil {
		t.Error("a backend that there is not")
	}
	b, why := Auto(1)
	defer b.Close()
	same, err := NewBackend("auto", 1)
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
	_, err = NewBackend("metal", 1)
	if err == nil || err.Error() != why || !strings.Contains(why, "Metal needs macOS") {
		t.Errorf("metal: %v, but auto: %q", err, why)
	}
}

// TestEmulator: what the environment names is opened for metal, not for auto.
func TestEmulator(t *testing.T) {
	t.Setenv(emulatorVariable, "nowhere/emulator")
	if _, err := NewBackend("metal", 1); err == nil || strings.Contains(err.Error(), "needs macOS") {
		t.Errorf("no emulator: %v", err)
	}
	b, err := NewBackend("auto", 1)
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
	emulate(t)
	b, err = NewBackend("metal", 1)
	if err != nil || b.Info().Name != "metal" {
		t.Fatalf("%v, %v", b, err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
