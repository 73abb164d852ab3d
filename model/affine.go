package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"graft/kernels"
	"graft/model/stored"
)

// MLX stores a quantised matrix [out, in] as three tensors: weight, U32 [out,
// in·bits/32] with the first element in the lowest bits; scales and biases,
// [out, in/group]. An element is scale·q + bias. Kernels want the numbers of a
// block side by side, so the three are brought together when the model is
// opened, in blocks of 32 with a float32 scale and offset each; larger groups
// repeat theirs.

// affineConfig is what config.json says of MLX's quantisation. Bits and group of
// each tensor follow from the shapes.
type affineConfig struct {
	Method string  `json:"quant_method"`
	Mode   *string `json:"mode"`
	Group  int     `json:"group_size"`
	Bits   int     `json:"bits"`
}

// checkQuantization refuses what is not MLX's: other programs' weights lie in the
// same place of config.json.
func (c *hfConfig) checkQuantization() error {
	for _, raw := range []json.RawMessage{c.Quantization, c.QuantizationConfig} {
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var a affineConfig
		if err := json.Unmarshal(raw, &a); err != nil {
			return fmt.Errorf("quantization: %w", err)
		}
		if a.Method != "" || a.Group == 0 || a.Bits == 0 {
			return errors.New("quantization_config: of quantised weights only MLX's are read, in groups of 4 or 8 bits; use the unquantised model")
		}
		if a.Mode != nil && *a.Mode != "affine" {
			return fmt.Errorf("quantization: mode %q is not supported, only affine is", *a.Mode)
		}
	}
	return nil
}

// affine returns the tensor of w from MLX's three; ok is false if w is not
// stored so.
func (m *Model) affine(w Weight, t stored.Tensor) (out stored.Tensor, ok bool, err error) {
	if t.Foreign != "U32" || len(w.Shape) != 2 {
		return t, false, nil
	}
	fail := func(format string, args ...any) (stored.Tensor, bool, error) {
		return t, true, fmt.Errorf("%s: tensor %s: %s", t.File, t.Name, fmt.Sprintf(format, args...))
	}
	module := strings.TrimSuffix(t.Name, "weight")
	scales, haveScales := m.weights.Tensor(module + "scales")
	offsets, haveOffsets := m.weights.Tensor(module + "biases")
	if !haveScales || !haveOffsets {
		return fail("type U32, but there are no %sscales and %sbiases beside it, as MLX has them", module, module)
	}
	rows, cols := w.Shape[0], w.Shape[1]
	bits := 0
	var d kernels.DType
	switch {
	case slices.Equal(t.Shape, []int{rows, cols / 8}):
		bits, d = 4, kernels.Affine4
	case slices.Equal(t.Shape, []int{rows, cols / 4}):
		bits, d = 8, kernels.Affine8
	default:
		return fail("shape %v; for %v it is %v with 4 bits and %v with 8, which are those that are read", t.Shape, w.Shape, []int{rows, cols / 8}, []int{rows, cols / 4})
	}
	if len(t.Data) != rows*cols*bits/8 {
		return fail("%d bytes, want %d", len(t.Data), rows*cols*bits/8)
	}
	groups := 0
	for _, size := range []int{32, 64, 128} {
		if cols%size == 0 && slices.Equal(scales.Shape, []int{rows, cols / size}) {
			groups = cols / size
		}
	}
	if groups == 0 || !slices.Equal(scales.Shape, offsets.Shape) {
		return fail("scales %v and biases %v; want both [%d, %d/n] with groups of n = 32, 64 or 128", scales.Shape, offsets.Shape, rows, cols)
	}
	for _, s := range []stored.Tensor{scales, offsets} {
		if !s.DType.Float() {
			return fail("%s is of type %s, want F16, BF16 or F32", s.Name, s.Type())
		}
	}
	memory, err := kernels.AllocHost(d.Bytes(rows * cols))
	if err != nil {
		return fail("%v", err)
	}
	m.repacked = append(m.repacked, memory)
	fillBlocks(memory[:0], t.Data, scales, offsets, rows, cols, groups, d)
	t.DType, t.Foreign, t.Shape, t.Data = d, "", w.Shape, memory
	return t, true, nil
}

// fillBlocks appends packed numbers, [rows, cols], with the scales and offsets of
// their groups between them.
func fillBlocks(out, packed []byte, scales, offsets stored.Tensor, rows, cols, groups int, d kernels.DType) {
	const size = 32
	numbers := d.Bytes(size) - 8
	scale, offset := make([]float32, groups), make([]float32, groups)
	each := groups * scales.DType.Size()
	eachOffset := groups * offsets.DType.Size()
	for i := range rows {
		kernels.DecodeFloat32(scale, scales.Data[i*each:][:each], scales.DType)
		kernels.DecodeFloat32(offset, offsets.Data[i*eachOffset:][:eachOffset], offsets.DType)
		for b := range cols / size {
			g := b * size * groups / cols
			out = appendFloat(appendFloat(out, scale[g]), offset[g])
			out = append(out, packed[:numbers]...)
			packed = packed[numbers:]
		}
	}
}

func appendFloat(b []byte, f float32) []byte {
	u := math.Float32bits(f)
	return append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
}
