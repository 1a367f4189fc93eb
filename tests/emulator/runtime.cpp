// Runs the threads of a CUDA grid on one CPU thread: fibers, the scheduler, shared memory, fault reports.
//
// A block's threads take turns. A thread runs until it finishes or waits (a barrier, a warp primitive); a
// fiber whose thread finished goes on with the next thread that has not started, so a kernel that never waits
// never switches. Which thread comes next is decided by an order that the caller chooses. A kernel without a
// race gives the same bits in every order.
#include "runtime.h"

#include <ucontext.h>

#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <sys/mman.h>
#include <sys/time.h>
#include <utility>
#include <vector>
#if !defined(__x86_64__) || defined(EMULATOR_UCONTEXT)
#define EMULATOR_UCONTEXT 1
#endif

#define DYNAMIC "dynamic shared memory"

using emulator::Combine;
using emulator::Index;

namespace {

constexpr size_t STACK = 128 * 1024;
constexpr size_t PAGE = 64 * 1024;    // a multiple of the page size of every processor that we may meet
constexpr size_t ARENA = 256 * 1024;  // above the 227 KiB that any device gives a block
constexpr unsigned STATIC_WINDOW = 1u << 24;  // where static arrays begin in the 32-bit shared address space
constexpr size_t MARGIN = 64;                 // bytes before dynamic shared memory that nobody may write
constexpr int POISON = 0xFF;                  // NaN in every floating type, -1 in every signed one

// ---- fibers -----------------------------------------------------------------------------------------------

struct Fiber {
#ifdef EMULATOR_UCONTEXT
  ucontext_t context;
#else
  void* stack_pointer;
#endif
  char* stack = nullptr;
};

#ifdef EMULATOR_UCONTEXT
void switch_fiber(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }

void prepare(Fiber& fiber, void (*entry)()) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, entry, 0);
}
#else
// The System V ABI lets a callee clobber all but six registers and the stack pointer. swapcontext would also
// make a system call, for the signal mask.
extern "C" void emulator_switch(void** save, void* load);
asm(R"(
.text
.p2align 4
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch,.-emulator_switch
)");

void switch_fiber(Fiber& from, Fiber& to) { emulator_switch(&from.stack_pointer, to.stack_pointer); }

void prepare(Fiber& fiber, void (*entry)()) {
  auto* top = reinterpret_cast<uint64_t*>(fiber.stack + STACK);
  *--top = 0;  // where a return address would be: keeps the stack aligned as after a call
  *--top = reinterpret_cast<uint64_t>(entry);
  for (int i = 0; i < 6; i++) *--top = 0;
  fiber.stack_pointer = top;
}
#endif

// ---- the state of a launch --------------------------------------------------------------------------------

enum class State : uint8_t { fresh, ready, at_barrier, in_warp, done };

struct Copy {  // of cp.async; the end of a group when `to` is null
  void* to;
  const void* from;
  unsigned bytes, valid;
};

struct Thread {
  Index index;
  unsigned linear;
  State state;
  int line;       // where it waits
  unsigned mask;  // for which lanes
  Fiber* fiber;
  std::vector<Copy> copies;
};

struct Rendezvous {  // lanes of one warp that wait for each other
  unsigned mask, arrived;
  Combine combine;
  void* records[32];
};

struct Machine {
  const emulator::Kernel* kernel;
  const emulator::Launch* launch;
  std::vector<Thread> threads;
  std::vector<std::vector<Rendezvous>> warps;
  std::vector<unsigned> turns;  // the order of this round
  std::vector<Fiber*> free_fibers;
  std::vector<Fiber*> all_fibers;
  Fiber main;
  Thread* current;
  unsigned count, cursor, live;
  bool progress;
  uint64_t blocks, next_block, stride, random;
  unsigned long long switches;
  char* shared;  // the dynamic part: [shared, shared + dynamic_bytes)
  sigjmp_buf escape;
  char message[768];
  void* fault_address;
};

Machine machine;
alignas(PAGE) char arena[ARENA + PAGE];  // dynamic shared memory ends where the guard, its last page, begins

void report(const char* format, va_list values) {
  const Index& b = *machine.kernel->block;
  const Index& t = *machine.kernel->thread;
  int n = snprintf(machine.message, sizeof machine.message, "block (%u, %u, %u) thread (%u, %u, %u): ", b.x,
                   b.y, b.z, t.x, t.y, t.z);
  vsnprintf(machine.message + n, sizeof machine.message - n, format, values);
}

uint64_t random_number() {  // xorshift64: the shuffles must be the same on every machine
  uint64_t& r = machine.random;
  r ^= r << 13;
  r ^= r >> 7;
  r ^= r << 17;
  return r;
}

// ---- the scheduler ----------------------------------------------------------------------------------------

void fiber_main();

Fiber* acquire() {
  if (machine.free_fibers.empty()) {
    auto* fiber = new Fiber;
    void* memory = mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) emulator_fault("no memory for the stack of another thread");
    mprotect(memory, PAGE, PROT_NONE);  // a stack that overflows faults
    fiber->stack = static_cast<char*>(memory) + PAGE;
    machine.all_fibers.push_back(fiber);
    machine.free_fibers.push_back(fiber);
  }
  Fiber* fiber = machine.free_fibers.back();
  machine.free_fibers.pop_back();
  prepare(*fiber, fiber_main);
  return fiber;
}

void make_current(Thread* thread) {
  machine.current = thread;
  *machine.kernel->thread = thread->index;
}

void begin_round() {
  machine.cursor = 0;
  machine.progress = false;
  if (machine.launch->order < 2) return;
  for (unsigned i = machine.count - 1; i > 0; i--)
    std::swap(machine.turns[i], machine.turns[random_number() % (i + 1)]);
}

[[noreturn]] void report_deadlock() {
  unsigned at_barrier = 0;
  const Thread* stuck = nullptr;
  for (const Thread& t : machine.threads) {
    at_barrier += t.state == State::at_barrier;
    if (t.state == State::in_warp && !stuck) stuck = &t;
  }
  unsigned missing = stuck->mask;
  for (const Rendezvous& r : machine.warps[stuck->linear / 32])
    if (r.mask == stuck->mask) missing &= ~r.arrived;
  *machine.kernel->thread = stuck->index;
  emulator_fault(
      "deadlock: it waits in a warp primitive at line %d (mask 0x%08x, lanes 0x%08x never come); of %u live "
      "threads %u wait at __syncthreads()",
      stuck->line, stuck->mask, missing, machine.live, at_barrier);
}

// Nobody can run: every live thread must be at one and the same barrier.
void open_barrier() {
  const Thread* first = nullptr;
  for (Thread& t : machine.threads) {
    if (t.state == State::in_warp) report_deadlock();
    if (t.state != State::at_barrier) continue;
    if (!first) first = &t;
    if (t.line != first->line) {
      *machine.kernel->thread = t.index;
      emulator_fault(
          "divergent barrier: it waits at __syncthreads() of line %d, thread (%u, %u, %u) at that of line %d",
          t.line, first->index.x, first->index.y, first->index.z, first->line);
    }
  }
  for (Thread& t : machine.threads)
    if (t.state == State::at_barrier) t.state = State::ready;
}

// The thread whose turn it is, or null when the block is done.
Thread* choose() {
  for (;;) {
    while (machine.cursor < machine.count) {
      Thread& t = machine.threads[machine.turns[machine.cursor++]];
      if (t.state > State::ready) continue;
      machine.progress = true;
      return &t;
    }
    if (!machine.live) return nullptr;
    if (!machine.progress) open_barrier();
    begin_round();
  }
}

void check_shared_margin() {  // the bytes around the dynamic part that no guard page covers
  const char* end = machine.shared + machine.launch->dynamic_bytes;
  for (const char* p = end; p < arena + ARENA; p++)
    if (*p != char(POISON)) emulator_fault("the block wrote %td bytes past the end of " DYNAMIC, p - end);
  for (const char* p = machine.shared - MARGIN; p < machine.shared; p++)
    if (*p != char(POISON)) emulator_fault("the block wrote %td bytes before " DYNAMIC, machine.shared - p);
}

uint64_t block_at(uint64_t turn) {
  unsigned order = machine.launch->order;
  if (order == 0) return turn;
  if (order == 1) return machine.blocks - 1 - turn;
  return (turn + order) * machine.stride % machine.blocks;
}

// The first thread of the next block, all of whose shared memory is poisoned, or null after the last block.
Thread* begin_block() {
  if (machine.next_block) check_shared_margin();
  if (machine.next_block == machine.blocks) return nullptr;
  uint64_t j = block_at(machine.next_block++);
  const Index& grid = machine.launch->grid;
  *machine.kernel->block = {unsigned(j % grid.x), unsigned(j / grid.x % grid.y),
                            unsigned(j / grid.x / grid.y)};
  memset(machine.kernel->statics, POISON, machine.kernel->static_bytes);
  memset(machine.shared - MARGIN, POISON, arena + ARENA - machine.shared + MARGIN);
  for (auto& warp : machine.warps) warp.clear();
  for (Thread& t : machine.threads) {
    t.state = State::fresh;
    t.copies.clear();
  }
  machine.live = machine.count;
  begin_round();
  return choose();
}

void go_to(Thread* next) {
  Thread* me = machine.current;
  make_current(next);
  if (next == me) return;
  if (next->state == State::fresh) {
    next->state = State::ready;
    next->fiber = acquire();
  }
  machine.switches++;
  switch_fiber(*me->fiber, *next->fiber);
}

void fiber_main() {
  for (;;) {
    machine.kernel->body(machine.launch->arguments);
    Thread* me = machine.current;
    me->state = State::done;
    machine.live--;
    Thread* next = choose();
    if (!next) next = begin_block();
    if (!next) switch_fiber(*me->fiber, machine.main);
    if (next->state == State::fresh) {  // run to completion: no switch, the same fiber serves the next thread
      next->state = State::ready;
      next->fiber = me->fiber;
      make_current(next);
    } else {
      machine.free_fibers.push_back(me->fiber);
      go_to(next);
    }
  }
}

// ---- faults of the processor ------------------------------------------------------------------------------

bool inside(const void* p, const char* start, size_t size) { return p >= start && p < start + size; }

const char* access_kind(void* context) {
#if defined(__x86_64__) && defined(__linux__)
  // Bit 1 of the page fault's error code is set by a write.
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2 ? "write" : "read";
#else
  (void)context;
  return "access";
#endif
}

void on_signal(int number, siginfo_t* info, void* context) {
  char* at = static_cast<char*>(info->si_addr);
  if (number == SIGFPE) emulator_fault("integer division by zero, or its overflow");
  if (number == SIGVTALRM) emulator_fault("still running after %u s: it hangs", machine.launch->seconds);
  for (const Fiber* fiber : machine.all_fibers)
    if (inside(at, fiber->stack - PAGE, PAGE))
      emulator_fault("the local arrays outgrow a stack of %zu bytes", STACK);
  if (inside(at, arena + ARENA, PAGE))
    emulator_fault("illegal %s %td bytes past the end of " DYNAMIC " (%zu bytes)", access_kind(context),
                   at - (machine.shared + machine.launch->dynamic_bytes), machine.launch->dynamic_bytes);
  machine.fault_address = at;
  emulator_fault("illegal %s at %p", access_kind(context), static_cast<void*>(at));
}

struct Signals {  // ours during a launch, the host's own before and after
  static constexpr int numbers[4] = {SIGSEGV, SIGBUS, SIGFPE, SIGVTALRM};
  struct sigaction before[4];
  stack_t stack_before;
  explicit Signals(unsigned seconds) {
    static char stack[64 * 1024];  // a fiber's own stack may be what overflowed
    stack_t mine{};
    mine.ss_sp = stack;
    mine.ss_size = sizeof stack;
    sigaltstack(&mine, &stack_before);
    struct sigaction action{};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &action, &before[i]);
    set_timer(seconds);
  }
  ~Signals() {
    set_timer(0);
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &before[i], nullptr);
    sigaltstack(&stack_before, nullptr);
  }
  static void set_timer(unsigned seconds) {
    itimerval timer{};
    timer.it_value.tv_sec = seconds;
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
  }
};

// ---- a launch ---------------------------------------------------------------------------------------------

const char* refusal(const emulator::Kernel& kernel, const emulator::Launch& launch) {
  const Index &b = launch.block, &g = launch.grid;
  uint64_t threads = uint64_t(b.x) * b.y * b.z;
  size_t own = kernel.static_bytes - emulator::ANCHOR;
  char* text = machine.message;
  size_t room = sizeof machine.message;
  if (!threads || b.x > 1024 || b.y > 1024 || b.z > 64 || threads > 1024)
    snprintf(text, room, "invalid block size (%u, %u, %u): 1 to 1024 threads, at most 64 along z", b.x, b.y,
             b.z);
  else if (!g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535)
    snprintf(text, room, "invalid grid size (%u, %u, %u): at most 2^31 - 1, 65535, 65535", g.x, g.y, g.z);
  else if (own > 48 * 1024)
    snprintf(text, room, "%zu bytes of static shared memory: at most 49152", own);
  else if (own + launch.dynamic_bytes > launch.limit)
    snprintf(text, room,
             "too much shared memory: %zu bytes dynamic and %zu static, this device has %zu a block",
             launch.dynamic_bytes, own, launch.limit);
  else
    return nullptr;
  return text;
}

void set_up(const emulator::Kernel& kernel, const emulator::Launch& launch) {
  const Index& b = launch.block;
  machine.kernel = &kernel;
  machine.launch = &launch;
  machine.count = b.x * b.y * b.z;
  machine.threads.resize(machine.count);
  machine.warps.resize((machine.count + 31) / 32);
  machine.turns.resize(machine.count);
  for (unsigned i = 0; i < machine.count; i++) {
    machine.threads[i].linear = i;
    machine.threads[i].index = {i % b.x, i / b.x % b.y, i / b.x / b.y};
    machine.turns[i] = launch.order == 1 ? machine.count - 1 - i : i;
  }
  machine.free_fibers = machine.all_fibers;  // also those that a fault left in the middle of a thread
  machine.random = launch.order * 0x9E3779B97F4A7C15ull + 1;
  machine.next_block = 0;
  machine.blocks = uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
  // Blocks in a shuffled order, without a table: steps that share no factor with their number visit each
  // once.
  machine.stride = machine.blocks / 2 + launch.order % 97;
  while (std::gcd(machine.stride, machine.blocks) != 1) machine.stride++;
  *kernel.block_dim = b;
  *kernel.grid_dim = launch.grid;
  static bool guarded = !mprotect(arena + ARENA, PAGE, PROT_NONE);
  (void)guarded;
  machine.shared = arena + ARENA - (launch.dynamic_bytes + 15) / 16 * 16;
}

}  // namespace

extern "C" {

const char* emulator_run(const emulator::Kernel* kernel, const emulator::Launch* launch) {
  if (const char* why = refusal(*kernel, *launch)) return why;
  set_up(*kernel, *launch);
  Signals signals(launch->seconds);
  if (sigsetjmp(machine.escape, 1)) return machine.message;
  Thread* first = begin_block();
  first->state = State::ready;
  first->fiber = acquire();
  make_current(first);
  switch_fiber(machine.main, *first->fiber);
  return nullptr;
}

unsigned long long emulator_switches() { return std::exchange(machine.switches, 0); }
void* emulator_fault_address() { return std::exchange(machine.fault_address, nullptr); }

// Leaves the fiber where it is: the launch is over, its stack is started afresh by the next one.
void emulator_fault(const char* format, ...) {
  va_list values;
  va_start(values, format);
  report(format, values);
  va_end(values);
  siglongjmp(machine.escape, 1);
}

unsigned emulator_lane() { return machine.current->linear % 32; }

void emulator_barrier(int line) {
  machine.current->state = State::at_barrier;
  machine.current->line = line;
  go_to(choose());
}

// The lanes of `mask` meet. What they bring lies on their own stacks, which stay as they are until the lane
// that comes last has combined it: so no lane can overwrite what another has yet to read.
void emulator_collective(unsigned mask, void* record, Combine combine, int line) {
  Thread& me = *machine.current;
  unsigned lane = me.linear % 32;
  if (!(mask >> lane & 1))
    emulator_fault("lane %u is not in its own warp mask 0x%08x (line %d)", lane, mask, line);
  auto& meetings = machine.warps[me.linear / 32];
  size_t i = 0;
  while (i < meetings.size() && meetings[i].mask != mask) i++;
  if (i == meetings.size()) meetings.push_back({mask, 0, combine, {}});
  Rendezvous& meeting = meetings[i];
  if (meeting.combine != combine)
    emulator_fault("lanes of one warp meet in different primitives (line %d)", line);
  meeting.records[lane] = record;
  meeting.arrived |= 1u << lane;
  if (meeting.arrived != mask) {
    me.state = State::in_warp;
    me.mask = mask;
    me.line = line;
    go_to(choose());
    return;
  }
  if (combine) combine(meeting.records, mask);
  meetings.erase(meetings.begin() + i);
  Thread* warp = &me - lane;
  for (unsigned l = 0; l < 32; l++)
    if (mask >> l & 1 && l != lane) warp[l].state = State::ready;
}

void* emulator_dynamic_shared() { return machine.shared; }

unsigned emulator_shared_address(const void* pointer) {
  auto* p = static_cast<const char*>(pointer);
  if (inside(p, arena, sizeof arena)) return unsigned(p - arena);
  if (inside(p, machine.kernel->statics, machine.kernel->static_bytes + 1))
    return STATIC_WINDOW + unsigned(p - machine.kernel->statics);
  emulator_fault("%p is not an address of shared memory", pointer);
}

void* emulator_shared_pointer(unsigned long long address) {
  if (address < sizeof arena) return arena + address;
  if (address - STATIC_WINDOW <= machine.kernel->static_bytes)
    return machine.kernel->statics + (address - STATIC_WINDOW);
  emulator_fault("0x%llx is not an address of shared memory: convert it by __cvta_generic_to_shared()",
                 address);
}

// The copy lands at the wait and not before; until then its target holds poison.
void emulator_copy_async(void* to, const void* from, unsigned bytes, unsigned valid) {
  if (bytes != 4 && bytes != 8 && bytes != 16) emulator_fault("cp.async of %u bytes: 4, 8 or 16", bytes);
  if ((uintptr_t(to) | uintptr_t(from)) % bytes) emulator_fault("misaligned cp.async of %u bytes", bytes);
  memset(to, POISON, bytes);
  machine.current->copies.push_back({to, from, bytes, valid < bytes ? valid : bytes});
}

void emulator_copy_commit() { machine.current->copies.push_back({}); }

void emulator_copy_wait(unsigned groups_left_open) {
  auto& copies = machine.current->copies;
  unsigned groups = 0;
  for (const Copy& copy : copies) groups += !copy.to;
  size_t i = 0;
  for (; i < copies.size() && groups > groups_left_open; i++) {
    const Copy& copy = copies[i];
    groups -= !copy.to;
    if (!copy.to) continue;
    memset(copy.to, 0, copy.bytes);
    memcpy(copy.to, copy.from, copy.valid);
  }
  copies.erase(copies.begin(), copies.begin() + i);
}

// ---- what g++ calls where -fsanitize=bounds,alignment finds a fault; the layouts are libubsan's -----------

struct Location {
  const char* file;
  unsigned line, column;
};
struct Type {
  unsigned short kind, info;
  char name[1];
};
struct Mismatch {
  Location at;
  const Type* type;
  unsigned char log_alignment, kind;
};
struct Bounds {
  Location at;
  const Type *array, *index;
};

static const char* base_name(const Location& at) {
  const char* slash = strrchr(at.file, '/');
  return slash ? slash + 1 : at.file;
}

void __ubsan_handle_type_mismatch_v1_abort(const Mismatch* what, void* pointer) {
  emulator_fault("%s:%u: misaligned address %p for %s: a multiple of %u", base_name(what->at), what->at.line,
                 pointer, what->type->name, 1u << what->log_alignment);
}

void __ubsan_handle_out_of_bounds_abort(const Bounds* what, long long index) {
  emulator_fault("%s:%u: index %lld is outside of %s", base_name(what->at), what->at.line, index,
                 what->array->name);
}
}
