package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// stored is a type that weights are stored in.
type stored struct {
	name string
	size int
	load func(m Mem, v VecVirtual) // widens a vector
}

var types = []stored{
	{"F32", 4, func(m Mem, v VecVirtual) { VMOVUPS(m, v) }},
	{"F16", 2, func(m Mem, v VecVirtual) { VCVTPH2PS(m, v) }},
	{"BF16", 2, func(m Mem, v VecVirtual) {
		VPMOVZXWD(m, v)
		VPSLLD(Imm(16), v, v)
	}},
}

func packing() {
	for _, t := range types {
		across(t)
		along(t)
		widen(t)
		dot(t)
		axpy(t)
	}
	if !isa.wide() { // six rows fill no wide vector
		across6()
	}
}

// across transposes eight depths of 16 rows at a time.
func across(t stored) {
	declare("Across"+t.name, "func(dst *float32, src *byte, stride, k int, scale float32)", "vectors.across")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	scale := isa.scalar("scale")
	p, r := newPanelRows(src, stride), newTransposed()
	Label("loop")
	// Eight depths are half a line or less: every other time they ask for the other rows.
	TESTQ(U32(8), k)
	JZ(LabelRef("lower"))
	for i := range 8 {
		PREFETCHT0(p.next(i))
	}
	JMP(LabelRef("asked"))
	Label("lower")
	for i := 8; i < cols; i++ {
		PREFETCHT0(p.next(i))
	}
	Label("asked")
	for first := 0; first < cols; first += isa.lanes {
		for d, v := range transpose(t, r, func(i int) Mem { return p.row(first + i) }) {
			VMULPS(scale, v, v)
			VMOVUPS(v, Mem{Base: dst, Disp: 64*d + 4*first})
		}
	}
	p.move(8 * t.size)
	ADDQ(U32(512), dst)
	SUBQ(Imm(8), k)
	JNZ(LabelRef("loop"))
	end()
}

// panelRows are the rows of a panel and of the next one.
type panelRows struct {
	bases     []Register
	row, next func(i int) Mem
}

func newPanelRows(first, stride Register) *panelRows {
	p, stride3, second := &panelRows{}, GP64(), GP64()
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	sixteen := func(first Register) func(i int) Mem {
		bases := []Register{first, GP64(), GP64(), GP64()}
		for i := 1; i < 4; i++ {
			LEAQ(Mem{Base: bases[i-1], Index: stride, Scale: 4}, bases[i])
		}
		p.bases = append(p.bases, bases...)
		return func(i int) Mem {
			switch b := bases[i/4]; i % 4 {
			case 0:
				return Mem{Base: b}
			case 3:
				return Mem{Base: b, Index: stride3, Scale: 1}
			default:
				return Mem{Base: b, Index: stride, Scale: uint8(i % 4)}
			}
		}
	}
	p.row = sixteen(first)
	LEAQ(Mem{Base: p.bases[3], Index: stride, Scale: 4}, second)
	p.next = sixteen(second)
	return p
}

// move goes on by so many bytes in all rows.
func (p *panelRows) move(n int) {
	for _, b := range p.bases {
		ADDQ(U32(uint32(n)), b)
	}
}

// transpose loads eight elements of as many rows as a vector has lanes, and returns
// vectors of the first ones, the second ones and so on. Within lanes of 128 bits, four
// rows are transposed at a time. In a wide vector lie four rows, and the next four. It loads
// them into r: wide vectors are written by halves, for which avo keeps registers all the time.
func transpose(t stored, r *[8]VecVirtual, row func(i int) Mem) (out [8]VecVirtual) {
	var pairs, quads [8]VecVirtual
	for i := range r {
		if !isa.wide() {
			t.load(row(i), r[i])
			continue
		}
		i0, next := i/4*8+i%4, YMM()
		t.load(row(i0), r[i].AsY().(VecVirtual))
		if t.size == 4 {
			VINSERTF64X4(Imm(1), row(i0+4), r[i], r[i])
			continue
		}
		t.load(row(i0+4), next)
		VINSERTF64X4(Imm(1), next, r[i], r[i])
	}
	for i := 0; i < 8; i += 2 {
		pairs[i], pairs[i+1] = isa.new(), isa.new()
		VUNPCKLPS(r[i+1], r[i], pairs[i])
		VUNPCKHPS(r[i+1], r[i], pairs[i+1])
	}
	for i := 0; i < 8; i += 4 {
		for j := range 4 {
			quads[i+j] = isa.new()
		}
		VUNPCKLPD(pairs[i+2], pairs[i], quads[i])
		VUNPCKHPD(pairs[i+2], pairs[i], quads[i+1])
		VUNPCKLPD(pairs[i+3], pairs[i+1], quads[i+2])
		VUNPCKHPD(pairs[i+3], pairs[i+1], quads[i+3])
	}
	for i := range 4 {
		out[i], out[i+4] = isa.new(), isa.new()
		if isa.wide() {
			VSHUFF32X4(Imm(0x88), quads[i+4], quads[i], out[i])
			VSHUFF32X4(Imm(0xdd), quads[i+4], quads[i], out[i+4])
		} else {
			VPERM2F128(Imm(0x20), quads[i+4], quads[i], out[i])
			VPERM2F128(Imm(0x31), quads[i+4], quads[i], out[i+4])
		}
	}
	return out
}

func newTransposed() *[8]VecVirtual {
	r := &[8]VecVirtual{}
	for i := range r {
		r[i] = isa.new()
	}
	return r
}

// across6 makes panels of eight depths of six rows.
func across6() {
	declare("Across6", "func(dst *float32, src *byte, stride, k int)", "vectors.across6")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	row, bases := rowsFrom(src, stride, rows)
	Label("loop")
	var r [rows]VecVirtual
	for i := range r {
		r[i] = isa.set(row(i))
	}
	for i, v := range inOrder(r) {
		VMOVUPS(v, Mem{Base: dst, Disp: isa.bytes() * i})
	}
	for _, b := range bases {
		ADDQ(Imm(4*8), b)
	}
	ADDQ(U32(4*8*rows), dst)
	SUBQ(Imm(8), k)
	JNZ(LabelRef("loop"))
	end()
}

// rowsFrom returns the places of rows, by way of some registers.
func rowsFrom(first, stride Register, n int) (row func(i int) Mem, bases []Register) {
	bases = []Register{first}
	for i := 3; i < n; i += 3 {
		b := GP64()
		LEAQ(Mem{Base: bases[len(bases)-1], Index: stride, Scale: 2}, b)
		ADDQ(stride, b)
		bases = append(bases, b)
	}
	return func(i int) Mem {
		m := Mem{Base: bases[i/3]}
		if i%3 > 0 {
			m.Index, m.Scale = stride, uint8(i%3)
		}
		return m
	}, bases
}

// inOrder turns six rows of eight depths into depths of six rows, in AVX2. Within lanes, of
// depths 0 to 3 and 4 to 7, it makes pairs of rows, and of those vectors in order.
func inOrder(r [rows]VecVirtual) (out []VecVirtual) {
	var pairs [rows]VecVirtual
	for i := 0; i < rows; i += 2 {
		pairs[i], pairs[i+1] = isa.new(), isa.new()
		VUNPCKLPS(r[i+1], r[i], pairs[i])
		VUNPCKHPS(r[i+1], r[i], pairs[i+1])
	}
	var lanes []VecVirtual // two depths are three of them
	for half := range 2 {
		a, b, c := pairs[half], pairs[2+half], pairs[4+half]
		x, y, z := isa.new(), isa.new(), isa.new()
		VUNPCKLPD(b, a, x)
		VSHUFPD(Imm(0b1010), a, c, y)
		VUNPCKHPD(c, b, z)
		lanes = append(lanes, x, y, z)
	}
	for _, which := range []uint64{0x20, 0x31} {
		for i := 0; i < rows; i += 2 {
			v := isa.new()
			VPERM2F128(Imm(which), lanes[i+1], lanes[i], v)
			out = append(out, v)
		}
	}
	return out
}

func along(t stored) {
	declare("Along"+t.name, "func(dst *float32, src *byte, stride, k int, scale float32)", "vectors.along")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, k := Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	scale := isa.scalar("scale")
	Label("loop")
	PREFETCHT1(Mem{Base: src, Disp: cols * t.size}) // for the next panel
	for at := 0; at < cols; at += isa.lanes {
		v := isa.new()
		t.load(Mem{Base: src, Disp: t.size * at}, v)
		VMULPS(scale, v, v)
		VMOVUPS(v, Mem{Base: dst, Disp: 4 * at})
	}
	ADDQ(stride, src)
	ADDQ(Imm(64), dst)
	DECQ(k)
	JNZ(LabelRef("loop"))
	end()
}

// The following take whole vectors only; the rest is done in Go, since AVX2 has no
// masked load of 16-bit words.

func widen(t stored) {
	if t.size == 4 {
		return
	}
	s, n := kernel("Widen"+t.name, "func(dst []float32, src *byte)", "vectors.widen for whole vectors", "dst")
	src := Load(Param("src"), GP64())
	v := isa.new()
	wholeVectors(n, s["dst"], src, t.size, 1, func(d, m Mem, _ int) {
		t.load(m, v)
		VMOVUPS(v, d)
	})
	end()
}

func dot(t stored) {
	s, n := kernel("Dot"+t.name, "func(x []float32, w *byte) float32", "vectors.dot for whole vectors", "x")
	w := Load(Param("w"), GP64())
	acc := isa.zeros(4)
	wholeVectors(n, s["x"], w, t.size, 4, func(x, m Mem, u int) {
		v := isa.new()
		t.load(m, v)
		VFMADD231PS(x, v, acc[u])
	})
	Store(sumInto(acc), ReturnIndex(0))
	end()
}

func axpy(t stored) {
	s, n := kernel("Axpy"+t.name, "func(y []float32, w *byte, a float32)", "vectors.axpy for whole vectors", "y")
	w := Load(Param("w"), GP64())
	a := isa.scalar("a")
	v := isa.new()
	wholeVectors(n, s["y"], w, t.size, 1, func(y, m Mem, _ int) {
		t.load(m, v)
		VFMADD213PS(y, a, v)
		VMOVUPS(v, y)
	})
	end()
}

// wholeVectors goes over n elements, a multiple of a vector's, of float32 at x and of
// size bytes at w.
func wholeVectors(n, x, w Register, size, unroll int, body func(x, w Mem, u int)) {
	if unroll > 1 {
		Label("unrolled")
		CMPQ(n, U32(uint32(isa.lanes*unroll)))
		JL(LabelRef("single"))
		for u := range unroll {
			body(Mem{Base: x, Disp: isa.bytes() * u}, Mem{Base: w, Disp: isa.lanes * size * u}, u)
		}
		ADDQ(U32(uint32(isa.bytes()*unroll)), x)
		ADDQ(U32(uint32(isa.lanes*size*unroll)), w)
		SUBQ(U32(uint32(isa.lanes*unroll)), n)
		JMP(LabelRef("unrolled"))
	}
	Label("single")
	CMPQ(n, Imm(uint64(isa.lanes)))
	JL(LabelRef("done"))
	body(Mem{Base: x}, Mem{Base: w}, 0)
	ADDQ(U32(uint32(isa.bytes())), x)
	ADDQ(U32(uint32(isa.lanes*size)), w)
	SUBQ(Imm(uint64(isa.lanes)), n)
	JMP(LabelRef("single"))
	Label("done")
}
