package cpu

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// job is work cut into numbered tasks that no other task's result changes.
type job interface {
	do(w *worker, task int)
}

// pool runs jobs on a fixed set of threads: the caller and n-1 goroutines.
// How a job is cut depends on shapes alone and every task writes its own part
// of the output, so it does not matter for the result which thread takes
// which task. Each thread starts with a range of its own: where tasks are rows, it
// finds in its caches what it wrote in the operation before, which between cores
// that share no cache is worth 5 % of a step. The cores of a shared machine are
// not equally fast, so who is done takes what others have left.
type pool struct {
	workers []*worker // [0] is the caller
	spin    time.Duration
	job     job
	sharing int // workers that have a range
	failure atomic.Pointer[failure]
	done    sync.WaitGroup
}

type failure struct{ value any }

// worker is one thread with its own working memory.
type worker struct {
	pool    *pool
	index   int
	next    atomic.Int64 // task of its range
	end     int64
	slot    atomic.Uint32
	wake    chan struct{}
	private []float32             // scratch of this worker, for the operation in flight
	edge    []float32             // one micro-tile
	wide    []float32             // [tileCols, wideCols], decoded
	term    [1]term               // of a product within a task
	after   nextLeft              // of products of halves
	asks    [packedSums]rowsAhead // of a block of them
	extents [blockQueries]extent  // of a block of scores
}

// The states of a worker's slot. The caller offers a job; the worker takes
// it, and sets idle when it finds no more tasks. An offer that was not taken
// by the time all tasks are handed out is withdrawn.
const (
	idle uint32 = iota
	offered
	working
	parked
	closed
)

// spinEach is how long a worker looks for the next job before it sleeps, for each worker of the pool:
// longer than the gaps between the operations of a step, and than to wake them one by one.
const spinEach = 50 * time.Microsecond

// patience is how many looks, each after a pause, go by before a thread that waits lets others have its
// processor: all of them queue for one lock to do so.
const patience = 256

func newPool(n int) *pool {
	p := &pool{spin: time.Duration(n-1) * spinEach}
	for i := range n {
		w := &worker{pool: p, index: i, wake: make(chan struct{}, 1), edge: make([]float32, tileRows*tileCols), wide: make([]float32, tileCols*wideCols)}
		p.workers = append(p.workers, w)
		if i > 0 {
			p.done.Add(1)
			go w.loop()
		}
	}
	return p
}

// run does all tasks of a job. A panic in any of them is raised again here.
func (p *pool) run(j job, tasks int) {
	if tasks <= 0 {
		return
	}
	helpers := p.workers[1:min(len(p.workers), tasks)]
	if len(helpers) == 0 {
		p.inline(j, tasks)
		return
	}
	p.job, p.sharing = j, 1+len(helpers)
	for i, w := range p.workers[:p.sharing] {
		from, end := portion(tasks, p.sharing, i)
		w.next.Store(int64(from))
		w.end = int64(end)
	}
	for _, w := range helpers {
		if w.slot.Swap(offered) == parked {
			w.wake <- struct{}{}
		}
	}
	p.workers[0].work()
	for _, w := range helpers {
		if w.slot.CompareAndSwap(offered, idle) {
			continue
		}
		for i := 1; w.slot.Load() == working; i++ {
			if pause(); i%patience == 0 {
				runtime.Gosched()
			}
		}
	}
	p.job = nil
	if f := p.failure.Swap(nil); f != nil {
		panic(f.value)
	}
}

// inline does all tasks on the caller: for jobs smaller than the cost of
// sharing them.
func (p *pool) inline(j job, tasks int) {
	for i := range tasks {
		j.do(p.workers[0], i)
	}
}

// either does all tasks in the way that suits their size.
func (p *pool) either(small bool, j job, tasks int) {
	if small {
		p.inline(j, tasks)
	} else {
		p.run(j, tasks)
	}
}

// work takes tasks until none is left: its own first, then those of others.
func (w *worker) work() {
	p := w.pool
	defer func() {
		if v := recover(); v != nil {
			for _, w := range p.workers[:p.sharing] {
				w.next.Store(w.end)
			}
			p.failure.CompareAndSwap(nil, &failure{v})
		}
	}()
	for k := range p.sharing {
		from := p.workers[(w.index+k)%p.sharing]
		for i := from.next.Add(1) - 1; i < from.end; i = from.next.Add(1) - 1 {
			p.job.do(w, int(i))
		}
	}
}

func (w *worker) loop() {
	defer w.pool.done.Done()
	debug.SetPanicOnFault(true) // for the caller to see, as any other
	for w.await() {
		w.work()
		w.slot.Store(idle)
	}
}

// await returns true when the worker has taken a job, false on close.
func (w *worker) await() bool {
	for {
		for i, start := 1, time.Now(); ; i++ {
			switch w.slot.Load() {
			case offered:
				if w.slot.CompareAndSwap(offered, working) {
					return true
				}
			case closed:
				return false
			}
			if pause(); i%patience == 0 {
				if time.Since(start) > w.pool.spin {
					break
				}
				runtime.Gosched()
			}
		}
		if w.slot.CompareAndSwap(idle, parked) {
			<-w.wake
		}
	}
}

func (p *pool) close() {
	for _, w := range p.workers[1:] {
		if w.slot.Swap(closed) == parked {
			w.wake <- struct{}{}
		}
	}
	p.done.Wait()
}

func (p *pool) String() string {
	if len(p.workers) == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", len(p.workers))
}
