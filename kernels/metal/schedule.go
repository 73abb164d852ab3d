package metal

import "graft/kernels"

// lookBack is how many groups before it an operation may join.
const lookBack = 8

// schedule forms groups of operations that share launches: an operation joins an
// earlier group of its kind if nothing from there on writes what it reads, reads
// or writes what it writes. A layer's q, k and v become one launch, and so do
// gradients of weights that are ready together.
func schedule(ops []kernels.Op) []group {
	var groups []group
	for i, op := range ops {
		if g := home(groups, op); g != nil {
			g.ops = append(g.ops, i)
			g.list = append(g.list, op)
			continue
		}
		groups = append(groups, group{ops: []int{i}, list: []kernels.Op{op}})
	}
	return groups
}

// home returns the group that op joins, or nil.
func home(groups []group, op kernels.Op) *group {
	for i := len(groups) - 1; i >= max(0, len(groups)-lookBack); i-- {
		g := &groups[i]
		for _, other := range g.list {
			if conflict(op, other) {
				return nil
			}
		}
		if canJoin(g.list, op) {
			return g
		}
	}
	return nil
}

// canJoin reports whether op is of a kind that shares the launch of list.
func canJoin(list []kernels.Op, op kernels.Op) bool {
	switch op.(type) {
	case *kernels.Rotary:
		_, same := list[0].(*kernels.Rotary)
		return same && len(list) == 1
	case *kernels.Gather:
		_, same := list[0].(*kernels.Gather)
		return same && len(list) == 1
	case *kernels.Scatter:
		_, same := list[0].(*kernels.Scatter)
		return same && len(list) == 1
	}
	return canJoinProducts(list, op)
}

// conflict reports whether the order of two operations matters.
func conflict(a, b kernels.Op) bool {
	found := false
	a.Operands(func(x **kernels.Tensor, ax kernels.Access) {
		b.Operands(func(y **kernels.Tensor, ay kernels.Access) {
			if (ax != kernels.Read || ay != kernels.Read) && overlap(*x, *y) {
				found = true
			}
		})
	})
	return found
}

// overlap reports whether two tensors may share elements. Column slices of one
// matrix do not.
func overlap(a, b *kernels.Tensor) bool {
	if a.Buf != b.Buf || a.Len() == 0 || b.Len() == 0 {
		return false
	}
	aEnd := a.Off + a.DType.Bytes((a.Rows-1)*a.Stride+a.Cols)
	bEnd := b.Off + b.DType.Bytes((b.Rows-1)*b.Stride+b.Cols)
	if aEnd <= b.Off || bEnd <= a.Off {
		return false
	}
	pitch := a.DType.Bytes(a.Stride)
	if pitch != b.DType.Bytes(b.Stride) || a.Rows == 1 || b.Rows == 1 {
		return true
	}
	// Both repeat every pitch bytes: compare where in a period they lie.
	distance := ((b.Off-a.Off)%pitch + pitch) % pitch
	return distance < a.DType.Bytes(a.Cols) || distance+b.DType.Bytes(b.Cols) > pitch
}
