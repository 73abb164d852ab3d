package main

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	"testing"

	"graft/kernels"
	"graft/kernels/cpu"
)

func TestDoctor(t *testing.T) {
	t.Setenv("GRAFT_METAL_EMULATOR", "")
	code, stdout, stderr := command("doctor")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	want := []string{"machine    ", runtime.GOOS + "/" + runtime.GOARCH, "auto       ", runtime.Version(), "good: "}
	for _, isa := range cpu.ISAs() {
		want = append(want, "  cpu "+isa+" ")
	}
	if runtime.GOOS != "darwin" {
		want = append(want, "metal      none: Metal needs macOS on Apple silicon")
	}
	for _, w := range want {
		if !strings.Contains(stdout, w) {
			t.Errorf("no %q in\n%s", w, stdout)
		}
	}
	if code, stdout, _ := command("doctor", "-model", "../../configs/demo/model"); code != 0 || !strings.Contains(stdout, "launches   on a GPU a layer takes 1") {
		t.Errorf("-model: exit code %d\n%s", code, stdout)
	}
	if code, _, stderr := command("doctor", "-model", "nowhere"); code != exitError || !strings.Contains(stderr, "nowhere") {
		t.Errorf("-model nowhere: exit code %d, %q", code, stderr)
	}
	if code, _, help := command("doctor", "-h"); code != 0 || !strings.Contains(help, "-all") {
		t.Errorf("-h: exit code %d, %q", code, help)
	}
	if code, _, stderr := command("doctor", "x"); code != exitError || !strings.Contains(stderr, `"x" is no flag; see train doctor -h`) {
		t.Errorf("x: exit code %d, %q", code, stderr)
	}
}

// forgetful is a CPU that leaves out an operation.
type forgetful struct{ *cpu.Backend }

func (f forgetful) Run(ops []kernels.Op, clock kernels.Clock) error {
	if _, ok := ops[0].(*kernels.Gated); ok {
		return nil
	}
	return f.Backend.Run(ops, clock)
}

func TestDoctorFinds(t *testing.T) {
	var b bytes.Buffer
	err := checkDevices(&b, []candidate{
		{"right", func() (kernels.Backend, float64, error) { return cpu.New(cpu.Options{}), 5e-6, nil }},
		{"wrong", func() (kernels.Backend, float64, error) {
			return forgetful{cpu.New(cpu.Options{})}, 5e-6, nil
		}},
		{"gone", func() (kernels.Backend, float64, error) { return nil, 0, errors.New("no such device") }},
	}, false)
	if err == nil || !strings.Contains(err.Error(), "wrong: ") || !strings.Contains(err.Error(), "gone: no such device") || strings.Contains(err.Error(), "right:") {
		t.Errorf("%v", err)
	}
	out := b.String()
	for _, want := range []string{"  right        good: ", "  wrong        WRONG: ", "  gone         FAILED: no such device", "  wrong        gated "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if n := strings.Count(out, "\n  wrong "); n != maxFindings+1 {
		t.Errorf("%d lines of a wrong device, want %d", n, maxFindings+1)
	}
}
