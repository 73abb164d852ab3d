package cpu

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"graft/kernels"
)

// TestPieces goes through incomplete groups, panels and blocks, several blocks of the depth at
// a time, and terms with one piece and with three.
func TestPieces(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	types := []kernels.DType{kernels.F32, kernels.BF16, kernels.F16, kernels.F64}
	for i, s := range [][3]int{{32, 64, 256}, {33, 70, 333}, {35, 200, 1100}, {140, 191, 2200}, {17, 64, 40}, {600, 65, 70}} {
		rows, cols, depth, d := s[0], s[1], s[2], types[i%4]
		op := &kernels.Product{Out: m.f("Out", rows, cols), Terms: []kernels.Term{
			{X: m.f("U", rows, 5), W: m.w(types[(i+1)%4], 5, cols), Transposed: true, Scale: 1.5},
			{X: m.f("X", rows, depth), W: m.w(d, cols, depth), Scale: 1},
		}}
		switch i {
		case 1:
			op.Add, op.Bias = m.f("Add", rows, cols), m.w(d, 1, cols)
		case 2:
			op.Add = op.Out
		}
		check(t, fmt.Sprint("product ", s, d), op, 5e-6)
	}
}
