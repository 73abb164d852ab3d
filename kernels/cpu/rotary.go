package cpu

import (
	"encoding/binary"
	"math"

	"graft/kernels"
)

// rotaryTable rounds angles to float32, as the operation says, and computes
// their sines and cosines in float64.
type rotaryTable struct {
	positions []int32
	freqs     []byte // F64
	out       matrix
	scale     float64
}

const tableRows = 16

func (b *Backend) rotaryTable(o *kernels.RotaryTable) {
	b.table = rotaryTable{indices(o.Positions), weightsOf(o.Freqs).data, view(o.Out), o.Scale}
	tasks := ceil(o.Out.Rows, tableRows)
	if o.Out.Len() < 512 {
		b.pool.inline(&b.table, tasks)
		return
	}
	b.pool.run(&b.table, tasks)
}

func (r *rotaryTable) do(_ *worker, task int) {
	half := r.out.cols / 2
	for t := task * tableRows; t < min((task+1)*tableRows, r.out.rows); t++ {
		out, position := r.out.row(t), float32(r.positions[t])
		for i := range half {
			freq := math.Float64frombits(binary.LittleEndian.Uint64(r.freqs[8*i:]))
			sin, cos := math.Sincos(float64(position * float32(freq)))
			out[i], out[half+i] = float32(r.scale*float64(float32(cos))), float32(r.scale*float64(float32(sin)))
		}
	}
}

// rotary turns the heads of a range of rows per task.
type rotary struct {
	v              *vectors
	x, table, out  matrix
	headDim        int
	inverse, apart bool // apart: out is not x itself
}

func (b *Backend) rotate(o *kernels.Rotary) {
	if o.X.Len() == 0 {
		return
	}
	b.rotary = rotary{b.v, view(o.X), view(o.Table), view(o.Out), o.HeadDim, o.Inverse, !sameMemory(o.X, o.Out)}
	b.share(&b.rotary, o.X)
}

func (r *rotary) do(_ *worker, task int) {
	per := rowsPerTask(r.x.cols)
	turn := r.v.rotate
	if r.inverse {
		turn = r.v.unrotate
	}
	half := r.table.cols / 2
	for t := task * per; t < min((task+1)*per, r.x.rows); t++ {
		table := r.table.row(t)
		x, out := r.x.row(t), r.out.row(t)
		for at := 0; at < len(x); at += r.headDim {
			xh, oh := x[at:][:r.headDim], out[at:][:r.headDim]
			turn(oh[:half], oh[half:2*half], xh[:half], xh[half:2*half], table[:half], table[half:])
			if r.apart {
				copy(oh[2*half:], xh[2*half:])
			}
		}
	}
}
