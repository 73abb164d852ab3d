package profile

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"graft/kernels"
	"graft/program"
)

func tensor(rows, cols int) *kernels.Tensor {
	return &kernels.Tensor{DType: kernels.F32, Rows: rows, Cols: cols, Stride: cols}
}

// recorded is a profile of two layers' products and an update.
func recorded() (*Profile, *Recorder) {
	x, w, y := tensor(10, 20), tensor(30, 20), tensor(10, 30)
	product := &kernels.Product{Terms: []kernels.Term{{X: x, W: w, Scale: 1}}, Out: y}
	grad := &kernels.WeightGrad{DY: y, X: x, DW: w, Scale: 1}
	embed := &kernels.Embed{Tokens: &kernels.Tensor{DType: kernels.I32, Rows: 10, Cols: 1, Stride: 1}, Table: tensor(1000, 20), Out: x}
	p := New()
	r := p.Recorder([]kernels.Op{embed, product, product, grad}, []program.Label{
		{Module: "model.embed_tokens", Layer: -1, Pass: program.Forward},
		{Module: "model.layers.0.mlp.up_proj", Layer: 0, Pass: program.Forward},
		{Module: "model.layers.11.mlp.up_proj", Layer: 11, Pass: program.Forward},
		{Module: "model.layers.11.mlp.up_proj", Layer: 11, Pass: program.Backward},
	})
	for range 2 {
		r.Begin()
		for i, ms := range []int{1, 10, 20, 40} {
			r.Clock(i, time.Duration(ms)*time.Millisecond)
		}
	}
	return p, r
}

func TestSums(t *testing.T) {
	p, r := recorded()
	if f, b := r.Passes(program.Forward), r.Passes(program.Backward); f != 31*time.Millisecond || b != 40*time.Millisecond {
		t.Errorf("since Begin: forward %v, backward %v", f, b)
	}
	kinds := Group(p.Rows(), ByKind)
	if len(kinds) != 3 || kinds[0].Kind != "weight_grad" || kinds[1].Kind != "product" {
		t.Fatalf("kinds %+v", kinds)
	}
	product := kinds[1]
	if product.Calls != 4 || math.Abs(product.Seconds-0.06) > 1e-12 || product.FLOPs != 4*2*10*20*30 || product.Bytes != 4*4*(200+600+300) {
		t.Errorf("products %+v", product)
	}
	if grad := kinds[0]; grad.Bytes != 2*4*(200+300+2*600) { // DW is read and written
		t.Errorf("weight gradients %+v", grad)
	}
	if embed := kinds[2]; embed.Bytes != 2*4*(10+200+200) { // only the rows looked up
		t.Errorf("embedding %+v", embed)
	}
	modules := Group(p.Rows(), ByModule)
	if len(modules) != 2 || modules[0].Module != "mlp.up_proj" || modules[0].Calls != 6 {
		t.Errorf("modules %+v", modules)
	}
	if layers := Group(p.Rows(), ByLayer); len(layers) != 3 || layers[0].Layer != 11 {
		t.Errorf("layers %+v", layers)
	}
	if passes := Group(p.Rows(), ByPass); len(passes) != 2 {
		t.Errorf("passes %+v", passes)
	}
}

func TestShare(t *testing.T) {
	peaks := Peaks{FLOPs: 100, Bytes: 10}
	for _, c := range []struct {
		r    Row
		want float64
	}{
		{Row{Seconds: 1, FLOPs: 50, Bytes: 1}, 0.5}, {Row{Seconds: 2, FLOPs: 1, Bytes: 10}, 0.5}, {Row{}, 0},
	} {
		if got := c.r.Share(peaks); got != c.want {
			t.Errorf("%+v: %v, want %v", c.r, got, c.want)
		}
	}
	p, _ := recorded()
	if !p.Exceeds(Peaks{FLOPs: 1, Bytes: 1}) || p.Exceeds(Peaks{FLOPs: 1e12, Bytes: 1}) || p.Exceeds(Peaks{}) {
		t.Error("Exceeds")
	}
}

func TestTable(t *testing.T) {
	p, _ := recorded()
	for _, peaks := range []Peaks{{FLOPs: 1e9, Bytes: 1e9}, {}} {
		var b strings.Builder
		if err := p.Table(&b, peaks); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"weight_grad                       2       80.0    40000.0  56.3%", "mlp.up_proj", "backward", "outside"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, &b)
			}
		}
		if strings.Contains(b.String(), "of peak") != (peaks.FLOPs > 0) {
			t.Errorf("peaks %v:\n%s", peaks, &b)
		}
	}
	var b strings.Builder
	if err := p.JSON(&b, Peaks{FLOPs: 2, Bytes: 3}); err != nil {
		t.Fatal(err)
	}
	var back struct {
		Peaks Peaks
		Rows  []Row
	}
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil || back.Peaks.Bytes != 3 || len(back.Rows) != 4 || back.Rows[2].Layer != 11 {
		t.Errorf("%+v, %v", back, err)
	}
}

// machine is a backend whose limits are what the test says.
type machine struct {
	kernels.Backend
	peaks Peaks
	asked int
}

func (m *machine) Info() kernels.Info         { return kernels.Info{Name: "test"} }
func (m *machine) Peaks() (flops, bs float64) { m.asked++; return m.peaks.FLOPs, m.peaks.Bytes }

func TestMeasure(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "deep", "peaks.json")
	m := &machine{peaks: Peaks{10, 20}}
	for range 3 {
		if p := Measure(m, cache); p != m.peaks {
			t.Errorf("%+v", p)
		}
	}
	if m.asked != 1 {
		t.Errorf("measured %d times", m.asked)
	}
	m.peaks = Peaks{30, 5}
	if p := Again(m, cache); p != (Peaks{30, 20}) {
		t.Errorf("again: %+v", p)
	}
	if p := Measure(m, cache); p != (Peaks{30, 20}) || m.asked != 2 {
		t.Errorf("kept: %+v, measured %d times", p, m.asked)
	}
	for _, damaged := range []string{"", "null", "{", `{"x":[]}`} {
		if err := os.WriteFile(cache, []byte(damaged), 0o644); err != nil {
			t.Fatal(err)
		}
		if p := Measure(m, cache); p != m.peaks {
			t.Errorf("cache %q: %+v", damaged, p)
		}
	}
	if p := Measure(m, ""); p != m.peaks {
		t.Errorf("no cache: %+v", p)
	}
	if p := Measure(struct{ kernels.Backend }{}, cache); p != (Peaks{}) {
		t.Errorf("a backend that cannot measure: %+v", p)
	}
}
