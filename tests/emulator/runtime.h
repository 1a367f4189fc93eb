// What a translated kernel and the scheduler say to each other. The scheduler (runtime.cpp) is compiled once
// and loaded first; every kernel is a small library of its own that calls these functions.
#pragma once
#include <cstddef>
#include <cstdint>

namespace emulator {

constexpr size_t ANCHOR = 16;  // bytes of static shared memory that no kernel asked for

struct Index {  // laid out as CUDA's uint3 and dim3
  unsigned x, y, z;
};

// One kernel: how to run one thread of it, and where its built-in variables and its static shared memory are.
struct Kernel {
  void (*body)(void** arguments);
  Index *thread, *block, *block_dim, *grid_dim;
  char* statics;
  size_t static_bytes;
};

struct Launch {
  Index grid, block;
  size_t dynamic_bytes;
  size_t limit;      // the most shared memory that a block of this device may have
  unsigned order;    // 0: forward, 1: reverse, otherwise the seed of a shuffle
  unsigned seconds;  // of processor time, after which it is taken to hang
  void** arguments;
};

// Called once per rendezvous of a warp, by the lane that arrives last: records[lane] is what that lane
// brought.
using Combine = void (*)(void** records, unsigned mask);

}  // namespace emulator

extern "C" {
// Null when all went well, else what went wrong.
const char* emulator_run(const emulator::Kernel*, const emulator::Launch*);
unsigned long long emulator_switches();  // fiber switches since this was last asked
void* emulator_fault_address();  // the address of an illegal access since this was last asked, or null

[[noreturn]] void emulator_fault(const char* format, ...) __attribute__((format(printf, 1, 2)));
void emulator_barrier(int line);
void emulator_collective(unsigned mask, void* record, emulator::Combine combine, int line);
unsigned emulator_lane();

void* emulator_dynamic_shared();
unsigned emulator_shared_address(const void* pointer);  // as PTX sees shared memory: 32 bits
void* emulator_shared_pointer(unsigned long long address);

void emulator_copy_async(void* to, const void* from, unsigned bytes, unsigned valid);
void emulator_copy_commit();
void emulator_copy_wait(unsigned groups_left_open);
}
