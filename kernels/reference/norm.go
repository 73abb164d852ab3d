package reference

import (
	"math"

	"graft/kernels"
	"graft/kernels/random"
)

func rmsNorm(o *kernels.RMSNorm) {
	x, out, inv, weight := at(o.X), at(o.Out), at(o.InvRMS), decoded(o.Weight).row(0)
	width := len(weight)
	for t := range o.X.Rows {
		s := append([]float64(nil), x.row(t)...)
		if o.Residual != nil {
			axpy(1, at(o.Residual).row(t), s)
			copy(at(o.Sum).row(t), s)
		}
		for g := range o.InvRMS.Cols {
			group := s[g*width:][:width]
			r := 1 / math.Sqrt(dot(group, group)/float64(width)+o.Eps)
			inv.row(t)[g] = r
			for j, v := range group {
				out.row(t)[g*width+j] = v * r * (weight[j] + o.Offset)
			}
		}
	}
}

func rmsNormGrad(o *kernels.RMSNormGrad) {
	x, inv, dout, dx, weight := at(o.X), at(o.InvRMS), at(o.DOut), at(o.DX), decoded(o.Weight).row(0)
	width := len(weight)
	hat, g := make([]float64, width), make([]float64, width)
	for t := range o.X.Rows {
		for i := range o.InvRMS.Cols {
			r, from := inv.row(t)[i], i*width
			d := dout.row(t)[from:][:width]
			for j := range width {
				hat[j] = x.row(t)[from+j] * r
				g[j] = d[j] * (weight[j] + o.Offset)
			}
			if o.DWeight != nil {
				for j := range width {
					at(o.DWeight).row(0)[j] += d[j] * hat[j]
				}
			}
			mean := dot(g, hat) / float64(width)
			for j := range width {
				v := r * (g[j] - hat[j]*mean)
				if o.Add != nil {
					v += at(o.Add).row(t)[from+j]
				}
				dx.row(t)[from+j] = v
				if o.Out != nil {
					at(o.Out).row(t)[from+j] = hat[j] * (weight[j] + o.Offset)
				}
			}
		}
	}
}

func rotaryTable(o *kernels.RotaryTable) {
	freqs, out := decoded(o.Freqs).row(0), at(o.Out)
	for t, p := range indices(o.Positions) {
		for i, f := range freqs {
			angle := float64(float32(p) * float32(f))
			out.row(t)[i] = o.Scale * float64(float32(math.Cos(angle)))
			out.row(t)[len(freqs)+i] = o.Scale * float64(float32(math.Sin(angle)))
		}
	}
}

func rotary(o *kernels.Rotary) {
	x, table, out := at(o.X), at(o.Table), at(o.Out)
	half := o.Table.Cols / 2
	sign := 1.0
	if o.Inverse {
		sign = -1
	}
	for t := range o.X.Rows {
		cos, sin := table.row(t)[:half], table.row(t)[half:]
		for h := 0; h < o.X.Cols; h += o.HeadDim {
			from, to := x.row(t)[h:][:o.HeadDim], out.row(t)[h:][:o.HeadDim]
			copy(to[2*half:], from[2*half:])
			for i := range half {
				a, b := from[i], from[half+i]
				to[i] = a*cos[i] - sign*b*sin[i]
				to[half+i] = b*cos[i] + sign*a*sin[i]
			}
		}
	}
}

// activation returns act(x) and its derivative.
func activation(act kernels.Act, x float64) (y, dy float64) {
	switch act {
	case kernels.SiLU:
		s := 1 / (1 + math.Exp(-x))
		return x * s, s * (1 + x*(1-s))
	case kernels.GELU:
		cdf := 0.5 * math.Erfc(-x/math.Sqrt2)
		return x * cdf, cdf + x*math.Exp(-x*x/2)/math.Sqrt(2*math.Pi)
	case kernels.GELUTanh:
		const c = 0.044715
		k := math.Sqrt(2 / math.Pi)
		th := math.Tanh(k * (x + c*x*x*x))
		return 0.5 * x * (1 + th), 0.5*(1+th) + 0.5*x*(1-th*th)*k*(1+3*c*x*x)
	}
	panic("reference: unknown activation")
}

func gated(o *kernels.Gated) {
	gate, up, out := at(o.Gate), at(o.Up), at(o.Out)
	for t := range o.Out.Rows {
		for j := range out.row(t) {
			y, _ := activation(o.Act, gate.row(t)[j])
			out.row(t)[j] = y * up.row(t)[j]
		}
	}
}

func gatedGrad(o *kernels.GatedGrad) {
	gate, up, d, dgate, dup := at(o.Gate), at(o.Up), at(o.DOut), at(o.DGate), at(o.DUp)
	for t := range o.DOut.Rows {
		for j := range d.row(t) {
			y, dy := activation(o.Act, gate.row(t)[j])
			v, u := d.row(t)[j], up.row(t)[j]
			dgate.row(t)[j], dup.row(t)[j] = v*u*dy, v*y
			if o.Out != nil {
				at(o.Out).row(t)[j] = y * u
			}
		}
	}
}

// dropout draws one word for each element: word j mod 4 of the generator at
// position Step·2⁴⁰ + (Row+t)·ceil(cols/4) + j/4.
func dropout(o *kernels.Dropout) {
	x, out := at(o.X), at(o.Out)
	limit := uint64(math.Ceil(o.P * (1 << 32)))
	perRow := uint64(o.X.Cols+3) / 4
	for t := range o.X.Rows {
		from := o.Step<<40 | (uint64(o.Row+t) * perRow)
		for j, v := range x.row(t) {
			word := random.At(o.Seed, random.Dropout, o.Stream, from+uint64(j/4))[j%4]
			if uint64(word) < limit {
				v = 0
			}
			out.row(t)[j] = v / (1 - o.P)
		}
	}
}
