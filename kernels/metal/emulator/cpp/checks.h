// The checks of single accesses. Kernels are compiled with -fsanitize=thread
// and -fsanitize=undefined, whose hooks land here instead of in the sanitizers'
// libraries.
#pragma once
#include "worker.h"
#include <cstdlib>

extern "C" char __executable_start, _end; // of the program, from the linker

namespace msl_rt {

constexpr uint16_t kMany = 0xfffe, kAll = 0xffff;
constexpr uint16_t kAtomic = 0x8000; // in wsimd: the write was atomic

inline Region* region_of(uintptr_t a, size_t n)
{
    for (Region& r : W.regions)
        if (a >= r.lo && a + n <= r.hi) return &r;
    return nullptr;
}

inline bool once(uintptr_t pc, int kind)
{
    const uintptr_t key = pc * 8 + kind;
    for (uintptr_t s : W.seen)
        if (s == key) return false;
    W.seen.push_back(key);
    return true;
}

[[noreturn]] inline void out_of_bounds(uintptr_t a, size_t n, bool write, uintptr_t pc)
{
    static const Region none = {};
    const Region* best = &none;
    uint64_t least = UINT64_MAX;
    for (const Region& r : W.regions) {
        const uint64_t distance = a < r.lo ? r.lo - a : a + n - r.hi;
        if (distance < least) {
            least = distance;
            best = &r;
        }
    }
    const uint32_t* g = W.grid.group;
    say("out of bounds: %zu-byte %s at byte %ld of %s (%zu bytes) by %s, group (%u,%u,%u), at %s", n, write ? "write" : "read",
        (long)(a - best->lo), best == &none ? "nothing" : best->what, (size_t)(best->hi - best->lo), who(W.current->thread.index).c_str(), g[0], g[1], g[2], where(pc).c_str());
    abandon();
}

// An access that no barrier orders against an earlier one, by thread before at
// pc_before.
inline void race(const Region& r, uintptr_t a, bool write, uintptr_t pc, bool write_before, unsigned before, uint32_t pc_before, bool other_group)
{
    if (!once(pc, 1)) return;
    const std::string earlier = other_group ? "another threadgroup" : before == kMany || before == kAll ? "several threads" : who(before);
    say("race: %s of %s byte %ld by %s at %s, %s by %s at %s, no %s barrier between", write ? "write" : "read", r.what, (long)(a - r.lo),
        who(W.current->thread.index).c_str(), where(pc).c_str(), write_before ? "written" : "read", earlier.c_str(), where(pc_before).c_str(),
        r.group ? "mem_threadgroup" : "mem_device");
}

inline void touch(const Region& r, uintptr_t a, size_t n, bool write, bool atomic, uintptr_t pc)
{
    const msl_thread& t = W.current->thread;
    const int space = r.group ? 0 : 1;
    const uint32_t phase = W.phase[space], start = W.group_start[space], simd_phase = W.simd[t.simd].phase[space];
    const uint16_t self = (uint16_t)t.index, simd = (uint16_t)t.simd;
    Cell* const end = r.cells + ((a - r.origin + n + 1) >> 1);
    for (Cell* c = r.cells + ((a - r.origin) >> 1); c < end; ++c) {
        const bool atomics = atomic && (c->wsimd & kAtomic);
        const bool simd_ordered = (c->wsimd & ~kAtomic) == simd && c->wsimd_phase != simd_phase;
        if (c->wphase == phase && c->wthread != self && !simd_ordered && !atomics)
            race(r, a, write, pc, true, c->wthread, c->wpc, false);
        else if (space == 1 && c->wphase >= W.launch_start && c->wphase < start && !atomics)
            race(r, a, write, pc, true, c->wthread, c->wpc, true);
        if (!write) {
            if (space == 0 && c->wphase < start && once(pc, 2))
                say("unwritten: %zu-byte read of %s byte %ld, never written in this threadgroup, by %s at %s", n, r.what, (long)(a - r.lo),
                    who(self).c_str(), where(pc).c_str());
            if (c->rphase == phase && c->rthread != self)
                c->rthread = c->rthread == kAll || c->rsimd != simd ? kAll : kMany;
            else
                c->rthread = self;
            c->rphase = phase;
            c->rsimd = simd;
            c->rsimd_phase = simd_phase;
            c->rpc = (uint32_t)pc;
        } else {
            const bool read_ordered = c->rthread != kAll && c->rsimd == simd && c->rsimd_phase != simd_phase;
            if (c->rphase == phase && c->rthread != self && !read_ordered && !atomic)
                race(r, a, write, pc, false, c->rthread, c->rpc, false);
            else if (space == 1 && c->rphase >= W.launch_start && c->rphase < start && !atomic)
                race(r, a, write, pc, false, c->rthread, c->rpc, true);
            c->wphase = phase;
            c->wthread = self;
            c->wsimd = simd | (atomic ? kAtomic : 0);
            c->wsimd_phase = simd_phase;
            c->wpc = (uint32_t)pc;
        }
    }
}

// One access to n bytes at a.
inline void access(uintptr_t a, size_t n, bool write, uintptr_t pc, bool atomic = false)
{
    if (!W.current) return; // outside a kernel
    if (++W.steps > options.steps) {
        say("too long: more than %lu accesses to memory, at %s", (unsigned long)options.steps, where(pc).c_str());
        abandon();
    }
    if (a - (uintptr_t)W.current->stack < kStack || a == (uintptr_t)&msl_rt_thread) return;
    Region* r = W.last;
    if (!r || a < r->lo || a + n > r->hi) {
        if (!(r = region_of(a, n))) {
            const bool place = a - (uintptr_t)W.fibers < kMaxThreads * sizeof(Fiber) || a - (uintptr_t)&W < sizeof W;
            const bool constant = a >= (uintptr_t)&__executable_start && a < (uintptr_t)&_end;
            if (!write && (place || constant)) return;
            out_of_bounds(a, n, write, pc);
        }
        W.last = r;
    }
    if (write && r->readonly) {
        say("write to %s, which is read-only, by %s at %s", r->what, who(W.current->thread.index).c_str(), where(pc).c_str());
        abandon();
    }
    if (r->cells) touch(*r, a, n, write, atomic, pc);
}

// What -fsanitize=undefined found. It may call from the start-up of the
// program, before there is a kernel.
inline void undefined(const char* what, uintptr_t pc)
{
    if (!W.current) return;
    say("%s by %s at %s", what, who(W.current->thread.index).c_str(), where(pc).c_str());
    abandon();
}

} // namespace msl_rt

#define PC ((uintptr_t)__builtin_return_address(0))
extern "C" {
#define HOOK(n)                                                                                     \
    void __tsan_read##n(void* p) { msl_rt::access((uintptr_t)p, n, false, PC); }                    \
    void __tsan_write##n(void* p) { msl_rt::access((uintptr_t)p, n, true, PC); }                    \
    void __tsan_unaligned_read##n(void* p) { msl_rt::access((uintptr_t)p, n, false, PC); }          \
    void __tsan_unaligned_write##n(void* p) { msl_rt::access((uintptr_t)p, n, true, PC); }          \
    void __tsan_read_write##n(void* p)                                                              \
    {                                                                                               \
        msl_rt::access((uintptr_t)p, n, false, PC);                                                 \
        msl_rt::access((uintptr_t)p, n, true, PC);                                                  \
    }                                                                                               \
    void __tsan_unaligned_read_write##n(void* p)                                                    \
    {                                                                                               \
        msl_rt::access((uintptr_t)p, n, false, PC);                                                 \
        msl_rt::access((uintptr_t)p, n, true, PC);                                                  \
    }
HOOK(1) HOOK(2) HOOK(4) HOOK(8) HOOK(16)
#undef HOOK
void __tsan_read_range(void* p, size_t n) { if (n) msl_rt::access((uintptr_t)p, n, false, PC); } // g++'s
void __tsan_write_range(void* p, size_t n) { if (n) msl_rt::access((uintptr_t)p, n, true, PC); }
void __tsan_init(void) {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit(void) {}
static void copied(void* to, const void* from, size_t n, uintptr_t pc)
{
    if (n == 0) return;
    msl_rt::access((uintptr_t)from, n, false, pc);
    msl_rt::access((uintptr_t)to, n, true, pc);
}
void* __tsan_memcpy(void* to, const void* from, size_t n)
{
    copied(to, from, n, PC);
    return memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n)
{
    copied(to, from, n, PC);
    return memmove(to, from, n);
}
void* __tsan_memset(void* to, int c, size_t n)
{
    if (n) msl_rt::access((uintptr_t)to, n, true, PC);
    return memset(to, c, n);
}

#define UB(name, text) void __ubsan_handle_##name(void*) { msl_rt::undefined(text, PC); }
UB(type_mismatch_v1, "misaligned or null access")
UB(alignment_assumption, "misaligned access")
UB(add_overflow, "signed overflow")
UB(sub_overflow, "signed overflow")
UB(mul_overflow, "signed overflow")
UB(negate_overflow, "signed overflow")
UB(divrem_overflow, "division by zero or overflow")
UB(shift_out_of_bounds, "shift out of range")
UB(out_of_bounds, "index outside its array")
UB(builtin_unreachable, "unreachable code")
UB(missing_return, "no value returned")
UB(float_cast_overflow, "float out of the integer's range")
UB(load_invalid_value, "invalid bool")
#undef UB
}
#undef PC
