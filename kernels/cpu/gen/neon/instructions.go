package main

import "fmt"

// instruction is one that Go's assembler lacks: its word but for the
// registers, and how Arm writes it.
type instruction struct {
	word uint32
	text string
}

// Three registers.
var (
	fadd   = instruction{0x4e20d400, "FADD %v.4S, %v.4S, %v.4S"}
	fsub   = instruction{0x4ea0d400, "FSUB %v.4S, %v.4S, %v.4S"}
	fmul   = instruction{0x6e20dc00, "FMUL %v.4S, %v.4S, %v.4S"}
	fdiv   = instruction{0x6e20fc00, "FDIV %v.4S, %v.4S, %v.4S"}
	fmax   = instruction{0x4e20f400, "FMAX %v.4S, %v.4S, %v.4S"}
	fmin   = instruction{0x4ea0f400, "FMIN %v.4S, %v.4S, %v.4S"}
	fmaxnm = instruction{0x4e20c400, "FMAXNM %v.4S, %v.4S, %v.4S"}
	fcmgt  = instruction{0x6ea0e400, "FCMGT %v.4S, %v.4S, %v.4S"}
	cmhs   = instruction{0x6ea03c00, "CMHS %v.4S, %v.4S, %v.4S"}
	umull  = instruction{0x2ea0c000, "UMULL %v.2D, %v.2S, %v.2S"}
	umull2 = instruction{0x6ea0c000, "UMULL2 %v.2D, %v.4S, %v.4S"}
	fadd2d = instruction{0x4e60d400, "FADD %v.2D, %v.2D, %v.2D"}
)

// Two registers.
var (
	fsqrt    = instruction{0x6ea1f800, "FSQRT %v.4S, %v.4S"}
	fabs     = instruction{0x4ea0f800, "FABS %v.4S, %v.4S"}
	fneg     = instruction{0x6ea0f800, "FNEG %v.4S, %v.4S"}
	cmlt     = instruction{0x4ea0a800, "CMLT %v.4S, %v.4S, #0"}
	fcvtl    = instruction{0x0e217800, "FCVTL %v.4S, %v.4H"}
	fcvtl2   = instruction{0x4e217800, "FCVTL2 %v.4S, %v.8H"}
	fcvtl2d  = instruction{0x0e617800, "FCVTL %v.2D, %v.2S"}
	fcvtl22d = instruction{0x4e617800, "FCVTL2 %v.2D, %v.4S"}
	shll     = instruction{0x2e613800, "SHLL %v.4S, %v.4H, #16"}
	shll2    = instruction{0x6e613800, "SHLL2 %v.4S, %v.8H, #16"}
	scvtf    = instruction{0x4e21d800, "SCVTF %v.4S, %v.4S"}
	sxtl8    = instruction{0x0f08a400, "SXTL %v.8H, %v.8B"}
	sxtl28   = instruction{0x4f08a400, "SXTL2 %v.8H, %v.16B"}
	sxtl16   = instruction{0x0f10a400, "SXTL %v.4S, %v.4H"}
	sxtl216  = instruction{0x4f10a400, "SXTL2 %v.4S, %v.8H"}
	uxtl8    = instruction{0x2f08a400, "UXTL %v.8H, %v.8B"}
	uxtl28   = instruction{0x6f08a400, "UXTL2 %v.8H, %v.16B"}
	uxtl16   = instruction{0x2f10a400, "UXTL %v.4S, %v.4H"}
	uxtl216  = instruction{0x6f10a400, "UXTL2 %v.4S, %v.8H"}
	faddp    = instruction{0x7e30d800, "FADDP %s, %v.2S"}
	faddp2d  = instruction{0x7e70d800, "FADDP %d, %v.2D"}
	fmaxnmv  = instruction{0x6e30c800, "FMAXNMV %s, %v.4S"}
)

// By element of the last register.
var fmlaElement = instruction{0x4f801000, "FMLA %v.4S, %v.4S, %v.S[%d]"}

// emit adds an instruction with a destination and one or two sources.
func (f *function) emit(op instruction, d *vec, sources ...*vec) {
	args := []any{d}
	for _, v := range sources {
		args = append(args, v)
	}
	f.words(args, func() string {
		w := op.word | uint32(d.number)
		for i, v := range sources {
			w |= uint32(v.number) << (5 + 11*i)
		}
		return op.line(w, args...)
	})
}

// byElement adds d += n·m[e].
func (f *function) byElement(op instruction, d, n, m *vec, e int) {
	args := []any{d, n, m}
	f.words(args, func() string {
		w := op.word | uint32(d.number) | uint32(n.number)<<5 | uint32(m.number)<<16
		return op.line(w|uint32(e&1)<<21|uint32(e>>1)<<11, d, n, m, e)
	})
}

func (op instruction) line(w uint32, args ...any) string {
	return fmt.Sprintf("WORD $0x%08x // ", w) + fmt.Sprintf(op.text, args...)
}

func (f *function) words(args []any, encode func() string) {
	last := len(f.stretches) - 1
	f.stretches[last] = append(f.stretches[last], line{args: args, encode: encode})
}
