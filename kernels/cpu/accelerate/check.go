package accelerate

import (
	"fmt"
	"math"
)

// check panics unless a rows×cols matrix, rows ld elements apart, lies in n
// elements: C would read and write beyond them.
func check(name string, rows, cols, ld, n int) {
	if rows < 1 || cols < 1 || ld < cols || max(rows, ld) > math.MaxInt32 || n < (rows-1)*ld+cols {
		panic(fmt.Sprintf("accelerate: %s is %d×%d, rows %d apart, in %d elements", name, rows, cols, ld, n))
	}
}

// stored returns the shape of a factor as it lies in memory.
func stored(rows, cols int, trans bool) (int, int) {
	if trans {
		return cols, rows
	}
	return rows, cols
}
