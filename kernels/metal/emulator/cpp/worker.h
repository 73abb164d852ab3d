// The state of a run: one launch at a time, worked on by workers, each of which
// runs one threadgroup at a time, its threads as fibers.
#pragma once
#include "fiber.h"
#include "msl_runtime.h"
#include <atomic>
#include <cstddef>
#include <string>
#include <vector>

namespace msl_rt { // not unnamed: msl_switch changes things behind the compiler

constexpr unsigned kMaxThreads = 1024, kMaxSimds = kMaxThreads / 32;
constexpr unsigned kMaxBuffers = 31, kMaxShared = 8;
constexpr size_t kStack = 128 << 10;
constexpr size_t kPage = 4096;
constexpr size_t kSharedLimit = 32 << 10;          // threadgroup memory, as Metal has it
constexpr size_t kArena = 2 * kSharedLimit + kPage; // with gaps between variables

// What the command line says.
struct Options {
    size_t memory;    // bytes that the host and the kernels share
    double seconds;   // of processor time that a launch may take
    uint64_t steps;   // accesses that a launch may make, checked build
    unsigned workers; // threadgroups at a time; the checked build runs one
    bool reverse;     // lanes and SIMD-groups in the other order, to unmask luck
};
extern Options options;

struct Kernel {
    std::string name, args; // args as package msl writes them
    void (*run)();
};

// A launch, as the host sent it.
struct Launch {
    const Kernel* kernel;
    void* buffers[kMaxBuffers];
    size_t shared[kMaxShared];
    uint32_t groups[3], threads[3];
    uint64_t total() const { return (uint64_t)groups[0] * groups[1] * groups[2]; }
};
extern Launch launch;

// One cell stands for two bytes of memory, so that neighbouring bytes count as
// one. A phase is the stretch between two barriers; phases are numbered through
// the whole run, so cells need no clearing.
struct Cell {
    uint32_t wphase, wsimd_phase, rphase, rsimd_phase;
    uint16_t wthread, rthread; // rthread: kMany = several lanes of one SIMD-group, kAll = several SIMD-groups
    uint16_t wsimd, rsimd;
    uint32_t wpc, rpc; // the program lies below 4 GiB
};

// A stretch of memory that a kernel may touch, with its own name and bounds.
struct Region {
    uintptr_t lo, hi;
    uintptr_t origin; // where cells begin
    Cell* cells;      // null: nothing writes here during this launch
    char what[40];
    bool group;    // threadgroup memory
    bool readonly; // through this argument
};

enum State : uint8_t { NEW, READY, SIMD, GROUP, DONE };

struct Fiber {
    void* sp;
    char* stack;
    State state;
    int kind;
    msl_place here; // where it waits
    msl_thread thread;
};

// A SIMD-group's lanes meet in slots, in turns: while slow ones still read one
// set, fast ones may fill the other.
struct Simd {
    unsigned lanes, waiting, turn;
    int kind;
    msl_place here;
    uint32_t phase[2]; // threadgroup, device
    alignas(32) unsigned char slots[2][32 * MSL_SLOT];
};

struct Worker {
    void* scheduler = nullptr; // its place while a fiber runs
    Fiber* current = nullptr;
    Fiber* fibers = nullptr;
    char* stacks = nullptr;
    unsigned threads = 0; // of the threadgroup
    msl_grid grid;
    Simd simd[kMaxSimds];
    char* arena = nullptr; // threadgroup memory
    size_t arena_at = 0, shared_bytes = 0;
    std::vector<void*> variables;
    void* shared[kMaxShared];
    // For the checks:
    std::vector<Region> regions; // the launch's buffers, then threadgroup memory
    size_t buffers = 0;          // regions that are buffers
    Region* last = nullptr;
    uint32_t phase[2] = {1, 1}, group_start[2] = {1, 1}, launch_start = 1;
    uint64_t steps = 0;
    std::vector<uintptr_t> seen; // reports already made
};
extern thread_local Worker W;

extern std::atomic<bool> failed;          // the launch
void say(const char* format, ...) __attribute__((format(printf, 1, 2))); // reports; the launch has failed
[[noreturn]] void abandon();              // leaves the launch for good
std::string where(uintptr_t pc);          // as the host can turn into file:line
std::string who(unsigned thread);

} // namespace msl_rt
