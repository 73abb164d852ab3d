package kernels

import (
	"reflect"
	"strings"
	"testing"
)

func TestCheckPasses(t *testing.T) {
	ops := wellFormed()
	if len(ops) != len(everyOp()) {
		t.Fatalf("%d kinds, want %d", len(ops), len(everyOp()))
	}
	for kind, op := range ops {
		Check(op)
		if n := testing.AllocsPerRun(10, func() { Check(op) }); n != 0 {
			t.Errorf("%s: %v allocations", kind, n)
		}
	}
}

// freeRows and freeCols are the operands whose size nothing else fixes: tables
// are looked up by row.
var freeRows = map[string]bool{
	"embed.Table": true, "embed_grad.DTable": true, "gather.X": true, "scatter.Out": true,
	"attention.Bounds": true, "attention_grad.Bounds": true, "softmax.Bounds": true, "zero.Out": true, "bias_grad.DY": true,
}
var freeCols = map[string]bool{"zero.Out": true, "clip_norm.Grad": true}

// TestCheckEveryOperand makes each operand of each kind one row larger, one
// column wider, of a wrong type, without memory and with too little of it.
// All of these must be refused, with the name of the kind, but for what is
// free to vary.
func TestCheckEveryOperand(t *testing.T) {
	for kind, op := range wellFormed() {
		tensorFields(reflect.ValueOf(op).Elem(), "", func(field string, p **Tensor) {
			good := *p
			if good == nil { // a term without gradients
				return
			}
			refuse := func(what string, change func(t *Tensor)) {
				bad := *good
				change(&bad)
				*p = &bad
				defer func() { *p = good }()
				t.Run(kind+"/"+field+"/"+what, func(t *testing.T) {
					mustPanic(t, kind+": ", func() { Check(op) })
				})
			}
			if !freeRows[kind+"."+field] {
				refuse("rows", func(t *Tensor) { *t = *sized("t", t.DType, t.Rows+1, t.Cols) })
			}
			if !freeCols[kind+"."+field] {
				refuse("columns", func(t *Tensor) { *t = *sized("t", t.DType, t.Rows, t.Cols+1) })
			}
			refuse("type", func(t *Tensor) { *t = *sized("t", I64, t.Rows, t.Cols) })
			refuse("negative rows", func(t *Tensor) { t.Rows = -1 })
			refuse("negative offset", func(t *Tensor) { t.Off = -4 })
			refuse("no memory", func(t *Tensor) { t.Buf = nil })
			refuse("too little memory", func(t *Tensor) { t.Off++ })
			if good.Rows > 1 {
				refuse("overlapping rows", func(t *Tensor) { t.Stride = t.Cols - 1 })
				refuse("rows too far apart", func(t *Tensor) { t.Stride++ })
			}
		})
	}
}

func TestCheckNumbers(t *testing.T) {
	nan := func() float64 { z := 0.0; return z / z }()
	for _, c := range []struct {
		kind, want string
		change     func(op Op)
	}{
		{"rms_norm", "go together", func(o Op) { o.(*RMSNorm).Sum = nil }},
		{"rms_norm", "go together", func(o Op) { o.(*RMSNorm).Residual = nil }},
		{"rotary", "HeadDim", func(o Op) { o.(*Rotary).HeadDim = 0 }},
		{"rotary", "HeadDim", func(o Op) { o.(*Rotary).HeadDim = 3 }},
		{"rotary", "wider than a head", func(o Op) { o.(*Rotary).HeadDim = 2 }},
		{"rotary", "wider than a head", func(o Op) { o.(*Rotary).Table = f32(6, 3) }},
		{"rotary_table", "F64", func(o Op) { o.(*RotaryTable).Freqs = f32(1, 2) }},
		{"attention", "HeadDim", func(o Op) { o.(*Attention).HeadDim = 0 }},
		{"attention", "key and value heads", func(o Op) { a := o.(*Attention); a.K, a.V = f32(6, 12), f32(6, 12) }},
		{"attention", "key and value heads", func(o Op) { a := o.(*Attention); a.K, a.V = f32(6, 0), f32(6, 0) }},
		{"attention_grad", "HeadDim", func(o Op) { o.(*AttentionGrad).HeadDim = -4 }},
		{"attention", "Bounds", func(o Op) { o.(*Attention).Bounds = column(0) }},
		{"softmax", "Scale", func(o Op) { o.(*Softmax).Scale = 0 }},
		{"softmax", "Scale", func(o Op) { o.(*Softmax).Scale = nan }},
		{"softmax", "no multiple", func(o Op) { s := o.(*Softmax); s.X, s.Out = f32(7, 6), f32(7, 6) }},
		{"gated", "activation", func(o Op) { o.(*Gated).Act = 3 }},
		{"gated_grad", "activation", func(o Op) { o.(*GatedGrad).Act = 3 }},
		{"cross_entropy", "no terms", func(o Op) { o.(*CrossEntropy).Terms = nil }},
		{"dropout", "P must", func(o Op) { o.(*Dropout).P = 1 }},
		{"dropout", "P must", func(o Op) { o.(*Dropout).P = -0.1 }},
		{"dropout", "P must", func(o Op) { o.(*Dropout).P = nan }},
		{"clip_norm", "Divisor", func(o Op) { o.(*ClipNorm).Divisor = 0 }},
		{"clip_norm", "Divisor", func(o Op) { o.(*ClipNorm).Divisor = nan }},
		{"adamw", "Step", func(o Op) { o.(*AdamW).Step = 0 }},
	} {
		op := wellFormed()[c.kind]
		c.change(op)
		mustPanic(t, c.kind, func() { Check(op) })
		mustPanic(t, c.want, func() { Check(op) })
	}
}

type unknownOp struct{ *Zero }

func (unknownOp) Kind() string { return "novelty" }

func TestCheckUnknown(t *testing.T) {
	mustPanic(t, "novelty: unknown operation", func() { Check(unknownOp{&Zero{Out: f32(1, 1)}}) })
}

// TestCheckEmpty runs no rows: nothing needs memory then.
func TestCheckEmpty(t *testing.T) {
	empty := &Tensor{Name: "nothing", DType: F32, Cols: 8, Stride: 8}
	Check(&Sum{A: empty, B: empty, Out: empty})
	if !strings.Contains(empty.String(), "nothing F32 [0, 8]") {
		t.Errorf("%v", empty)
	}
}
