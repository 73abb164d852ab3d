package metal

import (
	"fmt"
	"hash/maphash"
	"slices"
	"unsafe"

	"graft/kernels"
)

// encoder turns operations into launches. What a list of operations became is
// kept, and used again when the list comes with the same sizes.
type encoder struct {
	b     *Backend
	*list // under construction
	kept  map[listKey]*list
}

// list is the launches of a list of operations.
type list struct {
	launches []Launch
	groups   []group
	params   []byte // of all launches
}

// listKey names a list of operations, and the sizes and places of all operands.
type listKey struct {
	first *kernels.Op
	n     int
	shape uint64
}

// mostKept is how many encoded lists are kept: those of a few step sizes.
const mostKept = 8

// group is operations that are encoded together, and their launches.
type group struct {
	ops        []int // indices into the list
	list       []kernels.Op
	first, end int // launches
}

// encode returns the launches of a list of operations.
func (e *encoder) encode(ops []kernels.Op) *list {
	if len(ops) == 0 {
		return &list{}
	}
	key := listKey{&ops[0], len(ops), e.shape(ops)}
	if l := e.kept[key]; l != nil {
		e.renew(l)
		return l
	}
	l := &list{groups: schedule(ops)}
	e.list = l
	for i := range l.groups {
		g := &l.groups[i]
		g.first = len(l.launches)
		e.group(g.list)
		g.end = len(l.launches)
	}
	if e.kept == nil || len(e.kept) >= mostKept {
		e.kept = map[listKey]*list{}
	}
	e.kept[key] = l
	return l
}

// renew encodes again what changes from step to step without changing size.
func (e *encoder) renew(l *list) {
	for _, g := range l.groups {
		switch g.list[0].(type) {
		case *kernels.Dropout, *kernels.ClipNorm, *kernels.AdamW:
			e.list = &list{}
			e.group(g.list)
			copy(l.launches[g.first:g.end], e.launches)
		}
	}
}

var shapeSeed = maphash.MakeSeed()

// shape is a hash of the sizes and places of all operands, and of the working
// memory.
func (e *encoder) shape(ops []kernels.Op) uint64 {
	var h maphash.Hash
	h.SetSeed(shapeSeed)
	maphash.WriteComparable(&h, e.b.scratch)
	for _, op := range ops {
		op.Operands(func(t **kernels.Tensor, _ kernels.Access) {
			maphash.WriteComparable(&h, (*t).Buf)
			maphash.WriteComparable(&h, [4]int{(*t).Off, (*t).Rows, (*t).Cols, (*t).Stride})
		})
	}
	return h.Sum64()
}

// group encodes operations that are independent of one another: one, or several
// of a kind that shares launches.
func (e *encoder) group(ops []kernels.Op) {
	switch o := ops[0].(type) {
	case *kernels.Product, *kernels.WeightGrad:
		e.products(ops)
	case *kernels.Rotary:
		e.rotary(ops)
	case *kernels.RotaryTable:
		e.rotaryTable(o)
	case *kernels.Embed:
		e.embed(o)
	case *kernels.EmbedGrad:
		e.embedGrad(o)
	case *kernels.RMSNorm:
		e.rmsNorm(o)
	case *kernels.RMSNormGrad:
		e.rmsNormGrad(o)
	case *kernels.BiasGrad:
		e.biasGrad(o)
	case *kernels.Attention:
		e.attention(o)
	case *kernels.AttentionGrad:
		e.attentionGrad(o)
	case *kernels.Softmax:
		e.softmax(o)
	case *kernels.SoftmaxGrad:
		e.softmaxGrad(o)
	case *kernels.Gated:
		e.gated(o)
	case *kernels.GatedGrad:
		e.gatedGrad(o)
	case *kernels.Gather:
		e.gather(ops)
	case *kernels.Scatter:
		e.scatter(ops)
	case *kernels.CrossEntropy:
		e.crossEntropy(o)
	case *kernels.Sum:
		e.sum(o)
	case *kernels.Dropout:
		e.dropout(o)
	case *kernels.Zero:
		e.zero(o)
	case *kernels.ClipNorm:
		e.clipNorm(o)
	case *kernels.AdamW:
		e.adamW(o)
	default:
		panic(fmt.Sprintf("metal: no operation %T", o))
	}
}

func grid(x, y, z int) [3]int { return [3]int{x, y, z} }

// launch appends a launch unless its grid is empty. params is the address of
// the kernel's parameter structure.
func launch[P any](e *encoder, kernel string, groups [3]int, threads int, params *P, buffers ...Binding) {
	if groups[0] == 0 || groups[1] == 0 || groups[2] == 0 {
		return
	}
	at := len(e.params)
	e.params = append(e.params, unsafe.Slice((*byte)(unsafe.Pointer(params)), unsafe.Sizeof(*params))...)
	e.launches = append(e.launches, Launch{
		Kernel: kernel, Buffers: buffers, Params: slices.Clip(e.params[at:]),
		Groups: groups, Threads: [3]int{threads, 1, 1},
	})
}

// typed is the name of a kernel for the type of activations.
func (e *encoder) typed(kernel string) string { return kernel + e.b.suffix }

// bind binds the elements of a tensor, gaps between rows included; nil binds
// nothing.
func bind(t *kernels.Tensor) Binding {
	if t == nil || t.Len() == 0 {
		return Binding{}
	}
	m, ok := t.Buf.(Memory)
	if !ok {
		panic(fmt.Sprintf("metal: %v lies in memory of another backend", t))
	}
	return Binding{m, t.Off, t.DType.Bytes((t.Rows-1)*t.Stride + t.Cols)}
}

// act binds an activation, for a kernel of their type.
func (e *encoder) act(t *kernels.Tensor) Binding {
	if t != nil && t.DType != e.b.act {
		panic(fmt.Sprintf("metal: %v, where activations are %v", t, e.b.act))
	}
	return bind(t)
}

// work binds n bytes of working memory at an offset.
func (e *encoder) work(at, n int) Binding { return Binding{e.b.scratch, at, n} }

// u is a size as kernels take it.
func u(n int) uint32 {
	if n < 0 || n > 1<<31-1 {
		panic(fmt.Sprintf("metal: a size of %d", n))
	}
	return uint32(n)
}

// blocks returns how many blocks of size cover n.
func blocks(n, size int) int { return (n + size - 1) / size }
