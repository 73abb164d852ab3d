package cpu

import (
	"encoding/binary"
	"math"
	"unsafe"

	"graft/kernels"
)

// factor is one side of a matrix product, as it lies in memory. In a product
// that sums over p, with i counting the rows (or columns) of the result, the
// element (i, p) is W[i, p] across and W[p, i] along.
type factor struct {
	weights
	along bool
	scale float32
}

// packRight writes panels, so many elements apart, of columns j to j+n and depths
// p0 to p0+k.
func packRight(w *worker, v *vectors, dst []float32, panel int, f factor, j, n, p0, k int) {
	if f.along && f.dtype.Quantised() {
		packBlocksAlong(w, v, dst, panel, f, j, n, p0, k)
		return
	}
	for c := 0; c < n; c += tileCols {
		packPanel(w, v, dst[c/tileCols*panel:], f, j+c, min(tileCols, n-c), p0, k)
	}
}

// packPanel writes the panel of columns j to j+count (at most tileCols):
// dst[p·tileCols + c], with zeros where count ends early.
func packPanel(w *worker, v *vectors, dst []float32, f factor, j, count, p0, k int) {
	if f.dtype.Quantised() {
		packBlocksAcross(w, v, dst, f, j, count, p0, k)
		return
	}
	done := 0
	if count == tileCols && f.dtype != kernels.F64 && k > 0 {
		stride := f.stride * f.dtype.Size()
		if f.along {
			v.along[f.dtype](&dst[0], &f.at(p0, j)[0], stride, k, f.scale)
			return
		}
		if done = k &^ 7; done > 0 {
			v.across[f.dtype](&dst[0], &f.at(j, p0)[0], stride, done, f.scale)
		}
	}
	for p := done; p < k; p++ {
		d := dst[p*tileCols:][:tileCols]
		clear(d[count:])
		for c := range count {
			d[c] = f.scale * f.element(j+c, p0+p)
		}
	}
}

// packBlocksAlong is packRight for quantised types, which are decoded first: a group
// of columns at a time, which is more than a panel.
func packBlocksAlong(w *worker, v *vectors, dst []float32, panel int, f factor, j, n, p0, k int) {
	for c := 0; c < n; c += kernels.Group {
		count, d := min(kernels.Group, n-c), dst[c/tileCols*panel:]
		decode := v.blocksAlong[f.dtype]
		if decode == nil || count < kernels.Group || (j+c)%kernels.Group > 0 {
			for p := range k {
				row := w.wide[:kernels.Group]
				f.decode(v, row[:count], p0+p, j+c)
				clear(row[count:])
				for at := 0; at < count; at += tileCols {
					copy(d[at/tileCols*panel+p*tileCols:][:tileCols], row[at:])
				}
			}
		} else if k > 0 {
			decode(&d[0], panel, &f.at(p0, j+c)[0], f.dtype.Bytes(f.stride), k)
		}
		for at := 0; f.scale != 1 && at < count; at += tileCols {
			v.scale(d[at/tileCols*panel:][:k*tileCols], f.scale)
		}
	}
}

// packBlocksAcross is packPanel for quantised types whose depths lie in rows.
func packBlocksAcross(w *worker, v *vectors, dst []float32, f factor, j, count, p0, k int) {
	for at := 0; at < k; {
		n := min(wideCols-(p0+at)%kernels.Group, k-at) // to the end of a group
		for r := range count {
			f.decode(v, w.wide[r*wideCols:][:n], j+r, p0+at)
		}
		clear(w.wide[count*wideCols:])
		whole := n &^ 7
		if whole > 0 {
			v.across[kernels.F32](&dst[at*tileCols], (*byte)(unsafe.Pointer(&w.wide[0])), 4*wideCols, whole, f.scale)
		}
		for p := whole; p < n; p++ {
			for r := range tileCols {
				dst[(at+p)*tileCols+r] = f.scale * w.wide[r*wideCols+p]
			}
		}
		at += n
	}
}

// wideCols is how many depths of quantised rows are decoded at a time.
const wideCols = 8 * kernels.Group

// element returns one element, unscaled: the way for edges and for F64.
func (f factor) element(i, p int) float32 {
	if f.along {
		i, p = p, i
	}
	b := f.at(i, p)
	switch f.dtype {
	case kernels.F32:
		return f32At(b)
	case kernels.BF16:
		return bf16At(b)
	case kernels.F16:
		return f16At(b)
	}
	return float32(math.Float64frombits(binary.LittleEndian.Uint64(b)))
}

// packLeft writes the panel of rows i to i+count (at most tileRows) of a
// factor in float32: dst[p·tileRows + r], with zeros where count ends early.
// The factor's scale is left to the other side.
func packLeft(v *vectors, dst []float32, f factor, i, count, p0, k int) {
	if f.along {
		packLeftAlong(dst, f, i, count, p0, k)
		return
	}
	done := 0
	if count == tileRows {
		if done = k &^ 7; done > 0 {
			v.across6(&dst[0], &f.at(i, p0)[0], 4*f.stride, done)
		}
	}
	rest := dst[done*tileRows : k*tileRows]
	clear(rest)
	for r := 0; r < count && len(rest) > 0; r++ {
		for p, x := range floats(f.at(i+r, p0+done))[:k-done] {
			rest[p*tileRows+r] = x
		}
	}
}

func packLeftAlong(dst []float32, f factor, i, count, p0, k int) {
	for p := range k {
		d := dst[p*tileRows:][:tileRows]
		s := f.at(p0+p, i)
		if count == tileRows {
			*(*[4 * tileRows]byte)(unsafe.Pointer(&d[0])) = [4 * tileRows]byte(s)
			continue
		}
		clear(d[count:])
		for r := range count {
			d[r] = f32At(s[4*r:])
		}
	}
}
