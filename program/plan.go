package program

import (
	"cmp"
	"fmt"
	"slices"

	"graft/kernels"
)

// slot is a stretch of the arena and the operations between which it is taken.
// Values that are computed in place share one.
type slot struct {
	bytes       int
	first, last int
	offset      int
}

// Plan is the place of every value in one arena.
type Plan struct {
	Bytes int // of the arena
	Held  int // of all values together, were none to share memory

	program *Program
	slots   map[*Value]*slot // by root
}

const alignment = 64

// Plan lays the values out for steps of at most max: each lives from the first
// operation that touches it to the last, and takes the place of another Apart
// operations later at the earliest.
func (p *Program) Plan(max Counts) *Plan {
	plan := &Plan{program: p, slots: map[*Value]*slot{}}
	var order []*slot
	for _, v := range p.values {
		if v.root == v && v.Buf == nil {
			s := &slot{bytes: roundUp(max.rows(v.count, v.fixed) * v.Cols * v.DType.Size()), first: -1}
			plan.slots[v] = s
			order = append(order, s)
			plan.Held += s.bytes
		}
	}
	plan.live()
	plan.share()
	used := map[*slot]bool{}
	for _, s := range plan.slots {
		used[s] = true
	}
	order = slices.DeleteFunc(order, func(s *slot) bool { return s.first < 0 || !used[s] })
	plan.Bytes = place(order, p.Apart)
	return plan
}

func roundUp(n int) int { return (n + alignment - 1) / alignment * alignment }

func (plan *Plan) live() {
	p := plan.program
	for i, op := range p.Ops {
		op.Operands(func(t **kernels.Tensor, _ kernels.Access) {
			if s := plan.slots[p.value(*t).root]; s != nil {
				if s.first < 0 {
					s.first = i
				}
				s.last = i
			}
		})
	}
	for v, s := range plan.slots {
		if p.kept[v] && s.first >= 0 {
			s.last = len(p.Ops)
		}
	}
	for _, v := range p.inputs { // filled before the first operation
		if s := plan.slots[v]; s.first >= 0 {
			s.first, s.last = 0, len(p.Ops)
		}
	}
}

// share lets an operation write its result over an input that nothing reads
// afterwards, where its kind allows that.
func (plan *Plan) share() {
	p := plan.program
	for i, op := range p.Ops {
		kernels.InPlace(op, func(out, in *kernels.Tensor) {
			o, v := p.value(out).root, p.value(in).root
			from, to := plan.slots[v], plan.slots[o]
			if from == nil || to == nil || from == to || p.value(in) != v || p.value(out) != o {
				return
			}
			if from.last != i || to.first != i || from.bytes != to.bytes || o.count != v.count || p.reads(op, v) > 1 || plan.writes(op, from) {
				return
			}
			from.last = to.last
			plan.slots[o] = from
		})
	}
}

// writes says whether an output of op has a slot already.
func (plan *Plan) writes(op kernels.Op, s *slot) (taken bool) {
	op.Operands(func(t **kernels.Tensor, a kernels.Access) {
		taken = taken || a == kernels.Write && plan.slots[plan.program.value(*t).root] == s
	})
	return taken
}

// reads counts the operands of op that lie in the memory of v.
func (p *Program) reads(op kernels.Op, v *Value) int {
	n := 0
	op.Operands(func(t **kernels.Tensor, _ kernels.Access) {
		if p.value(*t).root == v {
			n++
		}
	})
	return n
}

// place gives slots offsets, the largest first, each at the lowest offset
// where it overlaps no slot alive at the same time or less than apart operations
// before or after, and returns the height.
func place(slots []*slot, apart int) int {
	slices.SortStableFunc(slots, func(a, b *slot) int { return cmp.Compare(b.bytes, a.bytes) })
	var placed []*slot // by offset
	height := 0
	for _, s := range slots {
		at := 0
		for _, q := range placed {
			if q.last+apart < s.first || s.last+apart < q.first {
				continue
			}
			if q.offset >= at+s.bytes {
				break
			}
			at = max(at, q.offset+q.bytes)
		}
		s.offset = at
		height = max(height, at+s.bytes)
		i, _ := slices.BinarySearchFunc(placed, at, func(q *slot, at int) int { return cmp.Compare(q.offset, at) })
		placed = slices.Insert(placed, i, s)
	}
	return height
}

// Place points all values into an arena of at least plan.Bytes.
func (plan *Plan) Place(arena kernels.Buffer) {
	if arena.Size() < plan.Bytes {
		panic(fmt.Sprintf("program: arena of %d bytes, plan of %d", arena.Size(), plan.Bytes))
	}
	for _, v := range plan.program.values {
		if s := plan.slots[v.root]; s != nil {
			v.Buf, v.Off = arena, s.offset+v.col*v.DType.Size()
		} else if v.root != v {
			v.Buf, v.Off = v.root.Buf, v.root.Off+v.col*v.DType.Size()
		}
	}
}
