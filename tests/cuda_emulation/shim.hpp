// CUDA on one processor: the threads of a block are fibres that take turns at their barriers.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define DYNAMIC_SHARED(T, name) T* const name = reinterpret_cast<T*>(emulation::dynamic)

struct Dim {
  unsigned x = 1, y = 1, z = 1;
};
struct uint4 {
  unsigned x, y, z, w;
};
struct uint2 {
  unsigned x, y;
};

namespace emulation {

constexpr std::size_t kStack = 64 * 1024, kLargestBlock = 1024;
alignas(16) inline unsigned char dynamic[48 * 1024];

// One barrier: `all` must arrive before any goes on.
struct Barrier {
  unsigned all = 0, here = 0, round = 0;
};

// A context starts a fibre; from then on jumps switch, which ask nothing of the system.
struct Fibre {
  ucontext_t context;
  jmp_buf here;
  bool begun = false, done = false;
};

inline ucontext_t start;
inline jmp_buf scheduler;
inline std::vector<Fibre> fibres;
inline std::vector<char> stacks;
inline unsigned current;
inline bool moved;  // since the scheduler last came round: else the block is stuck
inline Barrier block_barrier, warp_barriers[kLargestBlock / 32];
inline std::uint64_t exchanged[kLargestBlock];
inline void (*body)(void*);
inline void* arguments;

inline void leave() {
  if (_setjmp(fibres[current].here) == 0) _longjmp(scheduler, 1);
}

inline void resume(unsigned thread) {
  current = thread;
  Fibre& fibre = fibres[thread];
  if (_setjmp(scheduler) != 0) return;
  if (fibre.begun) _longjmp(fibre.here, 1);
  fibre.begun = true;
  swapcontext(&start, &fibre.context);
}

inline void wait(Barrier& barrier) {
  const unsigned round = barrier.round;
  moved = true;
  if (++barrier.here == barrier.all) {
    barrier.here = 0;
    ++barrier.round;
    return;
  }
  while (barrier.round == round) leave();
}

inline Barrier& warp() { return warp_barriers[current / 32]; }

inline void enter() {
  body(arguments);
  fibres[current].done = moved = true;
  leave();
}

}  // namespace emulation

inline Dim gridDim, blockDim, blockIdx;
struct ThreadIndex {
  struct X {
    operator unsigned() const { return emulation::current; }
  } x;
};
inline ThreadIndex threadIdx;

inline void __syncthreads() { emulation::wait(emulation::block_barrier); }
inline void __syncwarp() { emulation::wait(emulation::warp()); }

template <class T>
T __shfl_sync(unsigned, T mine, int lane) {
  using namespace emulation;
  std::memcpy(&exchanged[current], &mine, sizeof mine);
  wait(warp());
  std::memcpy(&mine, &exchanged[current / 32 * 32 + static_cast<unsigned>(lane) % 32], sizeof mine);
  wait(warp());
  return mine;
}
template <class T>
T __shfl_xor_sync(unsigned mask, T mine, int step) {
  return __shfl_sync(mask, mine, static_cast<int>(emulation::current % 32) ^ step);
}
inline int __all_sync(unsigned mask, int mine) {
  int all = mine != 0;
  for (int lane = 0; lane < 32; ++lane) all &= __shfl_sync(mask, mine, lane) != 0;
  return all;
}
inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
  const unsigned long long old = *at;
  *at = value < old ? value : old;
  return old;
}

// What the device does in one instruction each.
struct Half;
struct Bfloat;
float widen(Half);
float widen(Bfloat);

namespace emulation {

template <class... A>
struct Call {
  void (*kernel)(A...);
  void** given;
  template <std::size_t... I>
  void run(std::index_sequence<I...>) {
    kernel(*static_cast<A*>(given[I])...);
  }
};

// Runs every block of a grid, one after the other.
template <class... A>
int launch(void (*kernel)(A...), const unsigned* grid, unsigned threads, void** given) {
  if (threads > kLargestBlock || threads % 32) return 1;
  Call<A...> call{kernel, given};
  arguments = &call;
  body = [](void* at) { static_cast<Call<A...>*>(at)->run(std::index_sequence_for<A...>{}); };
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {threads, 1, 1};
  if (stacks.empty()) stacks.resize(kStack * kLargestBlock);
  if (fibres.size() < kLargestBlock) fibres.resize(kLargestBlock);
  for (unsigned y = 0; y < grid[1]; ++y)
    for (unsigned x = 0; x < grid[0]; ++x) {
      blockIdx = {x, y, 0};
      // Shared memory holds no zeros when a block starts.
      std::memset(dynamic, 0xff, sizeof dynamic);
      block_barrier = {threads, 0, 0};
      for (Barrier& barrier : warp_barriers) barrier = {32, 0, 0};
      for (unsigned t = 0; t < threads; ++t) {
        Fibre& fibre = fibres[t];
        fibre.begun = fibre.done = false;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = stacks.data() + t * kStack;
        fibre.context.uc_stack.ss_size = kStack;
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, enter, 0);
      }
      for (unsigned left = threads; left > 0;) {
        moved = false;
        for (unsigned t = 0; t < threads; ++t) {
          if (fibres[t].done) continue;
          resume(t);
          left -= fibres[t].done;
        }
        if (!moved) return 2;  // a barrier that some thread never comes to
      }
    }
  return 0;
}

}  // namespace emulation
