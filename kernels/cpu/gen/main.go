// Command gen writes the AVX2 and AVX-512 kernels of package cpu: assembly and its Go
// declarations. It has a module of its own, so that graft does not depend on
// avo. Run it with go generate in the folder above.
package main

import (
	. "github.com/mmcloughlin/avo/build"
)

func main() {
	ConstraintExpr("amd64")
	for _, isa = range []set{avx2, avx512} {
		tiles()
		strassen()
		outer()
		packing()
		vectorKernels()
		reductions()
		activations()
		rowKernels()
		optimizer()
		peak()
	}
	isa = amx
	pieces()
	isa = avx2 // these have no wide form
	quantised()
	sumSquares64()
	dropout()
	identity()
	pause()
	Generate()
}
