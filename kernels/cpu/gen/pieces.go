package main

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// amx is AVX-512 with a unit that multiplies tiles of bfloat16: of sixteen lines of 64 bytes.
var amx = set{"amx", 16, func() VecVirtual { return ZMM() }}

// The layout of packed pieces (../pieces.go), in bytes: 32 lines of 32 elements each.
const (
	lineBytes  = 64
	tileBytes  = 16 * lineBytes
	pieceBytes = 2 * tileBytes
)

// pieces is the product of matrices of float32 that are cut into pieces of bfloat16.
func pieces() {
	splitRow()
	splitHalfRow()
	whole := func(n int) lineWriter {
		return func(src, later Mem, upper, round Register, place func(int) Mem) {
			split(isa.set(src), isa.set(later), n, upper, round, place)
		}
	}
	half := func(src, _ Mem, upper, round Register, place func(int) Mem) {
		splitHalf(isa.set(src), rightShared, upper, round, place)
	}
	splitColumns("SplitColumns", "splitColumns for as many pieces", 4, 3, whole(3))
	splitColumns("SplitHalfColumns", "splitColumns for as many pieces", 4, len(rightShared), half)
	splitColumns("SplitColumn", "splitColumns for as many pieces", 4, 1, whole(1))
	splitColumns("JoinColumns", "joinColumns", 2, 1, join)
	for _, t := range types {
		splitAcross(t)
	}
	multiplyPieces()
	peakPieces()
}

// split writes the pieces, so many, of two vectors: the pieces of a in the lower halves of words,
// those of b in the upper ones. A piece is what is left, rounded to eight bits; the last one
// needs no rounding.
func split(a, b VecVirtual, n int, upper, round Register, place func(piece int) Mem) {
	for i := range n {
		hi, lo := b, ZMM()
		if i < n-1 {
			VPSRLD(Imm(16), takePiece(a, upper, round), lo)
			hi = takePiece(b, upper, round)
			VPORD(hi, lo, lo)
		} else {
			VPSRLD(Imm(16), a, lo)
			VPTERNLOGD(Imm(0xf8), upper, hi, lo) // lo | hi & upper
		}
		VMOVUPS(lo, place(i))
	}
}

// takePiece takes the next piece from what is left of a vector, and returns it.
func takePiece(rest VecVirtual, upper, round Register) VecVirtual {
	piece := ZMM()
	VPADDD(round, rest, piece)
	VPANDD(upper, piece, piece)
	VSUBPS(piece, rest, rest)
	return piece
}

// splitHalf writes lines of a vector's three pieces, two in each, as shared says: the first in the
// lower halves of words.
func splitHalf(a VecVirtual, shared [][2]int, upper, round Register, place func(line int) Mem) {
	pieces := []VecVirtual{takePiece(a, upper, round), takePiece(a, upper, round), a}
	VPANDD(upper, a, a)
	for i, two := range shared {
		line := ZMM()
		VPSRLD(Imm(16), pieces[two[0]], line)
		VPORD(pieces[two[1]], line, line)
		VMOVUPS(line, place(i))
	}
}

// The pieces that share lines, of the left factor and of the right one, and the products of
// lines that add up the six products of pieces, each once.
var (
	leftShared    = [][2]int{{0, 1}, {1, 0}, {2, 0}}
	rightShared   = [][2]int{{0, 1}, {0, 2}}
	sharedProduct = []pair{{2, 1}, {1, 0}, {0, 0}}
)

// splitConstants returns what split takes.
func splitConstants() (upper, round Register) {
	u, r := ZMM(), ZMM()
	VMOVUPS(word(0xffff0000), u)
	VMOVUPS(word(0x8000), r)
	return u, r
}

// splitRow writes a line of each block of the left factor, zeros behind the row's end.
func splitRow() {
	declare("SplitRow", "func(dst, src *float32, k int)", "pieceVectors.splitRow")
	dst, src, k := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("k"), GP64())
	upper, round := splitConstants()
	write := func(a, b VecVirtual) {
		split(a, b, 3, upper, round, func(i int) Mem { return Mem{Base: dst, Disp: i * pieceBytes} })
	}
	Label("loop")
	CMPQ(k, Imm(32))
	JL(LabelRef("rest"))
	a, b := isa.set(Mem{Base: src}), isa.set(Mem{Base: src, Disp: lineBytes})
	write(a, b)
	ADDQ(U32(3*pieceBytes), dst)
	ADDQ(U32(2*lineBytes), src)
	SUBQ(Imm(32), k)
	JMP(LabelRef("loop"))
	Label("rest")
	TESTQ(k, k)
	JZ(LabelRef("done"))
	mask, m := GP64(), K()
	MOVQ(U64(1<<32-1), mask)
	BZHIQ(k, mask, mask)
	a, b = ZMM(), ZMM()
	KMOVW(mask.As32(), m)
	VMOVUPS_Z(Mem{Base: src}, m, a)
	SHRQ(Imm(16), mask)
	KMOVW(mask.As32(), m)
	VMOVUPS_Z(Mem{Base: src, Disp: lineBytes}, m, b)
	write(a, b)
	Label("done")
	end()
}

// splitHalfRow writes a line of at most half a block of the left factor, zeros behind its end.
func splitHalfRow() {
	declare("SplitHalfRow", "func(dst, src *float32, k int)", "pieceVectors.splitHalfRow")
	dst, src, k := Load(Param("dst"), GP64()), Load(Param("src"), GP64()), Load(Param("k"), GP64())
	upper, round := splitConstants()
	mask, m, a := GP64(), K(), ZMM()
	MOVQ(U64(1<<16-1), mask)
	BZHIQ(k, mask, mask)
	KMOVW(mask.As32(), m)
	VMOVUPS_Z(Mem{Base: src}, m, a)
	splitHalf(a, leftShared, upper, round, func(i int) Mem { return Mem{Base: dst, Disp: i * pieceBytes} })
	end()
}

// lineWriter writes lines of the elements at two places.
type lineWriter func(src, later Mem, upper, round Register, place func(line int) Mem)

// join writes the one piece of elements that are bfloat16.
func join(src, later Mem, _, _ Register, place func(line int) Mem) {
	lo, hi := ZMM(), ZMM()
	VPMOVZXWD(src, lo)
	VPMOVZXWD(later, hi)
	VPSLLD(Imm(16), hi, hi)
	VPORD(hi, lo, lo)
	VMOVUPS(lo, place(0))
}

// splitColumns writes half of the lines of each block of a factor whose lines lie across, n for the
// elements, of so many bytes, of a row and of one that is later: rows follow each other in blocks
// of sixteen.
func splitColumns(name, field string, size, n int, write lineWriter) {
	places := "dst, src *float32"
	if size == 2 {
		places = "dst *float32, src *byte"
	}
	declare(name, "func("+places+", row, later, blocks, apart int)", "pieceVectors."+field)
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	row, blocks, apart := Load(Param("row"), GP64()), Load(Param("blocks"), GP64()), Load(Param("apart"), GP64())
	later, lines := Load(Param("later"), GP64()), GP64()
	for _, r := range []Register{row, later, apart} {
		SHLQ(Imm(uint64(size/2)), r)
	}
	upper, round := splitConstants()
	Label("block")
	MOVQ(U32(16), lines)
	Label("line")
	write(Mem{Base: src}, Mem{Base: src, Index: later, Scale: 1}, upper, round, func(i int) Mem { return Mem{Base: dst, Disp: i * pieceBytes} })
	ADDQ(row, src)
	ADDQ(Imm(lineBytes), dst)
	DECQ(lines)
	JNZ(LabelRef("line"))
	ADDQ(apart, src)
	ADDQ(U32(uint32(n*pieceBytes-tileBytes)), dst)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	end()
}

// splitAcross transposes the elements of sixteen rows, and writes half of the lines of each block.
func splitAcross(t stored) {
	pieces := 3
	if t.name == "BF16" {
		pieces = 1
	}
	declare("SplitAcross"+t.name, "func(dst *float32, src *byte, stride, blocks int)", "pieceVectors.splitAcross")
	dst, src := Load(Param("dst"), GP64()), Load(Param("src"), GP64())
	stride, blocks := Load(Param("stride"), GP64()), Load(Param("blocks"), GP64())
	upper, round := splitConstants()
	p, r := newPanelRows(src, stride), newTransposed()
	Label("block")
	for at := 0; at < 32*t.size; at += lineBytes {
		for i := range cols {
			PREFETCHT0(p.next(i).Offset(at))
		}
	}
	for first := 0; first < 16; first += 8 {
		depths := func(from int) [8]VecVirtual {
			return transpose(t, r, func(i int) Mem { return p.row(i).Offset(from * t.size) })
		}
		sooner, later := depths(first), depths(16+first)
		for d := range sooner {
			split(sooner[d], later[d], pieces, upper, round, func(i int) Mem { return Mem{Base: dst, Disp: i*pieceBytes + (first+d)*lineBytes} })
		}
	}
	p.move(32 * t.size)
	ADDQ(U32(uint32(pieces*pieceBytes)), dst)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	end()
}

// Tiles of the unit: four of the result, two of either factor.
const (
	sumTiles   = 0
	leftTiles  = 4
	rightTiles = 6
)

// multiplyPieces takes panel after panel of the right factor, 32 columns each, down the groups of
// the left one, 32 rows each. The small products of a block come first. From one to the next,
// one factor stays. Sums of a group lie aside until the next group's products, of this panel or of
// the next one, beside which they go to C.
func multiplyPieces() {
	declare("Multiply", "func(m, n int, left, right *float32, one, two, three, apart int, sums, c *float32, ldc int, add bool)", "pieceVectors.multiply")
	p := &unitLoop{m: R11, left: RDI, right: RSI, count: RCX, sums: RBX, rows: RDX, c: R9, ldc: R8, ahead: R12, line: R13,
		cols: RAX, panel: R10, top: R14, asked: R15}
	configure()
	Load(Param("n"), p.cols)
	Load(Param("right"), p.panel)
	Load(Param("c"), p.top)
	Load(Param("ldc"), p.ldc)
	SHLQ(Imm(2), p.ldc)
	MOVQ(U32(lineBytes), p.line)
	XORL(p.rows.As32(), p.rows.As32())

	Label("panel")
	Load(Param("m"), p.m)
	Load(Param("left"), p.left)
	Load(Param("apart"), p.ahead)
	SHLQ(Imm(2), p.ahead)
	MOVQ(p.ahead, p.asked)
	ADDQ(p.panel, p.ahead)
	ADDQ(p.ahead, p.asked)
	Label("group")
	MOVQ(p.panel, p.right)
	for t := range 4 {
		clearTile(sumTiles + t)
	}
	p.blocks("one", 1, []pair{{2, 0}, {1, 0}, {0, 0}})
	p.blocks("two", 2, sharedProduct)
	p.blocks("three", 3, []pair{{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}})
	p.finish("last")
	CMPQ(p.m, place("m"))
	JNE(LabelRef("down"))
	MOVQ(p.top, p.c)
	ADDQ(U32(2*lineBytes), p.top)
	p.setMasks()
	Label("down")
	Load(Param("sums"), p.sums)
	MOVQ(U32(2*lineBytes), p.count)
	for t := range 4 {
		storeTile(sumTiles+t, memory(p.sums, p.count, t/2*2*tileBytes+t%2*lineBytes))
	}
	MOVQ(U32(32), p.rows)
	CMPQ(p.m, p.rows)
	CMOVQLT(p.m, p.rows)
	SUBQ(Imm(32), p.m)
	JG(LabelRef("group"))
	Load(Param("apart"), p.count)
	LEAQ(Mem{Base: p.panel, Index: p.count, Scale: 4}, p.panel)
	SUBQ(Imm(32), p.cols)
	JG(LabelRef("panel"))
	p.finish("end")
	release()
	end()
}

// unitLoop is the state of multiplyPieces: rows of C from c on still have to come from sums. The
// next panel's are at top, and cols are the columns from the current panel on. What is from ahead to
// asked is to be asked for.
type unitLoop struct {
	m, left, right, count, sums, rows, c, ldc, ahead, line, cols, panel, top, asked GPPhysical
}

// asks is how many lines are asked for with each pair of pieces: all of a panel of three
// while as many groups go by as there usually are.
const asks = 3

// The masks of a row's two vectors: of columns that there are, and of those whose old values count.
var existing, addedTo = []Register{K1, K2}, []Register{K3, K4}

// setMasks is for the current panel, when no rows are left.
func (p *unitLoop) setMasks() {
	MOVQ(U64(1<<32-1), p.sums)
	MOVQ(U32(32), p.count)
	CMPQ(p.cols, p.count)
	CMOVQLT(p.cols, p.count)
	BZHIQ(p.count, p.sums, p.sums)
	XORL(p.rows.As32(), p.rows.As32())
	CMPB(place("add"), Imm(0))
	CMOVQNE(p.sums, p.rows)
	for i := range existing {
		KMOVW(p.sums.As32(), existing[i])
		KMOVW(p.rows.As32(), addedTo[i])
		SHRQ(Imm(cols), p.sums)
		SHRQ(Imm(cols), p.rows)
	}
}

// blocks multiplies pairs of pieces of so many blocks. The tiles of the next pair, of the next block at
// last, are loaded one by one as soon as they are free, while others are multiplied.
func (p *unitLoop) blocks(count string, pieces int, pairs []pair) {
	label := func(name string) string { return count + "_" + name }
	Load(Param(count), p.count)
	TESTQ(p.count, p.count)
	JZ(LabelRef(label("done")))
	for _, t := range pairs[0].tiles() {
		p.load(t)
	}
	block := func(suffix string, next pair) {
		p.aside(func(name string) string { return label(name + suffix) })
		all := append(slices.Clip(pairs), next)
		for n, pair := range pairs {
			asked := label(fmt.Sprint("asked", n, suffix))
			CMPQ(p.ahead, p.asked)
			JAE(LabelRef(asked))
			for i := range asks {
				PREFETCHT1(Mem{Base: p.ahead, Disp: i * lineBytes})
			}
			ADDQ(U32(asks*lineBytes), p.ahead)
			Label(asked)
			p.multiply(pair, all[n+1])
		}
		ADDQ(U32(3*pieceBytes), p.left)
		ADDQ(U32(uint32(pieces*pieceBytes)), p.right)
	}
	DECQ(p.count)
	JZ(LabelRef(label("last")))
	Label(label("block"))
	block("", pairs[0].later(3, pieces))
	DECQ(p.count)
	JNZ(LabelRef(label("block")))
	Label(label("last"))
	block("_of_last", pairs[len(pairs)-1]) // after which nothing is loaded
	Label(label("done"))
}

// pair is one piece of the left factor and one of the right, counted from a block's first.
type pair struct{ left, right int }

// later is the same pair of the next block.
func (x pair) later(left, right int) pair { return pair{x.left + left, x.right + right} }

// input is half of a piece, of the left factor or of the right one.
type input struct{ side, half, piece int }

const (
	leftSide = iota
	rightSide
)

// tiles returns what is loaded for a pair.
func (x pair) tiles() []input {
	return []input{{leftSide, 0, x.left}, {rightSide, 0, x.right}, {rightSide, 1, x.right}, {leftSide, 1, x.left}}
}

// load loads an input into its tile.
func (p *unitLoop) load(t input) {
	tile, from := leftTiles, p.left
	if t.side == rightSide {
		tile, from = rightTiles, p.right
	}
	loadTile(tile+t.half, memory(from, p.line, t.piece*pieceBytes+t.half*tileBytes))
}

// multiply multiplies the four tiles of a pair, and loads those that the next one needs. What
// stays for it is used in turn, so that the others are free soon.
func (p *unitLoop) multiply(now, next pair) {
	order := [][2]int{{0, 0}, {0, 1}, {1, 0}, {1, 1}} // halves, by side
	if now.left == next.left {
		order = [][2]int{{0, 0}, {1, 0}, {0, 1}, {1, 1}}
	}
	there := now.tiles()
	for n, halves := range order {
		left, right := halves[leftSide], halves[rightSide]
		multiplyTiles(sumTiles+2*left+right, leftTiles+left, rightTiles+right)
		for i, t := range next.tiles() {
			uses := func(halves [2]int) bool { return halves[t.side] == t.half }
			if there[i] != t && uses(halves) && !slices.ContainsFunc(order[n+1:], uses) {
				p.load(t)
			}
		}
	}
}

// aside does what goes on beside a block's products.
func (p *unitLoop) aside(label func(name string) string) {
	// The vectors' unit goes to sleep without work, and to wake it for the sums, which it
	// stores, would take a thousand cycles.
	VPXORD(Z0, Z0, Z0)
	VADDPS(Z0, Z0, Z0)
	TESTQ(p.rows, p.rows)
	JZ(LabelRef(label("multiply")))
	p.row()
	JZ(LabelRef(label("multiply")))
	p.row()
	Label(label("multiply"))
}

// finish takes what rows are left to C.
func (p *unitLoop) finish(label string) {
	TESTQ(p.rows, p.rows)
	JZ(LabelRef(label + "_done"))
	Label(label)
	p.row()
	JNZ(LabelRef(label))
	Label(label + "_done")
}

// row adds a row of sums to C. The flags tell whether others are left.
func (p *unitLoop) row() {
	var v [2]VecVirtual
	for i := range v {
		v[i] = isa.set(Mem{Base: p.sums, Disp: i * lineBytes})
	}
	for i := range v { // of eight rows later
		PREFETCHT0(Mem{Base: p.c, Index: p.ldc, Scale: 8, Disp: i * lineBytes})
	}
	for i, x := range v {
		old, at := ZMM(), Mem{Base: p.c, Disp: i * lineBytes}
		VMOVUPS_Z(at, addedTo[i], old)
		VADDPS(old, x, old)
		VMOVUPS(old, existing[i], at)
	}
	ADDQ(U32(2*lineBytes), p.sums)
	ADDQ(p.ldc, p.c)
	DECQ(p.rows)
}

// peakPieces does nothing but multiply.
func peakPieces() {
	declare("Products", "func(rounds int)", "vectors.peak: rounds of four independent products of tiles")
	n := RCX
	Load(Param("rounds"), n)
	configure()
	for t := range 8 {
		clearTile(t)
	}
	Label("loop")
	for t := range 4 {
		multiplyTiles(sumTiles+t, leftTiles+t/2, rightTiles+t%2)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))
	release()
	end()
}

// What avo and Go's assembler do not know is written in bytes (Intel's manual, volume 2): a VEX
// prefix of three bytes, which tell operations of one number apart, the number, and the operands.
const (
	none      byte = 0
	repeat    byte = 2
	repeatNot byte = 3
)

// operand is what an instruction says of a tile, or of a place in memory.
type operand struct {
	x, b byte // the upper bits of its registers
	code []byte
}

// tileOperand is a tile.
func tileOperand(t int) operand { return operand{code: []byte{0xc0 | byte(t)}} }

// memory is from base on, its lines index bytes apart where there is one.
func memory(base, index Physical, disp int) operand {
	i, b := byte(4), byte(base.PhysicalIndex()) // 4: none
	if index != nil {
		i = byte(index.PhysicalIndex())
	}
	return operand{i >> 3, b >> 3, binary.LittleEndian.AppendUint32([]byte{0x84, i&7<<3 | b&7}, uint32(disp))}
}

// unit writes an instruction of the unit, with a prefix, for a tile, another operand and a
// third tile.
func unit(prefix, operation byte, tile int, o operand, third int) {
	code := []byte{0xc4, 0xe2 ^ o.x<<6 ^ o.b<<5, 0x78 ^ byte(third)<<3 | prefix, operation, o.code[0] | byte(tile)<<3}
	for _, b := range append(code, o.code[1:]...) {
		Instruction(&ir.Instruction{Opcode: "BYTE", Operands: []Op{Imm(uint64(b))}})
	}
}

// multiplyTiles adds the product of two tiles to a third.
func multiplyTiles(sum, left, right int) { unit(repeat, 0x5c, sum, tileOperand(left), right) }

func clearTile(t int) { unit(repeatNot, 0x49, t, tileOperand(0), 0) }

func loadTile(t int, m operand) { unit(repeatNot, 0x4b, t, m, 0) }

func storeTile(t int, m operand) { unit(repeat, 0x4b, t, m, 0) }

// configure gives all tiles their size; release lets the system forget them.
func configure() {
	LEAQ(tileSizes(), RAX)
	unit(none, 0x49, 0, memory(RAX, nil, 0), 0)
}

func release() { unit(none, 0x49, 0, tileOperand(0), 0) }

// tileSizes returns the sizes of eight tiles of sixteen lines.
func tileSizes() Mem {
	if sizes == nil {
		m := GLOBL("tile_sizes", attr.RODATA|attr.NOPTR)
		DATA(0, U64(1)) // the palette
		DATA(8, U64(0))
		DATA(16, U64(equal(4, 16, lineBytes)))
		DATA(24, U64(equal(4, 16, lineBytes)))
		DATA(32, U64(0))
		DATA(40, U64(0))
		DATA(48, U64(equal(8, 8, 16)))
		DATA(56, U64(0))
		sizes = &m
	}
	return *sizes
}

var sizes *Mem

// equal returns n equal numbers of so many bits.
func equal(n, bits int, x uint64) (all uint64) {
	for range n {
		all = all<<bits | x
	}
	return all
}
