package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestInstructions compares words with those of LLVM's assembler (llvm-mc
// -triple=aarch64 -show-encoding).
func TestInstructions(t *testing.T) {
	for _, c := range []struct {
		op   instruction
		want string
	}{
		{fadd, "WORD $0x4e3fd641 // FADD V1.4S, V18.4S, V31.4S"},
		{fsub, "WORD $0x4ebfd641 // FSUB V1.4S, V18.4S, V31.4S"},
		{fmul, "WORD $0x6e3fde41 // FMUL V1.4S, V18.4S, V31.4S"},
		{fdiv, "WORD $0x6e3ffe41 // FDIV V1.4S, V18.4S, V31.4S"},
		{fmax, "WORD $0x4e3ff641 // FMAX V1.4S, V18.4S, V31.4S"},
		{fmin, "WORD $0x4ebff641 // FMIN V1.4S, V18.4S, V31.4S"},
		{fmaxnm, "WORD $0x4e3fc641 // FMAXNM V1.4S, V18.4S, V31.4S"},
		{fcmgt, "WORD $0x6ebfe641 // FCMGT V1.4S, V18.4S, V31.4S"},
		{cmhs, "WORD $0x6ebf3e41 // CMHS V1.4S, V18.4S, V31.4S"},
		{umull, "WORD $0x2ebfc241 // UMULL V1.2D, V18.2S, V31.2S"},
		{umull2, "WORD $0x6ebfc241 // UMULL2 V1.2D, V18.4S, V31.4S"},
		{fadd2d, "WORD $0x4e7fd641 // FADD V1.2D, V18.2D, V31.2D"},
		{fsqrt, "WORD $0x6ea1fa41 // FSQRT V1.4S, V18.4S"},
		{fabs, "WORD $0x4ea0fa41 // FABS V1.4S, V18.4S"},
		{fneg, "WORD $0x6ea0fa41 // FNEG V1.4S, V18.4S"},
		{cmlt, "WORD $0x4ea0aa41 // CMLT V1.4S, V18.4S, #0"},
		{fcvtl, "WORD $0x0e217a41 // FCVTL V1.4S, V18.4H"},
		{fcvtl2, "WORD $0x4e217a41 // FCVTL2 V1.4S, V18.8H"},
		{fcvtl2d, "WORD $0x0e617a41 // FCVTL V1.2D, V18.2S"},
		{fcvtl22d, "WORD $0x4e617a41 // FCVTL2 V1.2D, V18.4S"},
		{shll, "WORD $0x2e613a41 // SHLL V1.4S, V18.4H, #16"},
		{shll2, "WORD $0x6e613a41 // SHLL2 V1.4S, V18.8H, #16"},
		{scvtf, "WORD $0x4e21da41 // SCVTF V1.4S, V18.4S"},
		{sxtl8, "WORD $0x0f08a641 // SXTL V1.8H, V18.8B"},
		{sxtl28, "WORD $0x4f08a641 // SXTL2 V1.8H, V18.16B"},
		{sxtl16, "WORD $0x0f10a641 // SXTL V1.4S, V18.4H"},
		{sxtl216, "WORD $0x4f10a641 // SXTL2 V1.4S, V18.8H"},
		{uxtl8, "WORD $0x2f08a641 // UXTL V1.8H, V18.8B"},
		{uxtl28, "WORD $0x6f08a641 // UXTL2 V1.8H, V18.16B"},
		{uxtl16, "WORD $0x2f10a641 // UXTL V1.4S, V18.4H"},
		{uxtl216, "WORD $0x6f10a641 // UXTL2 V1.4S, V18.8H"},
		{faddp, "WORD $0x7e30da41 // FADDP S1, V18.2S"},
		{faddp2d, "WORD $0x7e70da41 // FADDP D1, V18.2D"},
		{fmaxnmv, "WORD $0x6e30ca41 // FMAXNMV S1, V18.4S"},
		{fmlaElement, "WORD $0x4fbf1a41 // FMLA V1.4S, V18.4S, V31.S[3]"},
	} {
		a := &assembly{}
		f := a.function("f", "func()", "is a test.")
		v := lanes{{f: f, number: 1, pinned: true}, {f: f, number: 18, pinned: true}, {f: f, number: 31, pinned: true}}
		if strings.Contains(c.op.text, "[") {
			f.byElement(c.op, v[0], v[1], v[2], 3)
		} else {
			f.emit(c.op, v[0], v[1:strings.Count(c.op.text, "%")]...)
		}
		if f.end(); !strings.Contains(a.text(), "\t"+c.want+"\n") {
			t.Errorf("want %s in%s", c.want, a.text())
		}
	}
}

// TestRegisters: a register is free after the last line that names its vector,
// pinned ones never are, and too many at a time are an error.
func TestRegisters(t *testing.T) {
	f := (&assembly{}).function("f", "func()", "is a test.")
	f.zeros(29)
	x := f.locals(3)
	for range 10 { // one dies in every line, so that three do
		x = lanes{x[1], x[2], x[:1].with(fadd, x[1:2])[0]}
	}
	f.end()
	for _, v := range x {
		if v.number < 29 {
			t.Errorf("a local in pinned register %d", v.number)
		}
	}

	defer func() {
		if recover() == nil {
			t.Error("33 registers")
		}
	}()
	f = (&assembly{}).function("f", "func()", "is a test.")
	x = f.copies(33, 1)
	x.plus(x)
	f.end()
}

// TestStretches: a label ends what is known of registers.
func TestStretches(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a local lived through a label")
		}
	}()
	f := (&assembly{}).function("f", "func()", "is a test.")
	x := f.copies(1, 1)
	f.label("next")
	x.plus(x)
	f.end()
}

// TestParameters lays them out as the Go compiler does, which go vet compares
// for the kernels there are.
func TestParameters(t *testing.T) {
	f := (&assembly{}).function("f", "func(a bool, b float32, c []float32, d uint32, e *byte, g bool) float64", "is a test.")
	got := fmt.Sprintln(f.place("a"), f.place("b"), f.place("c_base"), f.place("c_len"), f.place("d"), f.place("e"), f.place("g"), f.place("ret"), f.frame)
	if want := "a+0(FP) b+4(FP) c_base+8(FP) c_len+16(FP) d+32(FP) e+40(FP) g+48(FP) ret+56(FP) 64"; got != want+"\n" {
		t.Errorf("got %s, want %s", got, want)
	}
}
