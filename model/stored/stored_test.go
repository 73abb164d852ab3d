package stored

import (
	"math"
	"slices"
	"strings"
	"testing"

	"graft/kernels"
)

func TestElements(t *testing.T) {
	for _, c := range []struct {
		shape []int
		n     int
		ok    bool
	}{
		{nil, 1, true}, {[]int{3, 4}, 12, true}, {[]int{0, math.MaxInt, math.MaxInt}, 0, true},
		{[]int{math.MaxInt}, math.MaxInt, true}, {[]int{math.MaxInt, 2}, 0, false}, {[]int{1 << 32, 1 << 32}, 0, false},
		{[]int{-1}, 0, false}, {[]int{0, -1}, 0, false},
	} {
		if n, ok := Elements(c.shape); n != c.n || ok != c.ok {
			t.Errorf("%v: %d, %v, want %d, %v", c.shape, n, ok, c.n, c.ok)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, want := range map[string]string{
		"model.layers.0.self_attn.q_proj.weight": "", "größe <1>": "",
		"": "empty", "a\nb": "unprintable", "\x1b[2J": "unprintable", "\xff": "not UTF-8",
		strings.Repeat("a", maxName): "", strings.Repeat("a", maxName+1): "a name of 1025 bytes",
	} {
		switch err := CheckName(name); {
		case (err == nil) != (want == ""), err != nil && !strings.Contains(err.Error(), want):
			t.Errorf("%.40q: %v, want %q", name, err, want)
		}
	}
}

func TestFloat64s(t *testing.T) {
	v := Tensor{Name: "w", File: "f", DType: kernels.BF16, Shape: []int{2}, Data: []byte{0x80, 0x3f, 0x20, 0xc0}}
	if got, err := v.Float64s(); err != nil || !slices.Equal(got, []float64{1, -2.5}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, c := range []struct {
		t    Tensor
		want string
	}{
		{Tensor{Name: "w", File: "f", DType: kernels.I64}, "f: tensor w: type I64, want F32"},
		{Tensor{Name: "w", File: "f", Foreign: "F8_E4M3"}, "f: tensor w: type F8_E4M3, want F32"},
	} {
		if _, err := c.t.Float64s(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

func TestEqual(t *testing.T) {
	tensor := func(d kernels.DType, n int, last float64) Tensor {
		v := make([]float64, n)
		v[0], v[n-1] = -1.5, last
		data := make([]byte, n*d.Size())
		kernels.EncodeFloat64(data, v, d)
		return Tensor{DType: d, Shape: []int{n}, Data: data}
	}
	foreign := Tensor{Foreign: "U32", Shape: []int{1}, Data: []byte{0, 0, 0, 0}}
	for _, c := range []struct {
		a, b Tensor
		want bool
	}{
		{tensor(kernels.F32, 700, 2), tensor(kernels.F32, 700, 2), true},
		{tensor(kernels.F32, 700, 2), tensor(kernels.F32, 700, 3), false},
		{tensor(kernels.F32, 700, 2), tensor(kernels.BF16, 700, 2), true},
		{tensor(kernels.F32, 700, 2), tensor(kernels.F64, 700, 3), false},
		{tensor(kernels.F32, 700, 2.001), tensor(kernels.BF16, 700, 2.001), false},
		{tensor(kernels.F32, 700, 2), tensor(kernels.BF16, 701, 2), false},
		{foreign, foreign, true},
		{foreign, tensor(kernels.F32, 1, 0), false},
	} {
		if got := c.a.Equal(c.b); got != c.want {
			t.Errorf("%s %v and %s %v: %v, want %v", c.a.Type(), c.a.Shape, c.b.Type(), c.b.Shape, got, c.want)
		}
	}
}
