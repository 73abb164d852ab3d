package metal

import (
	"fmt"
	"slices"

	"graft/kernels"
)

// weightTypes are the types that kernels read by a number known only when they
// run: their place in this list, which operands.h repeats.
var weightTypes = []kernels.DType{
	kernels.F32, kernels.F16, kernels.BF16, kernels.F64, kernels.Q8_0, kernels.Q4_0, kernels.Q4_1, kernels.Q5_0, kernels.Q5_1,
	kernels.Q4_K, kernels.Q5_K, kernels.Q6_K, kernels.Affine4, kernels.Affine8,
}

func weightType(d kernels.DType) uint32 {
	i := slices.Index(weightTypes, d)
	if i < 0 {
		panic(fmt.Sprintf("metal: kernels do not read %v", d))
	}
	return uint32(i)
}
