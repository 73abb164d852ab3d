package metal

import "graft/kernels"

// schedule forms groups of operations that can share launches. (To come: it
// moves operations forward; now each is a group.)
func schedule(ops []kernels.Op, groups []group) []group {
	for i, op := range ops {
		groups = append(groups, group{ops: []int{i}, list: []kernels.Op{op}})
	}
	return groups
}
