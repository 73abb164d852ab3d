package main

// outer sums outer products: 24 sums, six vectors of the right factor and one of four
// elements of the left.
func (a *assembly) outer() {
	const rows, count, line = 4, 6, 4 * 96
	f := a.function("neonOuter", "func(k int, a *float32, astep int, b *float32, bstep int, c, ahead *float32)", "is a part of vectors.outer.")
	k, left, right, c := f.load("k"), f.load("a"), f.load("b"), f.load("c")
	astep, bstep := f.load("astep"), f.load("bstep")
	f.do("LSL $2, %s", astep)
	f.do("LSL $2, %s", bstep)
	ahead := f.load("ahead")
	var acc [rows]lanes
	for i := range acc {
		acc[i] = f.zeros(count)
	}
	var row lanes
	for range count {
		row = append(row, f.pin())
	}
	x := f.pin()
	f.label("depth")
	f.do("PRFM (%s), PLDL2KEEP", ahead)
	f.do("PRFM 64(%s), PLDL2KEEP", ahead)
	for j := 0; j < count; j += 2 {
		f.loadPair(16*j, right, row[j], row[j+1])
	}
	f.do("FMOVQ (%s), %s", left, scalar{x})
	for i := range acc {
		for j, v := range acc[i] {
			f.byElement(fmlaElement, v, row[j], x, i)
		}
	}
	f.do("ADD %s, %s", astep, left)
	f.do("ADD %s, %s", bstep, right)
	f.do("ADD %s, %s", bstep, ahead)
	f.do("SUB $1, %s", k)
	f.do("CBNZ %s, depth", k)
	for i := range acc {
		for j := 0; j < count; j += 2 {
			f.loadPair(16*j, c, row[j], row[j+1])
			for _, n := range []int{j, j + 1} {
				f.emit(fadd, row[n], row[n], acc[i][n])
			}
			f.storePair(row[j], row[j+1], 16*j, c)
		}
		f.do("ADD $%d, %s", line, c)
	}
	f.end()
}
