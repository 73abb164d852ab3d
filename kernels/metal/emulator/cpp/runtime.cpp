// Runs Metal kernels on the CPU, as a program of its own: the host (package
// emulator) sends lists of launches through standard input and reads answers
// from standard output; descriptor 3 is the memory that both see.
//
// A threadgroup's threads are fibers of one worker. A thread that reaches a
// barrier or a SIMD-group operation waits until all the others have come to the
// same one. With MSL_CHECK, beside kernels that are compiled with hooks, every
// access is checked (checks.h).
#include "worker.h"
#include <condition_variable>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <mutex>
#include <sys/mman.h>
#include <sys/time.h>
#include <thread>
#include <unistd.h>
#ifdef MSL_CHECK
#include "checks.h"
#endif

__thread const msl_thread* msl_rt_thread;

namespace msl_rt {

Options options;
Launch launch;
thread_local Worker W;
std::atomic<bool> failed;

std::vector<Kernel>& kernels() // filled before main
{
    static std::vector<Kernel> all;
    return all;
}

// ---- reports ----------------------------------------------------------------
constexpr unsigned kMaxReports = 8; // of one launch
std::mutex report_lock;
std::string report;
unsigned reports;

void say(const char* format, ...)
{
    char text[900];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    std::lock_guard<std::mutex> hold(report_lock);
    failed = true;
    if (++reports > kMaxReports) return;
    if (!report.empty()) report += "\n";
    report += text;
}

std::string where(uintptr_t pc)
{
    char text[32];
    snprintf(text, sizeof text, "<pc:%lx>", (unsigned long)pc);
    return text;
}

std::string where(msl_place p)
{
    const char* base = strrchr(p.file, '/');
    return std::string(base ? base + 1 : p.file) + ":" + std::to_string(p.line);
}

std::string who(unsigned thread)
{
    char text[64];
    snprintf(text, sizeof text, "thread %u (simdgroup %u lane %u)", thread, thread / 32, thread % 32);
    return text;
}

// ---- fibers -----------------------------------------------------------------
void park(State state, int kind, msl_place here) // gives the processor back to the scheduler
{
    Fiber* f = W.current;
    f->state = state;
    f->kind = kind;
    f->here = here;
    msl_switch(&f->sp, W.scheduler);
}

[[noreturn]] void abandon()
{
    void* dead;
    W.current->state = DONE;
    msl_switch(&dead, W.scheduler);
    abort();
}

void resume(Fiber* f) // names the thread that runs from here on
{
    W.current = f;
    msl_rt_thread = &f->thread;
}

// The thread that runs after f in its SIMD-group, if that has not begun.
Fiber* successor(Fiber* f)
{
    const msl_thread& t = f->thread;
    if (options.reverse) return t.lane > 0 && f[-1].state == NEW ? f - 1 : nullptr;
    return t.lane + 1 < W.simd[t.simd].lanes && f[1].state == NEW ? f + 1 : nullptr;
}

// Runs a thread, and on the same stack those after it: threads that never wait
// cost no switch.
void fiber_main()
{
    for (;;) {
        launch.kernel->run();
        Fiber* f = W.current;
        f->state = DONE;
        Fiber* next = successor(f);
        if (!next || failed.load(std::memory_order_relaxed)) break;
        next->stack = f->stack;
        next->state = READY;
        resume(next);
    }
    abandon();
}

void start(Fiber& f)
{
    const unsigned i = f.thread.index;
    f.stack = W.stacks + i * kStack;
    f.sp = first_place(f.stack + kStack - i % 61 * 832, fiber_main); // staggered: else all tops share cache sets
}

// ---- threadgroups -----------------------------------------------------------
#ifdef MSL_CHECK
Cell* arena_cells()
{
    static Cell* cells = (Cell*)mmap(nullptr, kArena / 2 * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return cells;
}
#endif

// Carves n bytes of threadgroup memory, aligned to align but to no more, so
// that code that counts on more fails here.
void* carve(size_t n, size_t align, const std::string& what)
{
    const size_t at = (W.arena_at + 63) / 64 * 64 + (align < 64 ? align : 0);
    W.shared_bytes += n;
    if (W.shared_bytes > kSharedLimit) {
        say("threadgroup memory: %zu bytes with %s, Metal gives %zu", W.shared_bytes, what.c_str(), kSharedLimit);
        if (at + n > kArena) return nullptr;
    }
    W.arena_at = at + n + 64;
#ifdef MSL_CHECK
    Region r = {};
    r.lo = (uintptr_t)W.arena + at;
    r.hi = r.lo + n;
    r.origin = (uintptr_t)W.arena;
    r.cells = arena_cells();
    r.group = true;
    snprintf(r.what, sizeof r.what, "%s", what.c_str());
    W.regions.push_back(r);
    W.last = nullptr;
#endif
    return W.arena + at;
}

void begin_group(uint32_t x, uint32_t y, uint32_t z)
{
    const uint32_t group[3] = {x, y, z};
    memcpy(W.grid.group, group, sizeof group);
    for (int space = 0; space < 2; ++space) W.group_start[space] = ++W.phase[space];
    W.arena_at = W.shared_bytes = 0;
    W.regions.resize(W.buffers);
    W.last = nullptr;
    for (void*& v : W.variables) v = nullptr;
#ifdef MSL_CHECK
    memset(W.arena, 0xff, kArena); // NaNs
#endif
    for (unsigned i = 0; i < kMaxShared; ++i)
        W.shared[i] = launch.shared[i] ? carve(launch.shared[i], 16, "threadgroup(" + std::to_string(i) + ")") : nullptr;
    for (unsigned s = 0; s < W.grid.simds; ++s) {
        Simd& m = W.simd[s];
        m.lanes = W.threads - s * 32 < 32 ? W.threads - s * 32 : 32;
        m.waiting = m.turn = 0;
        m.phase[0] = m.phase[1] = 0;
    }
    for (unsigned i = 0; i < W.threads; ++i) {
        Fiber& f = W.fibers[i];
        f.state = NEW;
        for (int d = 0; d < 3; ++d) f.thread.position[d] = group[d] * W.grid.threads[d] + f.thread.in_group[d];
    }
}

// Runs the SIMD-group's threads until each waits for other SIMD-groups or has
// ended.
void run_simd(unsigned s)
{
    const unsigned lanes = W.simd[s].lanes;
    for (bool ran = true; ran;) {
        ran = false;
        for (unsigned j = 0; j < lanes; ++j) {
            Fiber& f = W.fibers[s * 32 + (options.reverse ? lanes - 1 - j : j)];
            if (f.state == NEW)
                start(f);
            else if (f.state != READY)
                continue;
            resume(&f);
            msl_switch(&W.scheduler, f.sp);
            W.current = nullptr;
            ran = true;
            if (failed.load(std::memory_order_relaxed)) return;
        }
    }
}

bool same(msl_place a, msl_place b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// Lets all threads pass the barrier at which they wait; false if they do not
// wait at one barrier.
bool pass_barrier()
{
    const Fiber *first = nullptr, *simd = nullptr;
    unsigned waiting = 0, simds = 0;
    for (unsigned i = 0; i < W.threads; ++i) {
        const Fiber& f = W.fibers[i];
        if (f.state == SIMD) {
            ++simds;
            simd = &f;
        }
        if (f.state != GROUP) continue;
        ++waiting;
        if (!first) first = &f;
        if (!same(f.here, first->here) || f.kind != first->kind) {
            say("divergence: threads of one threadgroup wait at the barriers of %s and %s", where(first->here).c_str(), where(f.here).c_str());
            return false;
        }
    }
    if (waiting < W.threads) {
        std::string text = "divergence: of " + std::to_string(W.threads) + " threads " + std::to_string(waiting) + " wait at a threadgroup barrier";
        if (first) text += " at " + where(first->here);
        text += ", " + std::to_string(simds) + " in SIMD-group operations";
        if (simd) text += " (thread " + std::to_string(simd->thread.index) + " at " + where(simd->here) + ")";
        say("%s, %u have returned", text.c_str(), W.threads - waiting - simds);
        return false;
    }
    for (unsigned s = 0; s < W.grid.simds; ++s) {
        if (first->kind & 2) W.simd[s].phase[0]++;
        if (first->kind & 1) W.simd[s].phase[1]++;
    }
    if (first->kind & 2) W.phase[0]++;
    if (first->kind & 1) W.phase[1]++;
    for (unsigned i = 0; i < W.threads; ++i) W.fibers[i].state = READY;
    return true;
}

bool all_done()
{
    for (unsigned i = 0; i < W.threads; ++i)
        if (W.fibers[i].state != DONE) return false;
    return true;
}

void run_group(uint32_t x, uint32_t y, uint32_t z)
{
    begin_group(x, y, z);
    while (!failed.load(std::memory_order_relaxed)) {
        for (unsigned s = 0; s < W.grid.simds && !failed.load(std::memory_order_relaxed); ++s)
            run_simd(options.reverse ? W.grid.simds - 1 - s : s);
        if (failed.load(std::memory_order_relaxed) || all_done() || !pass_barrier()) return;
    }
}

// ---- workers ----------------------------------------------------------------
void* map(size_t n, int protection)
{
    void* p = mmap(nullptr, n, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("mmap");
        _exit(1);
    }
    return p;
}

void begin_worker()
{
    W.fibers = (Fiber*)map(kMaxThreads * sizeof(Fiber), PROT_READ | PROT_WRITE);
    W.stacks = (char*)map(kMaxThreads * kStack, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < kMaxThreads; ++i) mprotect(W.stacks + i * kStack, kPage, PROT_NONE);
    W.arena = (char*)map(kArena, PROT_READ | PROT_WRITE);
}

// Sets what all threadgroups of the launch have in common.
void begin_launch()
{
    const uint32_t* threads = launch.threads;
    W.threads = threads[0] * threads[1] * threads[2];
    W.grid.simds = (W.threads + 31) / 32;
    for (int d = 0; d < 3; ++d) {
        W.grid.threads[d] = threads[d];
        W.grid.groups[d] = launch.groups[d];
        W.grid.total[d] = launch.groups[d] * threads[d];
    }
    for (unsigned i = 0; i < W.threads; ++i) {
        msl_thread& t = W.fibers[i].thread;
        t.in_group[0] = i % threads[0];
        t.in_group[1] = i / threads[0] % threads[1];
        t.in_group[2] = i / (threads[0] * threads[1]);
        t.index = i;
        t.lane = i % 32;
        t.simd = i / 32;
    }
    W.launch_start = ++W.phase[1];
    W.steps = 0;
    W.seen.clear();
}

std::atomic<uint64_t> next_group;

// Runs threadgroups of the launch until there are none.
void work()
{
    begin_launch();
    const uint64_t total = launch.total();
    for (uint64_t g; !failed && (g = next_group++) < total;)
        run_group((uint32_t)(g % launch.groups[0]), (uint32_t)(g / launch.groups[0] % launch.groups[1]),
                  (uint32_t)(g / launch.groups[0] / launch.groups[1]));
}

// The other workers wait here for launches.
struct Pool {
    std::mutex lock;
    std::condition_variable start, end;
    uint64_t launches = 0;
    unsigned busy = 0;

    void begin(unsigned workers)
    {
        for (unsigned i = 1; i < workers; ++i) std::thread(&Pool::serve, this).detach();
    }
    void serve()
    {
        begin_worker();
        std::unique_lock<std::mutex> hold(lock);
        for (uint64_t done = 0;;) {
            start.wait(hold, [&] { return launches != done; });
            done = launches;
            hold.unlock();
            work();
            hold.lock();
            if (--busy == 0) end.notify_one();
        }
    }
    void run()
    {
        const bool shared = options.workers > 1 && launch.total() >= 4; // waking the others takes longer than little work
        if (shared) {
            std::lock_guard<std::mutex> hold(lock);
            ++launches;
            busy = options.workers - 1;
            start.notify_all();
        }
        work();
        if (shared) {
            std::unique_lock<std::mutex> hold(lock);
            end.wait(hold, [&] { return busy == 0; });
        }
    }
};
Pool& pool()
{
    static Pool* p = new Pool; // outlives its threads
    return *p;
}

// ---- memory -----------------------------------------------------------------
constexpr int kMemory = 3;             // descriptor
constexpr uint64_t kUnbound = ~0ull;   // offset of a buffer that is not bound
char* memory[kMaxBuffers];             // the shared memory, as buffer(i) sees it
char* params;                          // a page for the launch's parameters
volatile uint64_t* progress;           // in the shared memory: the launch that runs

// The fast builds see the memory in one place. The checked one sees it in as
// many as there are buffers, so that a pointer tells through which it came.
void map_memory()
{
    params = (char*)map(kPage, PROT_READ | PROT_WRITE);
    for (unsigned i = 0; i < kMaxBuffers; ++i) {
#ifndef MSL_CHECK
        if (i > 0) {
            memory[i] = memory[0];
            continue;
        }
#endif
        void* p = mmap(nullptr, options.memory, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, kMemory, 0);
        if (p == MAP_FAILED) {
            perror("mmap of the shared memory");
            _exit(1);
        }
        memory[i] = (char*)p;
    }
    progress = (volatile uint64_t*)memory[0];
}

struct Binding {
    uint64_t offset, size;
    bool writable;
};

#ifdef MSL_CHECK
// Cells of the shared memory, by offset.
Cell* memory_cells()
{
    static Cell* cells = (Cell*)map(options.memory / 2 * sizeof(Cell), PROT_READ | PROT_WRITE);
    return cells;
}

bool overlap(const Binding& a, const Binding& b)
{
    return a.offset != kUnbound && b.offset != kUnbound && a.offset < b.offset + b.size && b.offset < a.offset + a.size;
}

// Names what the kernel may touch. Buffers that overlap have cells in common:
// an access through one is seen by the other. Buffers that nothing writes have
// none.
void begin_regions(const std::vector<Binding>& bindings, size_t params_size)
{
    W.regions.clear();
    for (unsigned i = 0; i < bindings.size(); ++i) {
        const Binding& b = bindings[i];
        Region r = {};
        r.origin = (uintptr_t)memory[i];
        r.lo = r.hi = (uintptr_t)launch.buffers[i];
        r.readonly = !b.writable;
        if (b.offset != kUnbound) r.hi += b.size;
        for (const Binding& o : bindings)
            if (o.writable && overlap(o, b)) r.cells = memory_cells();
        snprintf(r.what, sizeof r.what, b.offset == kUnbound ? "buffer(%u), which is not bound," : "buffer(%u)", i);
        W.regions.push_back(r);
    }
    if (params_size > 0) {
        Region r = {};
        r.lo = r.origin = (uintptr_t)params;
        r.hi = r.lo + params_size;
        r.readonly = true;
        snprintf(r.what, sizeof r.what, "buffer(%zu), the parameters", bindings.size());
        W.regions.push_back(r);
    }
    W.buffers = W.regions.size();
}

// Gives back the cells of large buffers: they are 16 times as large.
void end_regions(const std::vector<Binding>& bindings)
{
    for (const Binding& b : bindings) {
        if (b.offset == kUnbound || !b.writable || b.size < (1 << 20)) continue;
        const uintptr_t lo = (uintptr_t)(memory_cells() + b.offset / 2) / kPage * kPage;
        madvise((void*)lo, b.size / 2 * sizeof(Cell), MADV_DONTNEED);
    }
}
#endif

// ---- the host's messages ----------------------------------------------------
// One launch: 10 uint32 (kernel, buffers, shared, bytes of parameters, groups,
// threads), then shared uint64s, an offset and a size (uint64) for each buffer,
// the parameters. All little-endian, as the processors that this runs on.
struct Message {
    std::vector<char> bytes;
    size_t at = 0;
    template <typename T> T take()
    {
        T v;
        memcpy(&v, bytes.data() + at, sizeof v);
        at += sizeof v;
        return v;
    }
    void take(void* to, size_t n)
    {
        memcpy(to, bytes.data() + at, n);
        at += n;
    }
};

void receive(void* to, size_t n)
{
    for (char* p = (char*)to; n > 0;) {
        const ssize_t got = read(STDIN_FILENO, p, n);
        if (got <= 0) _exit(0); // the host has closed
        p += got;
        n -= (size_t)got;
    }
}

void answer(const void* from, size_t n)
{
    for (const char* p = (const char*)from; n > 0;) {
        const ssize_t put = write(STDOUT_FILENO, p, n);
        if (put <= 0) _exit(0);
        p += put;
        n -= (size_t)put;
    }
}

bool may_write(const std::string& args, unsigned buffer)
{
    return (" " + args + " ").find(" " + std::to_string(buffer) + "w ") != std::string::npos;
}

// Reads the message's next launch.
std::vector<Binding> next_launch(Message& m, size_t& params_size)
{
    launch = Launch{};
    launch.kernel = &kernels()[m.take<uint32_t>()];
    std::vector<Binding> bindings(m.take<uint32_t>());
    const uint32_t shared = m.take<uint32_t>();
    params_size = m.take<uint32_t>();
    m.take(launch.groups, sizeof launch.groups);
    m.take(launch.threads, sizeof launch.threads);
    for (uint32_t i = 0; i < shared; ++i) launch.shared[i] = m.take<uint64_t>();
    static void* nothing = map(kPage, PROT_NONE);
    for (unsigned i = 0; i < bindings.size(); ++i) {
        Binding& b = bindings[i];
        b.offset = m.take<uint64_t>();
        b.size = m.take<uint64_t>();
        b.writable = may_write(launch.kernel->args, i);
        launch.buffers[i] = b.offset == kUnbound ? nothing : memory[i] + b.offset;
    }
    if (params_size > 0) {
        m.take(params, params_size);
        launch.buffers[bindings.size()] = params;
    }
    return bindings;
}

constexpr int kOverTime = 42; // exit status: a launch took too long
void over_time(int) { _exit(kOverTime); }

// The launch may take this much more processor time; 0: as much as it wants.
void limit(double seconds)
{
    itimerval t = {};
    t.it_value.tv_sec = (time_t)seconds;
    t.it_value.tv_usec = (suseconds_t)((seconds - (double)t.it_value.tv_sec) * 1e6);
    setitimer(ITIMER_VIRTUAL, &t, nullptr);
}

double now()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

// Runs the launch and returns the seconds it took.
double run(const std::vector<Binding>& bindings, size_t params_size)
{
    report.clear();
    reports = 0;
    failed = false;
    next_group = 0;
    (void)bindings;
    (void)params_size;
#ifdef MSL_CHECK
    begin_regions(bindings, params_size);
#endif
    limit(options.seconds * options.workers);
    const double start = now();
    pool().run();
    const double end = now();
    limit(0);
#ifdef MSL_CHECK
    end_regions(bindings);
#endif
    return end - start;
}

// Runs the message's launches up to the first that fails, and answers: 0 and a
// double each, or 1, the launch's index and the report.
void serve(Message& m)
{
    const uint32_t n = m.take<uint32_t>();
    std::vector<double> seconds(n);
    for (uint32_t i = 0; i < n; ++i) {
        size_t params_size;
        const std::vector<Binding> bindings = next_launch(m, params_size);
        *progress = i;
        seconds[i] = run(bindings, params_size);
        if (failed) {
            const uint32_t head[3] = {1, i, (uint32_t)report.size()};
            answer(head, sizeof head);
            answer(report.data(), report.size());
            return;
        }
    }
    const uint32_t ok = 0;
    answer(&ok, sizeof ok);
    answer(seconds.data(), n * sizeof(double));
}

// Tells the host which kernels there are: a length, then lines.
void hello()
{
#ifdef MSL_CHECK
    std::string text = "checked\n";
#else
    std::string text = "fast\n";
#endif
    for (const Kernel& k : kernels()) text += k.name + " " + k.args + "\n";
    const uint32_t n = (uint32_t)text.size();
    answer(&n, sizeof n);
    answer(text.data(), n);
}

} // namespace msl_rt
using namespace msl_rt;

// ---- what kernels call ------------------------------------------------------
extern "C" {
const msl_grid* msl_rt_grid(void) { return &W.grid; }
void* msl_rt_buffer(int i) { return launch.buffers[i]; }
void* msl_rt_shared(int i) { return W.shared[i]; }
unsigned msl_rt_lanes(void) { return W.simd[W.current->thread.simd].lanes; }
void msl_rt_register(const char* name, const char* args, void (*run)(void)) { kernels().push_back(Kernel{name, args, run}); }
void msl_rt_barrier(int flags, msl_place here) { park(GROUP, flags, here); }

const unsigned char* msl_rt_simd(const void* in, unsigned size, int kind, msl_place here, void (*finish)(unsigned char*, unsigned))
{
    const msl_thread& t = W.current->thread;
    Simd& m = W.simd[t.simd];
    unsigned char* slots = m.slots[m.turn];
    if (m.waiting == 0) {
        m.here = here;
        m.kind = kind;
    } else if (!same(m.here, here) || m.kind != kind) {
        say("divergence: lanes of simdgroup %u are at the operations of %s and %s", t.simd, where(m.here).c_str(), where(here).c_str());
        abandon();
    }
    memcpy(slots + t.lane * MSL_SLOT, in, size);
    if (++m.waiting < m.lanes) {
        park(SIMD, kind, here);
        return slots;
    }
    if (finish) finish(slots, m.lanes);
    m.waiting = 0;
    m.turn ^= 1;
    for (unsigned i = 0; i < m.lanes; ++i) {
        Fiber& f = W.fibers[t.simd * 32 + i];
        if (f.state == SIMD) f.state = READY;
    }
    return slots;
}

void msl_rt_simd_barrier(int flags, msl_place here)
{
    Simd& m = W.simd[W.current->thread.simd];
    if (m.waiting + 1 == m.lanes) { // the last lane: before any goes on
        if (flags & 2) m.phase[0]++;
        if (flags & 1) m.phase[1]++;
    }
    msl_rt_simd(nullptr, 0, MSL_SIMD_BARRIER + flags, here, nullptr);
}

void msl_rt_product(unsigned char* slots, unsigned lanes)
{
    if (lanes < 32) {
        say("a SIMD-group of %u threads multiplies matrices", lanes);
        return;
    }
    float a[8][8], b[8][8], c[8][8];
    for (unsigned lane = 0; lane < 32; ++lane) {
        const float* in = (const float*)(slots + lane * MSL_SLOT);
        for (unsigned i = 0; i < 2; ++i) {
            const unsigned r = lane / 4, q = lane % 4 * 2 + i;
            a[r][q] = in[i];
            b[r][q] = in[2 + i];
            c[r][q] = in[4 + i];
        }
    }
    for (unsigned r = 0; r < 8; ++r)
        for (unsigned k = 0; k < 8; ++k)
            for (unsigned q = 0; q < 8; ++q) c[r][q] += a[r][k] * b[k][q];
    for (unsigned lane = 0; lane < 32; ++lane) memcpy(slots + lane * MSL_SLOT, &c[lane / 4][lane % 4 * 2], 2 * sizeof(float));
}

void* msl_rt_variable(unsigned id, const char* name, size_t size, size_t align)
{
    if (id >= W.variables.size()) W.variables.resize(id + 1, nullptr);
    if (!W.variables[id] && !(W.variables[id] = carve(size, align, std::string("threadgroup ") + name))) abandon();
    return W.variables[id];
}

uint32_t msl_rt_atomic_load(const void* p)
{
#ifdef MSL_CHECK
    access((uintptr_t)p, 4, false, (uintptr_t)__builtin_return_address(0), true);
#endif
    return __atomic_load_n((const uint32_t*)p, __ATOMIC_RELAXED);
}

uint32_t msl_rt_atomic_swap(void* p, uint32_t expected, uint32_t value)
{
#ifdef MSL_CHECK
    access((uintptr_t)p, 4, true, (uintptr_t)__builtin_return_address(0), true);
#endif
    __atomic_compare_exchange_n((uint32_t*)p, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
}

int main(int argc, char** argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: %s memory seconds steps workers reverse, with descriptor 3: the graft tests start this\n", argv[0]);
        return 1;
    }
    options = Options{strtoull(argv[1], nullptr, 10), atof(argv[2]), strtoull(argv[3], nullptr, 10), (unsigned)atoi(argv[4]), atoi(argv[5]) != 0};
#ifdef MSL_CHECK
    options.workers = 1; // what is known of an access is one worker's
#endif
    map_memory();
    begin_worker();
    pool().begin(options.workers);
    signal(SIGVTALRM, over_time);
    hello();
    for (Message m;; m.at = 0) {
        uint32_t n;
        receive(&n, sizeof n);
        m.bytes.resize(n);
        receive(m.bytes.data(), n);
        serve(m);
    }
}
