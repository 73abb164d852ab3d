package kernels

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
)

// everyOp returns one empty operation of each kind, with two terms where there
// are terms.
func everyOp() []Op {
	return []Op{
		&Embed{}, &EmbedGrad{}, &RMSNorm{}, &RMSNormGrad{}, &Product{Terms: make([]Term, 2)}, &WeightGrad{}, &BiasGrad{},
		&RotaryTable{}, &Rotary{}, &Attention{}, &AttentionGrad{}, &Softmax{}, &SoftmaxGrad{}, &Gated{}, &GatedGrad{}, &Gather{}, &Scatter{},
		&CrossEntropy{Terms: make([]HeadTerm, 2)}, &Sum{}, &Dropout{}, &Zero{}, &ClipNorm{}, &AdamW{},
	}
}

// TestEveryOp keeps everyOp complete: it must have every type that package
// kernels gives a Kind.
func TestEveryOp(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "cost.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	types, kinds := map[string]bool{}, map[string]bool{}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Name.Name == "Kind" {
			types[f.Recv.List[0].Type.(*ast.StarExpr).X.(*ast.Ident).Name] = true
		}
	}
	for _, op := range everyOp() {
		name := reflect.TypeOf(op).Elem().Name()
		if !types[name] {
			t.Errorf("%s has no Kind in cost.go, or comes twice", name)
		}
		delete(types, name)
		if want := strings.ReplaceAll(strings.ToLower(name), "_", ""); strings.ReplaceAll(op.Kind(), "_", "") != want || kinds[op.Kind()] {
			t.Errorf("%s is of kind %q", name, op.Kind())
		}
		kinds[op.Kind()] = true
	}
	if len(types) > 0 {
		t.Errorf("not in everyOp: %v", types)
	}
}

// tensorFields calls f with the name and address of every *Tensor in v.
func tensorFields(v reflect.Value, name string, f func(name string, t **Tensor)) {
	switch {
	case v.Type() == reflect.TypeFor[*Tensor]():
		f(name, v.Addr().Interface().(**Tensor))
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			tensorFields(v.Field(i), v.Type().Field(i).Name, f)
		}
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			tensorFields(v.Index(i), name, f)
		}
	}
}

// fill gives every *Tensor field its own tensor, named after the field.
func fill(op Op) (fields map[**Tensor]string) {
	fields = map[**Tensor]string{}
	tensorFields(reflect.ValueOf(op).Elem(), "", func(name string, t **Tensor) {
		*t = &Tensor{Name: name, DType: F32, Rows: 1, Cols: 1, Stride: 1, Buf: make(Host, 4)}
		fields[t] = name
	})
	return fields
}

// written says which fields of each type are outputs.
var written = map[string]string{
	"Embed": "Out", "EmbedGrad": "+DTable", "RMSNorm": "Sum Out InvRMS", "RMSNormGrad": "DX Out +DWeight", "Product": "Out",
	"WeightGrad": "+DW", "BiasGrad": "+DBias", "RotaryTable": "Out", "Rotary": "Out", "Attention": "Out LSE", "Softmax": "Out", "SoftmaxGrad": "DX",
	"AttentionGrad": "DQ DK DV", "Gated": "Out", "GatedGrad": "DGate DUp Out", "Gather": "Out", "Scatter": "Out",
	"CrossEntropy": "Loss DX +DW", "Sum": "Out", "Dropout": "Out", "Zero": "Out", "ClipNorm": "Out", "AdamW": "+P +M +V",
}

func accessOf(typeName, field string) Access {
	for _, w := range strings.Fields(written[typeName]) {
		switch w {
		case field:
			return Write
		case "+" + field:
			return Update
		}
	}
	return Read
}

func TestOperands(t *testing.T) {
	for _, op := range everyOp() {
		name := reflect.TypeOf(op).Elem().Name()
		op.Operands(func(p **Tensor, _ Access) { t.Errorf("%s: an absent operand is visited", name) })
		fields := fill(op)
		outputs := false
		op.Operands(func(p **Tensor, a Access) {
			field, ok := fields[p]
			if !ok {
				t.Errorf("%s: %v is visited twice, or is no field", name, *p)
			}
			delete(fields, p)
			if want := accessOf(name, field); a != want {
				t.Errorf("%s: access to %s is %d, want %d", name, field, a, want)
			}
			if a != Read {
				outputs = true
			} else if outputs {
				t.Errorf("%s: input %s comes after an output", name, field)
			}
		})
		for _, field := range fields {
			t.Errorf("%s: %s is not visited", name, field)
		}
	}
}

// TestClone replaces all operands of a copy and expects the original to keep
// its own.
func TestClone(t *testing.T) {
	for _, op := range everyOp() {
		name := reflect.TypeOf(op).Elem().Name()
		fill(op)
		v := reflect.ValueOf(op).Elem()
		for i := range v.NumField() {
			switch f := v.Field(i); f.Kind() {
			case reflect.Float64:
				f.SetFloat(float64(i) + 0.5)
			case reflect.Int:
				f.SetInt(int64(i) + 1)
			}
		}
		c := op.Clone()
		if !reflect.DeepEqual(op, c) {
			t.Errorf("%s: a clone differs", name)
		}
		c.Operands(func(p **Tensor, _ Access) { *p = nil })
		tensorFields(v, "", func(field string, p **Tensor) {
			if *p == nil {
				t.Errorf("%s: a clone shares %s", name, field)
			}
		})
	}
}

// TestInPlace expects the pairs to be operands: an output, then an input.
func TestInPlace(t *testing.T) {
	for _, op := range everyOp() {
		InPlace(op, func(out, in *Tensor) {
			if out != nil && in != nil {
				t.Errorf("%s: operands from nowhere", op.Kind())
			}
		})
		fill(op)
		access := map[*Tensor]Access{}
		op.Operands(func(p **Tensor, a Access) { access[*p] = a })
		seen := map[[2]*Tensor]bool{}
		InPlace(op, func(out, in *Tensor) {
			a, known := access[out]
			b, alsoKnown := access[in]
			if !known || !alsoKnown || a != Write || b != Read {
				t.Errorf("%s: %v in the place of %v", op.Kind(), out, in)
			}
			if seen[[2]*Tensor{out, in}] {
				t.Errorf("%s: %v in the place of %v, twice", op.Kind(), out, in)
			}
			seen[[2]*Tensor{out, in}] = true
		})
	}
}

// sized makes a tensor with memory.
func sized(name string, d DType, rows, cols int) *Tensor {
	return &Tensor{Name: name, DType: d, Rows: rows, Cols: cols, Stride: cols, Buf: make(Host, rows*cols*d.Size())}
}

func f32(rows, cols int) *Tensor { return sized("t", F32, rows, cols) }
func column(rows int) *Tensor    { return sized("indices", I32, rows, 1) }

// wellFormed returns a well-formed operation of each kind with all optional
// operands: 6 tokens, 3 loss rows.
func wellFormed() map[string]Op {
	shape := AttentionShape{HeadDim: 4, Scale: 0.5, Pairs: 21}
	ops := map[string]Op{}
	for _, op := range []Op{
		&Embed{Tokens: column(6), Table: sized("table", BF16, 10, 8), Out: f32(6, 8)},
		&EmbedGrad{Tokens: column(6), DOut: f32(6, 8), DTable: f32(10, 8)},
		&RMSNorm{X: f32(6, 8), Residual: f32(6, 8), Weight: sized("weight", F16, 1, 4), Sum: f32(6, 8), Out: f32(6, 8), InvRMS: f32(6, 2)},
		&RMSNormGrad{X: f32(6, 8), InvRMS: f32(6, 2), Weight: f32(1, 4), DOut: f32(6, 8), Add: f32(6, 8), DX: f32(6, 8), Out: f32(6, 8), DWeight: f32(1, 4)},
		&Product{Terms: []Term{{X: f32(6, 8), W: sized("w", BF16, 5, 8)}, {X: f32(6, 2), W: f32(2, 5), Transposed: true}},
			Bias: f32(1, 5), Add: f32(6, 5), Out: f32(6, 5)},
		&WeightGrad{DY: f32(6, 5), X: f32(6, 8), DW: f32(5, 8)},
		&BiasGrad{DY: f32(6, 5), DBias: f32(1, 5)},
		&RotaryTable{Positions: column(6), Freqs: sized("freqs", F64, 1, 2), Out: f32(6, 4)},
		&Rotary{X: f32(6, 8), Table: f32(6, 4), Out: f32(6, 8), HeadDim: 4},
		&Attention{Q: f32(6, 8), K: f32(6, 4), V: f32(6, 4), Bounds: column(3), Out: f32(6, 8), LSE: f32(6, 2), AttentionShape: shape},
		&AttentionGrad{Q: f32(6, 8), K: f32(6, 4), V: f32(6, 4), Bounds: column(3), Out: f32(6, 8), LSE: f32(6, 2),
			DOut: f32(6, 8), DQ: f32(6, 8), DK: f32(6, 4), DV: f32(6, 4), AttentionShape: shape},
		&Softmax{X: f32(12, 6), Bounds: column(3), Out: f32(12, 6), Scale: 1},
		&SoftmaxGrad{Out: f32(12, 6), DOut: f32(12, 6), DX: f32(12, 6), Scale: 1},
		&Gated{Gate: f32(6, 8), Up: f32(6, 8), Out: f32(6, 8)},
		&GatedGrad{Gate: f32(6, 8), Up: f32(6, 8), DOut: f32(6, 8), DGate: f32(6, 8), DUp: f32(6, 8), Out: f32(6, 8)},
		&Gather{Rows: column(3), X: f32(6, 8), Out: f32(3, 8)},
		&Scatter{Rows: column(3), X: f32(3, 8), Out: f32(6, 8)},
		&CrossEntropy{Terms: []HeadTerm{{X: f32(3, 8), W: sized("w", F16, 10, 8), DX: f32(3, 8), DW: f32(10, 8)}, {X: f32(3, 2), W: f32(10, 2)}},
			Targets: column(3), Loss: f32(3, 1), LogitScale: 1},
		&Sum{A: f32(6, 8), B: f32(6, 8), Out: f32(6, 8)},
		&Dropout{X: f32(6, 8), Out: f32(6, 8), P: 0.5},
		&Zero{Out: f32(6, 8)},
		&ClipNorm{Grad: f32(1, 9), Out: f32(1, 2), Divisor: 1},
		&AdamW{Grad: f32(1, 9), Clip: f32(1, 2), P: f32(1, 9), M: f32(1, 9), V: f32(1, 9), Step: 1},
	} {
		ops[op.Kind()] = op
	}
	return ops
}

func TestCost(t *testing.T) {
	const f = 4.0 // bytes of F32, and of I32
	for kind, want := range map[string]struct{ flops, bytes float64 }{
		"embed":          {0, f*6 + 2*48 + f*48}, // the rows that are read, in BF16
		"embed_grad":     {48, f*6 + f*48 + 2*f*48},
		"rms_norm":       {4 * 48, f*2*48 + 2*4 + f*(2*48+12)},
		"rms_norm_grad":  {8 * 48, f*(48+12+4+48+48) + f*2*48 + 2*f*4},
		"product":        {2 * 6 * 5 * (8 + 2), f*48 + 2*40 + f*(12+10) + f*(5+30+30)},
		"weight_grad":    {2 * 6 * 5 * 8, f*(30+48) + 2*f*40},
		"bias_grad":      {30, f*30 + 2*f*5},
		"rotary_table":   {2 * 24, f*6 + 8*2 + f*24},
		"rotary":         {3 * 48, f * (48 + 24 + 48)},
		"attention":      {2 * 2 * 2 * 21 * 4, f * (48 + 24 + 24 + 3 + 48 + 12)}, // 2 products, 2 heads of 4
		"attention_grad": {5 * 2 * 2 * 21 * 4, f * (48 + 24 + 24 + 3 + 48 + 12 + 48 + 48 + 24 + 24)},
		"gated":          {5 * 48, f * 3 * 48},
		"gated_grad":     {10 * 48, f * 6 * 48},
		"gather":         {0, f * (3 + 24 + 24)},
		"scatter":        {0, f * (3 + 24 + 48)},
		"cross_entropy":  {3*2*3*8*10 + 2*3*2*10, f*24 + 2*80 + f*(6+20) + f*(3+3) + f*24 + 2*f*80},
		"sum":            {48, f * 3 * 48},
		"dropout":        {48, f * 2 * 48},
		"zero":           {0, f * 48},
		"clip_norm":      {18, f * (9 + 2)},
		"adamw":          {14 * 9, f*(9+2) + 2*f*27},
	} {
		op := wellFormed()[kind]
		if got := op.FLOPs(); got != want.flops {
			t.Errorf("%s: %v FLOPs, want %v", kind, got, want.flops)
		}
		if got := Traffic(op); got != want.bytes {
			t.Errorf("%s: %v bytes, want %v", kind, got, want.bytes)
		}
	}
}
