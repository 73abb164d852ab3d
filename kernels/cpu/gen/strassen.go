package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// strassen is the product of halves that are packed, and the loops around it.
func strassen() {
	multiply()
	rowSquares()
	packPair()
	stream()
}

// stream writes sums with stores that bypass the caches: whole lines, one after the other, as there
// is room for few that wait for a second half.
func stream() {
	declare("Stream", "func(k int, x, y, u, v *float32, row int, sums *float32, apart int, ahead *byte, step, advance, turn int)", "strassenVectors.stream")
	k := Load(Param("k"), GP64())
	var from [4]Mem
	for i, name := range []string{"x", "y", "u", "v"} {
		from[i] = Mem{Base: Load(Param(name), GP64())}
	}
	sums, apart := Load(Param("sums"), GP64()), Load(Param("apart"), GP64())
	SHLQ(Imm(2), apart)
	apart3, later := GP64(), GP64()
	LEAQ(Mem{Base: apart, Index: apart, Scale: 2}, apart3)
	LEAQ(Mem{Base: sums, Index: apart, Scale: 4}, later)
	places := []Mem{{Base: sums}, {Base: sums, Index: apart, Scale: 1}, {Base: sums, Index: apart, Scale: 2}, {Base: sums, Index: apart3, Scale: 1},
		{Base: later}, {Base: later, Index: apart, Scale: 1}, {Base: later, Index: apart, Scale: 2}}
	inBytes("row")
	ahead, step, step3, untilTurn := Load(Param("ahead"), GP64()), Load(Param("step"), GP64()), GP64(), GP64()
	LEAQ(Mem{Base: step, Index: step, Scale: 2}, step3)
	MOVQ(I32(cols), untilTurn)
	Label("loop")
	for _, m := range []Mem{{Base: ahead}, {Base: ahead, Index: step, Scale: 1}, {Base: ahead, Index: step, Scale: 2}, {Base: ahead, Index: step3, Scale: 1}} {
		PREFETCHT0(m)
	}
	ADDQ(place("advance"), ahead)
	var quarters [4][]VecVirtual
	for at := 0; at < 4*cols; at += isa.bytes() {
		for i, m := range from {
			quarters[i] = append(quarters[i], isa.set(m.Offset(at)))
		}
	}
	x, y, u, v := quarters[0], quarters[1], quarters[2], quarters[3]
	for i, sum := range []struct {
		op   func(ops ...Op)
		a, b []VecVirtual
	}{{VADDPS, x, y}, {nil, x, nil}, {VSUBPS, u, y}, {VSUBPS, v, x}, {nil, y, nil}, {VADDPS, u, x}, {VADDPS, v, y}} {
		for e, r := range sum.a {
			if sum.op != nil {
				r = isa.new()
				sum.op(sum.b[e], sum.a[e], r)
			}
			VMOVNTPS(r, places[i].Offset(e*isa.bytes()))
		}
	}
	for _, r := range []Register{sums, later} {
		ADDQ(Imm(4*cols), r)
	}
	for _, m := range from {
		ADDQ(place("row"), m.Base)
	}
	DECQ(untilTurn)
	JNZ(LabelRef("straight"))
	MOVQ(I32(cols), untilTurn)
	ADDQ(place("turn"), ahead)
	Label("straight")
	DECQ(k)
	JNZ(LabelRef("loop"))
	SFENCE() // such stores are not in order with those that tell other threads of them
	end()
}

// The layouts of strassenProduct and rowsAhead (../strassen.go), in bytes.
const (
	productSum, productC, productD, productSign, productWay, productRow, productCol, productSize = 0, 8, 16, 24, 32, 40, 48, 56

	aheadAt, aheadStride, aheadEach, aheadSize = 0, 8, 16, 24
)

// multiply goes through products, and for each down the pairs: a panel of a sum of the left
// factor, one for each pair, makes a tile of every other six rows, 6×16, or in wide vectors two
// make one of 12×32, while there are two.
func multiply() {
	declare("Multiply", "func(products *byte, n, pairs, k int, left *float32, apart int, right, block, c *float32, ldc int, factors *float32, add bool, far *byte)", "strassenVectors.multiply")
	l := &productLoop{product: Load(Param("products"), GP64()), right: Load(Param("right"), GP64()), far: Load(Param("far"), GP64()),
		a: GP64(), second: GP64(), c: GP64(), d: GP64(), out: GP64(), factor: GP64(), ahead: GP64(), count: GP64(), k: GP64(), b: []Register{GP64()}}
	if isa.wide() {
		l.b = append(l.b, GP64())
	}
	for _, stride := range []string{"apart", "ldc"} { // in bytes
		load(stride, l.k)
		SHLQ(Imm(2), l.k)
		MOVQ(l.k, place(stride))
	}
	width := len(l.b) * cols
	l.share()
	Label("product")
	for col := 0; col < 2*cols; col += width {
		label := func(name string) string { return fmt.Sprint(name, col) }
		load("apart", l.a)
		IMULQ(Mem{Base: l.product, Disp: productSum}, l.a)
		ADDQ(place("left"), l.a)
		for _, quarter := range []struct {
			at   Register
			disp int
		}{{l.c, productC}, {l.d, productD}} {
			load("block", quarter.at)
			MOVQ(Mem{Base: l.product, Disp: quarter.disp}, l.k)
			LEAQ(Mem{Base: quarter.at, Index: l.k, Scale: 4, Disp: 4 * col}, quarter.at)
		}
		load("k", l.ahead)
		SHLQ(Imm(7), l.ahead) // halfCols columns, which the next product begins with
		ADDQ(l.right, l.ahead)
		load("pairs", l.count)
		if isa.wide() {
			Label(label("two"))
			CMPQ(l.count, Imm(2))
			JL(LabelRef(label("last")))
			l.tiles(2, col, label)
			JMP(LabelRef(label("two")))
			Label(label("last"))
			TESTQ(l.count, l.count)
			JZ(LabelRef(label("finished")))
			l.tiles(1, col, label)
			Label(label("finished"))
		} else {
			Label(label("panel"))
			l.tiles(1, col, label)
			JNZ(LabelRef(label("panel")))
		}
		load("k", l.k)
		IMUL3Q(Imm(uint64(4*width)), l.k, l.k)
		ADDQ(l.k, l.right)
	}
	ADDQ(Imm(productSize), l.product)
	ADDQ(Imm(aheadSize), l.far)
	DECQ(place("n"))
	JNZ(LabelRef("product"))
	end()
}

// What is asked for in packedUnroll depths.
const (
	panelBytes = packedUnroll * 4 * cols // of a right panel
	fewLines   = 3                       // of one, by each tile: enough where three share it
	wideLines  = 4                       // of two: where there are manyPairs
	manyPairs  = 7
)

// share has all tiles together ask for the next panels once, each for less where there are many: too
// much at once, or all of it again, keeps others from what they wait for.
func (l *productLoop) share() {
	tiles := place("pairs")
	if isa.wide() {
		tiles = place("right") // which a register has by now, as it then is for the result
		load("pairs", RAX)
		INCQ(RAX)
		SHRQ(Imm(1), RAX)
		MOVQ(RAX, tiles)
	}
	MOVQ(tiles, RAX)
	ADDQ(U32(uint32(len(l.b)*panelBytes-1)), RAX)
	XORQ(RDX, RDX)
	DIVQ(tiles)
	if isa.wide() {
		l.advance = tiles
	} else {
		l.advance = GP64()
	}
	MOVQ(RAX, l.advance)
}

// productLoop is where multiply has come to.
type productLoop struct {
	product, far, count Register // of a product: it, what to ask for, and pairs that are left
	a, right, c, d      Register // places in the factors, and in the block
	out, factor         Register // places in the result, and of its rows' factors
	ahead               Register // of the right factor
	advance             Op       // of it, for each tile
	k, second           Register
	b                   []Register
}

// tiles takes so many pairs, and sets the flags by what is left of them.
func (l *productLoop) tiles(count, col int, label func(string) string) {
	name := func(s string) string { return label(fmt.Sprint(s, count, "_")) }
	if col == 0 {
		l.ask(count, name)
	}
	l.inResult(count, col, name)
	load("k", l.k)
	MOVQ(l.right, l.b[0])
	p := &panels{a: []Register{l.a}, b: l.b, ahead: l.ahead, lines: fewLines, advance: l.advance}
	if isa.wide() {
		p.lines = wideLines
		MOVQ(l.k, l.b[1])
		SHLQ(Imm(6), l.b[1])
		ADDQ(l.right, l.b[1])
	}
	if count > 1 { // the next panel follows
		p.a = append(p.a, l.second)
		IMUL3Q(Imm(4*rows), l.k, l.second)
		ADDQ(l.a, l.second)
	}
	t := newTile(count*rows, 2)
	if count > 1 {
		few := *p
		few.lines *= 2
		CMPQ(place("pairs"), Imm(manyPairs))
		JGE(LabelRef(name("many")))
		few.loop(t, func(s string) string { return name("few_" + s) }, l.k, true)
		JMP(LabelRef(name("multiplied")))
		Label(name("many"))
	}
	p.loop(t, name, l.k, true)
	if count > 1 {
		Label(name("multiplied"))
		MOVQ(l.second, l.a)
	}
	l.addTile(t, name)
	for _, r := range []Register{l.c, l.d} {
		ADDQ(U32(uint32(2*count*rows*blockLine)), r)
	}
	SUBQ(Imm(uint64(count)), l.count)
}

// ask asks for the rows that rowsAhead has for so many pairs, and moves it on.
func (l *productLoop) ask(count int, name func(string) string) {
	at, stride, row := l.b[0], l.second, l.k
	MOVQ(Mem{Base: l.far, Disp: aheadEach}, row)
	TESTQ(row, row)
	JZ(LabelRef(name("asked")))
	if count > 1 {
		ADDQ(row, row)
	}
	MOVQ(Mem{Base: l.far, Disp: aheadAt}, at)
	MOVQ(Mem{Base: l.far, Disp: aheadStride}, stride)
	Label(name("ask"))
	for line := 0; line < blockLine; line += 64 {
		PREFETCHT1(Mem{Base: at, Disp: line})
	}
	LEAQ(Mem{Base: at, Index: stride, Scale: 4}, at)
	DECQ(row)
	JNZ(LabelRef(name("ask")))
	MOVQ(at, Mem{Base: l.far, Disp: aheadAt})
	Label(name("asked"))
}

// placeUse is what a product does with a place in the block.
type placeUse int

const (
	unused   placeUse = iota
	started           // it is the first there
	added             // it is added
	finished          // it is the last, and what comes of it goes to the result
)

// ways are what products do with the places C and D, in the order of ../strassen.go.
var ways = []struct{ c, d placeUse }{{started, started}, {started, added}, {added, finished}, {finished, added}, {finished, unused}}

// firstToFinish is the first way that finishes a place.
const firstToFinish = 2

// inResult finds the place of a tile in the result, where it goes there, and asks for it.
func (l *productLoop) inResult(count, col int, name func(string) string) {
	CMPQ(Mem{Base: l.product, Disp: productWay}, Imm(firstToFinish))
	JL(LabelRef(name("placed")))
	load("pairs", l.out)
	SUBQ(l.count, l.out)
	IMUL3Q(Imm(2*rows), l.out, l.out)
	ADDQ(Mem{Base: l.product, Disp: productRow}, l.out)
	load("factors", l.factor)
	LEAQ(Mem{Base: l.factor, Index: l.out, Scale: 4}, l.factor)
	load("ldc", l.k)
	IMULQ(l.k, l.out)
	ADDQ(place("c"), l.out)
	at := l.b[0]
	MOVQ(Mem{Base: l.product, Disp: productCol}, at)
	LEAQ(Mem{Base: l.out, Index: at, Scale: 4, Disp: 4 * col}, l.out)
	MOVQ(l.out, at)
	for panel := range count {
		if panel > 0 {
			l.skip(at)
		}
		for range rows {
			for line := 0; line < 2*isa.bytes(); line += 64 {
				PREFETCHT0(Mem{Base: at, Disp: line})
			}
			ADDQ(l.k, at)
		}
	}
	Label(name("placed"))
}

// skip goes over the rows of the other half; k has their distance, and second is spent.
func (l *productLoop) skip(at Register) {
	LEAQ(Mem{Base: l.k, Index: l.k, Scale: 2}, l.second)
	LEAQ(Mem{Base: at, Index: l.second, Scale: 2}, at)
}

// addTile adds the sums of a tile to the places of its product, as its way says.
func (l *productLoop) addTile(t *tile, name func(string) string) {
	load("ldc", l.k)
	for i, way := range ways {
		next, overwrite := name(fmt.Sprint("way", i+1, "_")), name(fmt.Sprint("overwrite", i, "_"))
		if i+1 < len(ways) {
			CMPQ(Mem{Base: l.product, Disp: productWay}, Imm(uint64(i)))
			JNE(LabelRef(next))
		}
		if i >= firstToFinish {
			CMPB(place("add"), Imm(0))
			JE(LabelRef(overwrite))
		}
		l.addRows(t, way.c, way.d, false)
		JMP(LabelRef(name("added")))
		if i >= firstToFinish {
			Label(overwrite)
			l.addRows(t, way.c, way.d, true)
			JMP(LabelRef(name("added")))
		}
		if i+1 < len(ways) {
			Label(next)
		}
	}
	Label(name("added"))
}

func (l *productLoop) addRows(t *tile, toC, toD placeUse, overwrite bool) {
	sign, factor, sum := t.a[0], t.a[1], t.b[0]
	VBROADCASTSS(Mem{Base: l.product, Disp: productSign}, sign)
	finishes := toC == finished || toD == finished
	put := func(to placeUse, x VecVirtual, m Mem, j int) {
		if to == finished {
			m = Mem{Base: l.out, Disp: isa.bytes() * j}
			if overwrite {
				VMULPS(factor, x, x)
			} else {
				VFMADD213PS(m, factor, x)
			}
		}
		VMOVUPS(x, m)
	}
	for i, row := range t.acc {
		if finishes {
			if i == rows {
				l.skip(l.out)
				ADDQ(Imm(4*rows), l.factor)
			}
			VBROADCASTSS(Mem{Base: l.factor}, factor)
			ADDQ(Imm(4), l.factor)
		}
		for j, acc := range row {
			at := blockLine*(i+i/rows*rows) + isa.bytes()*j
			c, d, x := Mem{Base: l.c, Disp: at}, Mem{Base: l.d, Disp: at}, acc
			if toC != started {
				x = sum
				VADDPS(c, acc, x)
			}
			put(toC, x, c, j)
			switch toD {
			case unused:
				continue
			case started:
				VMULPS(sign, acc, acc)
			default:
				VFMADD213PS(d, sign, acc)
			}
			put(toD, acc, d, j)
		}
		if finishes {
			ADDQ(l.k, l.out)
		}
	}
}

// rowSquares adds up the squares of a pair's rows.
func rowSquares() {
	declare("RowSquares", "func(sums *float32, src *byte, stride, k int)", "strassenVectors.rowSquares")
	src, stride, k := Load(Param("src"), GP64()), Load(Param("stride"), GP64()), Load(Param("k"), GP64())
	row, bases := rowsFrom(src, stride, 2*rows)
	acc := isa.zeros(2 * rows)
	Label("loop")
	for i, sum := range acc {
		x := isa.set(row(i))
		VFMADD231PS(x, x, sum)
	}
	for _, b := range bases {
		ADDQ(Imm(uint64(isa.bytes())), b)
	}
	SUBQ(Imm(uint64(isa.lanes)), k)
	JNZ(LabelRef("loop"))
	sums := Load(Param("sums"), GP64())
	for i, v := range acc {
		m := Mem{Base: sums, Disp: 4 * i}
		sum := isa.reduced(v, func(o ...Op) { VADDPS(o[0], o[1], o[2]) }, func(o ...Op) { VADDSS(o[0], o[1], o[2]) })
		VADDSS(m, sum, sum)
		VMOVSS(sum, m)
	}
	end()
}

// packPair makes all sums of eight depths at a time.
func packPair() {
	declare("PackPair", "func(dst *float32, apart, k int, first *byte, firstStride int, second *byte, secondStride int, scales *float32)", "strassenVectors.packPair")
	t := newTransposer()
	dst, apart, apart3, fifth := Load(Param("dst"), GP64()), Load(Param("apart"), GP64()), GP64(), GP64()
	SHLQ(Imm(2), apart)
	LEAQ(Mem{Base: apart, Index: apart, Scale: 2}, apart3)
	places := []Mem{{Base: dst}, {Base: dst, Index: apart, Scale: 1}, {Base: dst, Index: apart, Scale: 2}, {Base: dst, Index: apart3, Scale: 1},
		{Base: dst, Index: apart, Scale: 4}, {Base: fifth}, {Base: dst, Index: apart3, Scale: 2}}
	inFirst, firstBases := rowsFrom(Load(Param("first"), GP64()), Load(Param("firstStride"), GP64()), 2*rows)
	inSecond, secondBases := rowsFrom(Load(Param("second"), GP64()), Load(Param("secondStride"), GP64()), 2*rows)
	Label("loop")
	sum := func(to int, op func(ops ...Op), x []VecVirtual, packed int) {
		for i, v := range x {
			out, at := isa.new(), isa.bytes()*i
			op(places[packed].Offset(at), v, out)
			VMOVUPS(out, places[to].Offset(at))
		}
	}
	put := func(to int, x []VecVirtual) {
		for i, v := range x {
			VMOVUPS(v, places[to].Offset(isa.bytes()*i))
		}
	}
	put(1, t.panel(inFirst, 0)) // X
	y := t.panel(inSecond, 1)
	put(4, y)
	sum(0, VADDPS, y, 1)
	u := t.panel(inSecond, 0)
	LEAQ(Mem{Base: dst, Index: apart, Scale: 4}, fifth)
	ADDQ(apart, fifth)
	sum(2, VSUBPS, u, 4)
	sum(5, VADDPS, u, 1)
	v := t.panel(inFirst, 1)
	sum(3, VSUBPS, v, 1)
	sum(6, VADDPS, v, 4)
	for _, b := range append(firstBases, secondBases...) {
		ADDQ(Imm(4*8), b)
	}
	ADDQ(U32(4*8*rows), dst)
	SUBQ(Imm(8), place("k"))
	JNZ(LabelRef("loop"))
	end()
}

// transposer makes panels of eight depths: of rows, each times its scale.
type transposer struct {
	scales       [rows]VecVirtual // in wide vectors: those of two rows each, of both panels
	upper, lower [3]VecVirtual    // in wide vectors: what a vector takes from rows 0 to 3, and what from 4 and 5
}

func newTransposer() *transposer {
	t := &transposer{}
	if !isa.wide() {
		return t
	}
	order := GLOBL("panel_order", 24)
	for i, place := range panelOrder() {
		DATA(4*i, U32(place))
	}
	table := GP64()
	LEAQ(order, table)
	for i := range t.upper {
		t.upper[i], t.lower[i] = isa.set(Mem{Base: table, Disp: 64 * i}), isa.set(Mem{Base: table, Disp: 64 * (3 + i)})
	}
	scales := Load(Param("scales"), GP64())
	for i := range t.scales {
		hi := YMM()
		t.scales[i] = isa.new()
		VBROADCASTSS(Mem{Base: scales, Disp: 8 * i}, t.scales[i])
		VBROADCASTSS(Mem{Base: scales, Disp: 8*i + 4}, hi)
		VINSERTF64X4(Imm(1), hi, t.scales[i], t.scales[i])
	}
	return t
}

// panel returns eight depths of a panel, in order.
func (t *transposer) panel(row func(i int) Mem, panel int) (out []VecVirtual) {
	if !isa.wide() {
		return t.narrow(row, panel)
	}
	var r [3]VecVirtual
	for i := range r {
		r[i] = isa.new()
		VBROADCASTF64X4(row(panel*rows+2*i), r[i]) // for its lower half
		VINSERTF64X4(Imm(1), row(panel*rows+2*i+1), r[i], r[i])
		VMULPS(t.scales[panel*rows/2+i], r[i], r[i])
	}
	for i := range r {
		v := isa.new()
		VMOVAPS(t.upper[i], v)
		VPERMI2PS(r[1], r[0], v)
		VPERMT2PS(r[2], t.lower[i], v)
		out = append(out, v)
	}
	return out
}

// narrow is panel in AVX2.
func (t *transposer) narrow(row func(i int) Mem, panel int) []VecVirtual {
	var r [rows]VecVirtual
	scales := Load(Param("scales"), GP64())
	for i := range r {
		r[i] = isa.new()
		VBROADCASTSS(Mem{Base: scales, Disp: 4 * (panel*rows + i)}, r[i])
		VMULPS(row(panel*rows+i), r[i], r[i])
	}
	return inOrder(r)
}

// panelOrder returns the places of the elements of three vectors: in vectors of rows 0 and
// 1, and 2 and 3; and then in what comes of that, and a vector of rows 4 and 5.
func panelOrder() []uint32 {
	var upper, lower []uint32
	for e := range uint32(8 * rows) {
		depth, row := e/rows, e%rows
		if row < 4 {
			upper, lower = append(upper, 8*row+depth), append(lower, e%16)
		} else {
			upper, lower = append(upper, 0), append(lower, 16+8*(row-4)+depth)
		}
	}
	return append(upper, lower...)
}

func load(name string, r Register) { MOVQ(place(name), r) }
