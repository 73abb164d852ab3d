// Package cpu runs programs on the processor, in float32.
//
// Three layers, each knowing only the one below:
//
//   - one file per family of operations cuts an operation into tasks and says
//     what a task does (product.go, attention.go, crossentropy.go, norm.go, …);
//   - gemm.go and pack.go multiply packed panels: nearly all arithmetic of a
//     step, attention's included, goes through one micro-kernel; strassen.go and
//     strassenloss.go save an eighth of it in large products, where that pays;
//     pieces.go, piecesloss.go and piecesattention.go have large products computed by a
//     unit for matrices of bfloat16, where there is one, as exactly;
//   - vector.go lists the inner loops, which exist once per instruction set:
//     plain.go in Go, and assembly that the generators in gen/ write: AVX2,
//     AVX-512, AMX, NEON.
//
// On Apple silicon, in builds with cgo, large products go to Accelerate instead
// (blas.go, blasloss.go; accelerate_darwin.go says which).
//
// Threads are a fixed pool (pool.go). Operations are cut by shape alone, tasks
// write disjoint parts of the outputs, and every element is summed in an order
// that its position and the shape fix. So results do not depend on timing nor
// on the number of threads, bit for bit; between instruction sets they differ
// by rounding. Products that Accelerate computes are as repeatable as it is.
//
// Working memory lies outside the Go heap, is sized by the largest operation
// run so far ([Backend.Scratch] tells it before), and is allocated once: Run
// does not allocate. A Backend serves one goroutine at a time.
package cpu

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"graft/kernels"
)

// Options choose how much of the machine is used.
type Options struct {
	Threads int    // 0: as many as the process may use (GOMAXPROCS, which knows of cgroups and affinity)
	ISA     string // "": the best that the processor has; "go", on amd64 "avx2", "avx512" and "amx", on arm64 "neon", on Apple silicon "accelerate" ask for one
}

// Backend is the processor.
type Backend struct {
	v       *vectors
	pool    *pool
	scratch kernels.Host
	allocs  []kernels.Host

	// The operation in flight; kept here so that Run does not allocate.
	gemm      gemm
	rows      rowsProduct
	thin      thinProduct
	widen     widenRows
	thinGrad  thinGrad
	attention attention
	backward  attentionGrad
	loss      crossEntropy
	norm      norm
	normGrad  normGrad
	columns   columns

	softmaxes    softmaxRows
	softmaxGrads softmaxGradRows
	rotary       rotary
	table        rotaryTable
	each         elementwise
	lookup       lookup
	clip         clipNorm
	adam         adamW
}

// New starts the threads of a backend. It panics on an instruction set that
// this machine does not have.
func New(o Options) *Backend {
	n := o.Threads
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return &Backend{v: choose(o.ISA), pool: newPool(n)}
}

// choose returns the vectors named isa, the best for "".
func choose(isa string) *vectors {
	sets := available()
	if isa == "" {
		return sets[len(sets)-1]
	}
	for _, v := range sets {
		if v.name == isa {
			return v
		}
	}
	panic(fmt.Sprintf("cpu: this machine has no instruction set %q", isa))
}

// ISAs returns the names of the instruction sets that can be chosen here, the
// best last.
func ISAs() []string {
	var names []string
	for _, v := range available() {
		names = append(names, v.name)
	}
	return names
}

// Info implements kernels.Backend.
func (b *Backend) Info() kernels.Info {
	return kernels.Info{
		Name:       "cpu",
		Detail:     fmt.Sprintf("%v, %s", b.pool, b.v.name),
		Arithmetic: b.v.arithmetic(),
		Float:      kernels.F32,
		Threads:    len(b.pool.workers),
	}
}

// arithmetic names an instruction set, and what products are computed by halves.
func (v *vectors) arithmetic() string {
	if s := v.strassen; s != nil && s.rows < math.MaxInt {
		return fmt.Sprintf("%s with products by halves from %d rows on", v.name, s.rows)
	}
	return v.name
}

// Alloc implements kernels.Backend; the memory lives until Close.
func (b *Backend) Alloc(n int) (kernels.Buffer, error) {
	h, err := kernels.AllocHost(n)
	if err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	b.allocs = append(b.allocs, h)
	return h, nil
}

// Wrap implements kernels.Backend: data is used in place, at any alignment
// where it holds weights.
func (b *Backend) Wrap(data []byte) (kernels.Buffer, error) { return kernels.Host(data), nil }

// Close ends the threads and frees all memory.
func (b *Backend) Close() error {
	b.pool.close()
	for _, h := range b.allocs {
		kernels.FreeHost(h)
	}
	kernels.FreeHost(b.scratch)
	b.allocs, b.scratch = nil, nil
	return nil
}

// Run implements kernels.Backend.
func (b *Backend) Run(ops []kernels.Op, clock kernels.Clock) error {
	for i, op := range ops {
		if clock == nil {
			if err := b.run(op); err != nil {
				return err
			}
			continue
		}
		start := time.Now()
		if err := b.run(op); err != nil {
			return err
		}
		clock(i, time.Since(start))
	}
	return nil
}

// need is the working memory of an operation, in float32.
type need struct {
	shared  int // one for all threads
	private int // for each thread
}

func (n need) words(threads int) int { return aligned(n.shared) + threads*aligned(n.private) }

// aligned rounds up to 64 bytes.
func aligned(n int) int { return (n + 15) &^ 15 }

// Scratch implements kernels.Backend.
func (b *Backend) Scratch(ops []kernels.Op) int {
	words := 0
	for _, op := range ops {
		words = max(words, b.need(op).words(len(b.pool.workers)))
	}
	return 4 * words
}

func (b *Backend) run(op kernels.Op) error {
	kernels.Check(op)
	shared, err := b.reserve(b.need(op))
	if err != nil {
		return fmt.Errorf("cpu: %s: working memory: %w", op.Kind(), err)
	}
	b.do(op, shared)
	return nil
}

// reserve returns the shared part of the working memory and gives each worker
// its own.
func (b *Backend) reserve(n need) ([]float32, error) {
	if n == (need{}) {
		return nil, nil
	}
	if bytes := 4 * n.words(len(b.pool.workers)); bytes > len(b.scratch) {
		h, err := kernels.AllocHost(bytes)
		if err != nil {
			return nil, err
		}
		kernels.FreeHost(b.scratch)
		b.scratch = h
	}
	all := floats(b.scratch)
	for i, w := range b.pool.workers {
		start := aligned(n.shared) + i*aligned(n.private)
		w.private = all[start : start+n.private]
	}
	return all[:n.shared], nil
}

// need says how much working memory an operation takes.
func (b *Backend) need(op kernels.Op) need {
	switch o := op.(type) {
	case *kernels.Product:
		return productNeed(b.v, o)
	case *kernels.WeightGrad:
		return weightGradNeed(b.v, o)
	case *kernels.Attention:
		return attentionNeed(b.v, o)
	case *kernels.AttentionGrad:
		return attentionGradNeed(b.v, o)
	case *kernels.CrossEntropy:
		return crossEntropyNeed(b.v, o)
	case *kernels.RMSNorm:
		return need{shared: o.Weight.Cols}
	case *kernels.RMSNormGrad:
		return need{shared: o.Weight.Cols, private: o.Weight.Cols}
	case *kernels.BiasGrad:
		return need{private: columnBlock}
	case *kernels.ClipNorm:
		return need{shared: 2 * chunks(o.Grad.Cols)}
	}
	return need{}
}

// do runs one operation.
func (b *Backend) do(op kernels.Op, shared []float32) {
	switch o := op.(type) {
	case *kernels.Embed:
		b.embed(o)
	case *kernels.EmbedGrad:
		b.embedGrad(o)
	case *kernels.RMSNorm:
		b.rmsNorm(o, shared)
	case *kernels.RMSNormGrad:
		b.rmsNormGrad(o, shared)
	case *kernels.Product:
		b.product(o, shared)
	case *kernels.WeightGrad:
		b.weightGrad(o, shared)
	case *kernels.BiasGrad:
		b.biasGrad(o)
	case *kernels.RotaryTable:
		b.rotaryTable(o)
	case *kernels.Rotary:
		b.rotate(o)
	case *kernels.Attention:
		b.attend(o, shared)
	case *kernels.AttentionGrad:
		b.attendGrad(o, shared)
	case *kernels.Softmax:
		b.softmax(o)
	case *kernels.SoftmaxGrad:
		b.softmaxGrad(o)
	case *kernels.Gated:
		b.gated(o)
	case *kernels.GatedGrad:
		b.gatedGrad(o)
	case *kernels.Gather:
		b.gather(o)
	case *kernels.Scatter:
		b.scatter(o)
	case *kernels.CrossEntropy:
		b.crossEntropy(o, shared)
	case *kernels.Sum:
		b.sum(o)
	case *kernels.Dropout:
		b.dropout(o)
	case *kernels.Zero:
		b.zero(o)
	case *kernels.ClipNorm:
		b.clipNorm(o, shared)
	case *kernels.AdamW:
		b.adamW(o)
	default:
		panic(fmt.Sprintf("cpu: no operation %T", op))
	}
}
