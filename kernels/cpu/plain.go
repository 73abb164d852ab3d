package cpu

import (
	"encoding/binary"
	"math"
	"unsafe"

	"graft/kernels"
)

// plain is the instruction set that every machine has: Go. It is written for
// clarity first; compilers make scalar code of it.
var plain = vectors{
	name:       "go",
	tile:       plainTile,
	tilePacked: plainTilePacked,
	outer:      plainOuter,
	outerDepth: 64,
	across: perType(
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAcross(dst, src, stride, k, scale, 4, f32At)
		},
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAcross(dst, src, stride, k, scale, 2, f16At)
		},
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAcross(dst, src, stride, k, scale, 2, bf16At)
		}),
	across6: plainAcross6,
	along: perType(
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAlong(dst, src, stride, k, scale, 4, f32At)
		},
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAlong(dst, src, stride, k, scale, 2, f16At)
		},
		func(dst *float32, src *byte, stride, k int, scale float32) {
			plainAlong(dst, src, stride, k, scale, 2, bf16At)
		}),
	widen: perType(
		func(dst []float32, src *byte) {
			if len(dst) > 0 {
				copy(bytesOf(matrix{dst, 1, len(dst), len(dst)}).data, unsafe.Slice(src, 4*len(dst)))
			}
		},
		func(dst []float32, src *byte) { plainWiden(dst, src, 2, f16At) },
		func(dst []float32, src *byte) { plainWiden(dst, src, 2, bf16At) }),
	dot: perType(
		func(x []float32, w *byte) float32 { return plainDot(x, w, 4, f32At) },
		func(x []float32, w *byte) float32 { return plainDot(x, w, 2, f16At) },
		func(x []float32, w *byte) float32 { return plainDot(x, w, 2, bf16At) }),
	axpy: perType(
		func(y []float32, w *byte, a float32) { plainAxpy(y, w, a, 4, f32At) },
		func(y []float32, w *byte, a float32) { plainAxpy(y, w, a, 2, f16At) },
		func(y []float32, w *byte, a float32) { plainAxpy(y, w, a, 2, bf16At) }),
	scale: plainScale,
	add:   plainAdd,
	maxOf: plainMax,
	exp:   plainExp,
	expMax: func(out, x, next, last []float32, scale, top, factor float32) (sum, max float32) {
		plainScale(last, factor)
		return plainExp(out, x, scale, top), plainMax(next)
	},
	cap:          plainCap,
	softmaxRows:  softmaxByRow(plainMax, plainExp),
	scoreRows:    scoreByRow(plainScore),
	dotRows:      dotByRow(func(x []float32, y *byte) float32 { return plainDot(x, y, 4, f32At) }),
	scaleRows:    scaleByRow(plainScale),
	sumSquares:   func(x []float32) float32 { return float32(plainSquares(x)) },
	sumSquares64: plainSquares,
	normalizeSum: func(out, x, w, next []float32, inv float32) float32 {
		plainNormalize(out, x, w, inv)
		return float32(plainSquares(next))
	},
	dot3:       plainDot3,
	normGrad:   plainNormGrad,
	weightGrad: plainWeightGrad,
	rotate:     plainRotate,
	unrotate:   plainUnrotate,
	gated:      [3]func(out, gate, up []float32){plainSiLU, plainGELU, plainGELUTanh},
	gatedGrad:  [3]func(dgate, dup, out, gate, up, dout []float32){plainSiLUGrad, plainGELUGrad, plainGELUTanhGrad},
	dropout:    plainDropout,
	adam:       plainAdam,
	peak:       plainPeak,
}

// perType makes the table of a function that exists for three stored types.
func perType[F any](f32, f16, bf16 F) (t [kernels.BF16 + 1]F) {
	t[kernels.F32], t[kernels.F16], t[kernels.BF16] = f32, f16, bf16
	return t
}

func f32At(b []byte) float32  { return math.Float32frombits(binary.LittleEndian.Uint32(b)) }
func f16At(b []byte) float32  { return kernels.HalfToFloat32(binary.LittleEndian.Uint16(b)) }
func bf16At(b []byte) float32 { return kernels.BF16ToFloat32(binary.LittleEndian.Uint16(b)) }

// plainOuter keeps four sums.
func plainOuter(k, groups int, a *float32, astep int, b *float32, bstep int, c, _ *float32) {
	rows := groups * outerRows
	as, bs := unsafe.Slice(a, (k-1)*astep+rows), unsafe.Slice(b, (k-1)*bstep+outerBlock)
	cs := unsafe.Slice(c, rows*outerBlock)
	for i := range rows {
		for j := 0; j < outerBlock; j += 4 {
			var s0, s1, s2, s3 float32
			for p := range k {
				x, w := as[p*astep+i], bs[p*bstep+j:][:4]
				s0 += x * w[0]
				s1 += x * w[1]
				s2 += x * w[2]
				s3 += x * w[3]
			}
			storeFour(cs[i*outerBlock+j:], 1, true, s0, s1, s2, s3)
		}
	}
}

// plainTile goes over the tile in parts of 2×4, whose sums stay in registers.
func plainTile(k int, a *float32, arow, astep int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool) {
	as := unsafe.Slice(a, max(0, (k-1)*astep+(tileRows-1)*arow+1))
	bs := unsafe.Slice(b, max(0, (k-1)*bstep+tileCols))
	cs := unsafe.Slice(c, (tileRows-1)*ldc+tileCols)
	for i := 0; i < tileRows; i += 2 {
		for j := 0; j < tileCols; j += 4 {
			var s00, s01, s02, s03, s10, s11, s12, s13 float32
			for p := range k {
				x, y := as[i*arow+p*astep], as[(i+1)*arow+p*astep]
				w := bs[p*bstep+j:][:4]
				s00 += x * w[0]
				s01 += x * w[1]
				s02 += x * w[2]
				s03 += x * w[3]
				s10 += y * w[0]
				s11 += y * w[1]
				s12 += y * w[2]
				s13 += y * w[3]
			}
			storeFour(cs[i*ldc+j:], alpha, add, s00, s01, s02, s03)
			storeFour(cs[(i+1)*ldc+j:], alpha, add, s10, s11, s12, s13)
		}
	}
}

func storeFour(c []float32, alpha float32, add bool, s0, s1, s2, s3 float32) {
	c = c[:4]
	if !add {
		c[0], c[1], c[2], c[3] = alpha*s0, alpha*s1, alpha*s2, alpha*s3
		return
	}
	c[0] += alpha * s0
	c[1] += alpha * s1
	c[2] += alpha * s2
	c[3] += alpha * s3
}

func plainTilePacked(k int, a, b, c *float32, ldc int, alpha float32, add bool, _ *float32) {
	plainTile(k, a, 1, tileRows, b, tileCols, c, ldc, alpha, add)
}

func plainAcross(dst *float32, src *byte, stride, k int, scale float32, size int, at func([]byte) float32) {
	d := unsafe.Slice(dst, k*tileCols)
	for i := range tileCols {
		row := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), i*stride)), k*size)
		for p := range k {
			d[p*tileCols+i] = scale * at(row[p*size:])
		}
	}
}

func plainAcross6(dst *float32, src *byte, stride, k int) {
	d := unsafe.Slice(dst, k*tileRows)
	for i := range tileRows {
		row := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), i*stride)), k*4)
		for p := range k {
			d[p*tileRows+i] = f32At(row[p*4:])
		}
	}
}

func plainAlong(dst *float32, src *byte, stride, k int, scale float32, size int, at func([]byte) float32) {
	d := unsafe.Slice(dst, k*tileCols)
	for p := range k {
		row := unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(src), p*stride)), tileCols*size)
		for j := range tileCols {
			d[p*tileCols+j] = scale * at(row[j*size:])
		}
	}
}

func plainWiden(dst []float32, src *byte, size int, at func([]byte) float32) {
	b := unsafe.Slice(src, len(dst)*size)
	for i := range dst {
		dst[i] = at(b[i*size:])
	}
}

func plainDot(x []float32, w *byte, size int, at func([]byte) float32) float32 {
	b := unsafe.Slice(w, len(x)*size)
	var sum float64
	for i, v := range x {
		sum += float64(v) * float64(at(b[i*size:]))
	}
	return float32(sum)
}

func plainAxpy(y []float32, w *byte, a float32, size int, at func([]byte) float32) {
	b := unsafe.Slice(w, len(y)*size)
	for i := range y {
		y[i] += a * at(b[i*size:])
	}
}

func plainScale(y []float32, a float32) {
	for i := range y {
		y[i] *= a
	}
}

func plainAdd(out, a, b []float32) {
	a, b = a[:len(out)], b[:len(out)]
	for i := range out {
		out[i] = a[i] + b[i]
	}
}

func plainMax(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

func plainExp(out, x []float32, scale, top float32) float32 {
	var sum float64
	for i, v := range x {
		e := exp32(scale * (v - top))
		out[i] = e
		sum += float64(e)
	}
	return float32(sum)
}

// exp32 is e^x within 1e-7 relative: 2^n·e^r with |r| ≤ ln 2 / 2 and the
// polynomial of Cephes' expf (Moshier).
func exp32(x float32) float32 {
	switch {
	case x < -87.33654:
		return 0
	case x > 88.72283:
		return float32(math.Inf(1))
	case x != x:
		return x
	}
	n := float32(math.Floor(float64(x*1.44269504088896341 + 0.5)))
	r := x - n*0.693359375
	r -= n * -2.12194440e-4
	y := float32(1.9875691500e-4)
	y = y*r + 1.3981999507e-3
	y = y*r + 8.3334519073e-3
	y = y*r + 4.1665795894e-2
	y = y*r + 1.6666665459e-1
	y = y*r + 5.0000001201e-1
	y = y*r*r + r + 1
	// In two steps, so that 2^128 and 2^-127 are not needed.
	h := int32(n) / 2
	return y * math.Float32frombits(uint32(h+127)<<23) * math.Float32frombits(uint32(int32(n)-h+127)<<23)
}

// log32 is ln x within 1e-7 relative to the larger of it and 1, for a normal
// x > 0; infinity and NaN stay what they are. With x = 2^n·m, √½ ≤ m < √2, and
// s = (m-1)/(m+1) it is n·ln 2 + 2·artanh s.
func log32(x float32) float32 {
	if !(x <= math.MaxFloat32) {
		return x
	}
	const sqrtHalf = 0x3f3504f3 // its bits
	bits := math.Float32bits(x)
	n := int32(bits-sqrtHalf) >> 23
	m := float64(math.Float32frombits(bits - uint32(n)<<23))
	s := (m - 1) / (m + 1)
	s2 := s * s
	return float32(float64(n)*math.Ln2 + 2*s*(1+s2*(1./3+s2*(1./5+s2*(1./7+s2*(1./9))))))
}

func plainCap(x []float32, c float32) {
	for i, v := range x {
		x[i] = c * float32(math.Tanh(float64(v/c)))
	}
}

func plainScore(s, dp []float32, lse, d, ic2 float32) {
	dp = dp[:len(s)]
	for i, v := range s {
		p := exp32(v - lse)
		s[i] = p
		dp[i] = p * (dp[i] - d) * (1 - v*v*ic2)
	}
}

// What works on rows can be made of what works on one.

func softmaxByRow(maxOf func(x []float32) float32, exp func(out, x []float32, scale, top float32) float32) func(count int, s *float32, ld int, extents *extent, top, next, sums *float32) {
	return func(count int, s *float32, ld int, extents *extent, top, next, sums *float32) {
		tops, nexts, all := unsafe.Slice(top, count), unsafe.Slice(next, count), unsafe.Slice(sums, count)
		for i, e := range unsafe.Slice(extents, count) {
			row := rowFrom(s, i*ld, int(e[1])+tileRows)
			x := row[e[0]:e[1]]
			nexts[i] = tops[i]
			if m := maxOf(x); m > nexts[i] {
				nexts[i] = m
			}
			all[i] = exp(x, x, 1, nexts[i])
			clear(row[e[1]:])
		}
	}
}

func scoreByRow(score func(s, dp []float32, lse, d, ic2 float32)) func(count int, s, ds *float32, ld int, extents *extent, lse *float32, lseStep int, d *float32, dStep int, ic2 float32) {
	return func(count int, s, ds *float32, ld int, extents *extent, lse *float32, lseStep int, d *float32, dStep int, ic2 float32) {
		for i, e := range unsafe.Slice(extents, count) {
			row, grad := rowFrom(s, i*ld, int(e[1])+tileRows), rowFrom(ds, i*ld, int(e[1])+tileRows)
			score(row[e[0]:e[1]], grad[e[0]:e[1]], rowFrom(lse, i*lseStep, 1)[0], rowFrom(d, i*dStep, 1)[0], ic2)
			clear(row[e[1]:])
			clear(grad[e[1]:])
		}
	}
}

func dotByRow(dot func(x []float32, y *byte) float32) func(count int, x *float32, xStep int, y *float32, yStep, n int, out *float32) {
	return func(count int, x *float32, xStep int, y *float32, yStep, n int, out *float32) {
		sums := unsafe.Slice(out, count)
		for i := range sums {
			sums[i] = dot(rowFrom(x, i*xStep, n), (*byte)(unsafe.Pointer(&rowFrom(y, i*yStep, n)[0])))
		}
	}
}

func scaleByRow(scale func(y []float32, a float32)) func(count int, out *float32, outStep int, x *float32, xStep, n int, factors *float32) {
	return func(count int, out *float32, outStep int, x *float32, xStep, n int, factors *float32) {
		for i, factor := range unsafe.Slice(factors, count) {
			row := rowFrom(out, i*outStep, n)
			copy(row, rowFrom(x, i*xStep, n))
			scale(row, factor)
		}
	}
}

// rowFrom returns n elements that lie so many behind p.
func rowFrom(p *float32, at, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Add(unsafe.Pointer(p), 4*at)), n)
}

func plainSquares(x []float32) float64 {
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	return sum
}

func plainNormalize(out, x, w []float32, inv float32) {
	x, w = x[:len(out)], w[:len(out)]
	for i := range out {
		out[i] = x[i] * inv * w[i]
	}
}

func plainDot3(x, y, w []float32) float32 {
	y, w = y[:len(x)], w[:len(x)]
	var sum float64
	for i, v := range x {
		sum += float64(v) * float64(y[i]) * float64(w[i])
	}
	return float32(sum)
}

func plainNormGrad(dx, x, dout, w []float32, inv, c float32) {
	x, dout, w = x[:len(dx)], dout[:len(dx)], w[:len(dx)]
	for i := range dx {
		dx[i] = inv*dout[i]*w[i] - c*x[i]
	}
}

func plainWeightGrad(dw, x, dout []float32, inv float32) {
	x, dout = x[:len(dw)], dout[:len(dw)]
	for i := range dw {
		dw[i] += dout[i] * x[i] * inv
	}
}

func plainRotate(lo, hi, xlo, xhi, cos, sin []float32) {
	for i := range lo {
		a, b := xlo[i], xhi[i]
		lo[i] = a*cos[i] - b*sin[i]
		hi[i] = b*cos[i] + a*sin[i]
	}
}

func plainUnrotate(lo, hi, xlo, xhi, cos, sin []float32) {
	for i := range lo {
		a, b := xlo[i], xhi[i]
		lo[i] = a*cos[i] + b*sin[i]
		hi[i] = b*cos[i] - a*sin[i]
	}
}

func sigmoid(x float32) float32 { return 1 / (1 + exp32(-x)) }

func plainSiLU(out, gate, up []float32) {
	for i := range out {
		out[i] = gate[i] * sigmoid(gate[i]) * up[i]
	}
}

func plainSiLUGrad(dgate, dup, out, gate, up, dout []float32) {
	for i := range dgate {
		x, u, d := gate[i], up[i], dout[i]
		s := sigmoid(x)
		dgate[i] = d * u * s * (1 + x*(1-s))
		out[i] = x * s * u
		dup[i] = d * x * s
	}
}

// normal returns the standard normal distribution at x and its density.
func normal(x float32) (cdf, density float32) {
	v := float64(x)
	return float32(0.5 * math.Erfc(-v/math.Sqrt2)), float32(math.Exp(-v*v/2) / math.Sqrt(2*math.Pi))
}

func plainGELU(out, gate, up []float32) {
	for i := range out {
		cdf, _ := normal(gate[i])
		out[i] = gate[i] * cdf * up[i]
	}
}

func plainGELUGrad(dgate, dup, out, gate, up, dout []float32) {
	for i := range dgate {
		x, u, d := gate[i], up[i], dout[i]
		cdf, density := normal(x)
		dgate[i] = d * u * (cdf + x*density)
		out[i] = x * cdf * u
		dup[i] = d * x * cdf
	}
}

// The tanh approximation of GELU is x·sigmoid(2u), u = √(2/π)·(x + 0.044715·x³).
const (
	geluLinear = 2 * 0.7978845608028654
	geluCubic  = geluLinear * 0.044715
)

func plainGELUTanh(out, gate, up []float32) {
	for i := range out {
		x := gate[i]
		out[i] = x * sigmoid(x*(geluLinear+geluCubic*x*x)) * up[i]
	}
}

func plainGELUTanhGrad(dgate, dup, out, gate, up, dout []float32) {
	for i := range dgate {
		x, u, d := gate[i], up[i], dout[i]
		s := sigmoid(x * (geluLinear + geluCubic*x*x))
		dgate[i] = d * u * (s + x*s*(1-s)*(geluLinear+3*geluCubic*x*x))
		out[i] = x * s * u
		dup[i] = d * x * s
	}
}

func plainAdam(p, m, v, g []float32, c *adamFactors) {
	m, v, g = m[:len(p)], v[:len(p)], g[:len(p)]
	for i := range p {
		gi := c.clip * g[i]
		mi := c.beta1*m[i] + c.rest1*gi
		vi := c.beta2*v[i] + c.rest2*(gi*gi)
		m[i], v[i] = mi, vi
		p[i] = c.keep*p[i] - c.rate*mi/(float32(math.Sqrt(float64(vi*c.root)))+c.offset)
	}
}

// plainPeak does independent multiply-adds, as many as hide their latency.
func plainPeak(rounds int) float64 {
	var a, b, c, d, e, f, g, h float32 = 1, 2, 3, 4, 5, 6, 7, 8
	x, y := float32(0.5), float32(0.25)
	for range rounds {
		a = a*x + y
		b = b*x + y
		c = c*x + y
		d = d*x + y
		e = e*x + y
		f = f*x + y
		g = g*x + y
		h = h*x + y
	}
	if a+b+c+d+e+f+g+h == 0 { // keeps the loop; never so
		return 0
	}
	return float64(rounds) * 16
}
