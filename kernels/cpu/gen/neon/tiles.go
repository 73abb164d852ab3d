package main

const (
	rows = 6
	cols = 16
)

// tile is the state of a 6×16 micro-kernel: 24 sums, four vectors of the right
// factor and up to four of the left one make up the 32 registers.
type tile struct {
	f   *function
	acc [rows]lanes
	b   lanes
	a   lanes
}

func (a *assembly) tiles() {
	a.tilePacked()
	a.tile()
}

func newTile(f *function) *tile {
	t := &tile{f: f}
	for i := range t.acc {
		t.acc[i] = f.zeros(cols / 4)
	}
	for range 4 {
		t.b, t.a = append(t.b, f.pin()), append(t.a, f.pin())
	}
	return t
}

// pair loads two vectors from memory, or stores them.
func (f *function) loadPair(at int, base reg, x, y *vec) {
	f.do("FLDPQ %d(%s), (%s, %s)", at, base, scalar{x}, scalar{y})
}

func (f *function) storePair(x, y *vec, at int, base reg) {
	f.do("FSTPQ (%s, %s), %d(%s)", scalar{x}, scalar{y}, at, base)
}

// row loads 16 elements into b.
func (t *tile) row(at int, base reg) {
	t.f.loadPair(at, base, t.b[0], t.b[1])
	t.f.loadPair(at+32, base, t.b[2], t.b[3])
}

// add adds b times an element of the left factor to the sums of row i.
func (t *tile) add(i int, a *vec, element int) {
	for j, acc := range t.acc[i] {
		t.f.byElement(fmlaElement, acc, t.b[j], a, element)
	}
}

// prefetch asks for the rows of C, which are needed at the end.
func (f *function) prefetch(c, ldc reg) {
	p := f.gp()
	f.do("MOVD %s, %s", c, p)
	for range rows {
		f.do("PRFM (%s), PLDL1KEEP", p)
		f.do("PRFM 60(%s), PLDL1KEEP", p)
		f.do("ADD %s, %s", ldc, p)
	}
}

// store writes alpha times the sums, or adds them.
func (t *tile) store(c, ldc reg) {
	f, alpha := t.f, t.a[:1]
	f.do("FMOVS %s, %s", f.place("alpha"), scalar{alpha[0]})
	f.do("VDUP %v.S[0], %v.S4", alpha[0], alpha[0])
	add := f.gp()
	f.do("MOVBU %s, %s", f.place("add"), add)
	f.do("CBZ %s, overwrite", add)
	for _, acc := range t.acc {
		t.row(0, c)
		t.b.addProduct(acc, alpha)
		t.writeRow(t.b, c, ldc)
	}
	f.do("RET")
	f.label("overwrite")
	for _, acc := range t.acc {
		acc.update(fmul, alpha)
		t.writeRow(acc, c, ldc)
	}
	f.end()
}

func (t *tile) writeRow(x lanes, c, ldc reg) {
	t.f.storePair(x[0], x[1], 0, c)
	t.f.storePair(x[2], x[3], 32, c)
	t.f.do("ADD %s, %s", ldc, c)
}

func (a *assembly) tilePacked() {
	f := a.function("neonTilePacked", "func(k int, a, b, c *float32, ldc int, alpha float32, add bool, ahead *float32)", "is vectors.tilePacked.")
	k, left, right, c, ldc, ahead := f.load("k"), f.load("a"), f.load("b"), f.load("c"), f.load("ldc"), f.load("ahead")
	f.do("LSL $2, %s", ldc)
	f.prefetch(c, ldc)
	t := newTile(f)
	const unroll = 8
	f.label("unrolled")
	f.do("CMP $%d, %s", unroll, k)
	f.do("BLT single")
	f.do("PRFM (%s), PLDL2KEEP", ahead)
	f.do("ADD $64, %s", ahead)
	for u := 0; u < unroll; u += 2 { // two depths of the left factor fill three vectors
		f.loadPair(24*u, left, t.a[0], t.a[1])
		f.do("FMOVQ %d(%s), %s", 24*u+32, left, scalar{t.a[2]})
		for depth := range 2 {
			t.row(64*(u+depth), right)
			for i := range rows {
				e := depth*rows + i
				t.add(i, t.a[e/4], e%4)
			}
		}
	}
	f.do("ADD $%d, %s", 24*unroll, left)
	f.do("ADD $%d, %s", 64*unroll, right)
	f.do("SUB $%d, %s", unroll, k)
	f.do("B unrolled")
	f.label("single")
	f.do("CBZ %s, store", k)
	f.do("FMOVQ (%s), %s", left, scalar{t.a[0]})
	f.do("FMOVD 16(%s), %s", left, scalar{t.a[1]})
	t.row(0, right)
	for i := range rows {
		t.add(i, t.a[i/4], i%4)
	}
	f.do("ADD $24, %s", left)
	f.do("ADD $64, %s", right)
	f.do("SUB $1, %s", k)
	f.do("B single")
	f.label("store")
	t.store(c, ldc)
}

func (a *assembly) tile() {
	f := a.function("neonTile", "func(k int, a *float32, arow, astep int, b *float32, bstep int, c *float32, ldc int, alpha float32, add bool)", "is vectors.tile.")
	k, right, c := f.load("k"), f.load("b"), f.load("c")
	arow, astep, bstep, ldc := f.load("arow"), f.load("astep"), f.load("bstep"), f.load("ldc")
	for _, r := range []reg{arow, astep, bstep, ldc} {
		f.do("LSL $2, %s", r)
	}
	left := f.rowsFrom(f.load("a"), arow, rows)
	f.prefetch(c, ldc)
	t := newTile(f)
	at := f.gp() // bytes from the start of each row
	f.do("MOVD ZR, %s", at)
	f.label("depth")
	f.do("CBZ %s, store", k)
	t.row(0, right)
	for i, p := range left {
		a := t.a[i%len(t.a)]
		f.do("FMOVS (%s)(%s), %s", p, at, scalar{a})
		t.add(i, a, 0)
	}
	f.do("ADD %s, %s", astep, at)
	f.do("ADD %s, %s", bstep, right)
	f.do("SUB $1, %s", k)
	f.do("B depth")
	f.label("store")
	t.store(c, ldc)
}

// rowsFrom returns pointers to n rows, stride bytes apart.
func (f *function) rowsFrom(first, stride reg, n int) []reg {
	p := []reg{first}
	for i := 1; i < n; i++ {
		r := f.gp()
		f.do("ADD %s, %s, %s", stride, p[i-1], r)
		p = append(p, r)
	}
	return p
}
