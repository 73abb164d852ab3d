// What the runtime gives to kernels: the boundary between code that is compiled
// from Metal and the emulator itself.
#pragma once
#include <stddef.h>
#include <stdint.h>

// One thread's place, as Metal's attributes name it.
struct msl_thread {
    uint32_t position[3], in_group[3];
    uint32_t index, lane, simd;
};

// What the threads of a threadgroup share.
struct msl_grid {
    uint32_t group[3], threads[3], groups[3], total[3];
    uint32_t simds;
};

// Where in the source a thread waits.
struct msl_place {
    const char* file;
    int line;
};

// The kinds of SIMD-group operation: lanes that wait at different ones diverge.
enum {
    MSL_SUM, MSL_PRODUCT, MSL_MAX, MSL_MIN, MSL_XOR, MSL_SHUFFLE, MSL_DOWN, MSL_UP, MSL_BROADCAST, MSL_PREFIX,
    MSL_PRODUCT_8X8, MSL_SIMD_BARRIER
};
enum { MSL_SLOT = 32 }; // bytes that a lane can give to the others

extern __thread const msl_thread* msl_rt_thread; // the one that runs
inline const msl_thread* msl_rt_self() { return msl_rt_thread; }

extern "C" {
void msl_rt_barrier(int flags, msl_place here);
void msl_rt_simd_barrier(int flags, msl_place here);
// Waits for all lanes, each with size bytes in its slot, and returns the slots.
// The last lane to come calls finish, if there is one, before any goes on.
const unsigned char* msl_rt_simd(const void* in, unsigned size, int kind, msl_place here, void (*finish)(unsigned char* slots, unsigned lanes));
// The product of 8x8 matrices, for finish: a slot has two elements each of a
// row of a, of b and of c; c + a*b replaces the first two.
void msl_rt_product(unsigned char* slots, unsigned lanes);
unsigned msl_rt_lanes(void); // of this SIMD-group
void* msl_rt_variable(unsigned id, const char* name, size_t size, size_t align);
uint32_t msl_rt_atomic_load(const void* p);
uint32_t msl_rt_atomic_swap(void* p, uint32_t expected, uint32_t value); // stores value over expected; returns what was there
const msl_grid* msl_rt_grid(void);
void* msl_rt_buffer(int index);
void* msl_rt_shared(int index);
void msl_rt_register(const char* name, const char* args, void (*run)(void));
}
