// Threads: how many, and the one way kernels use them; with parallel.cpp the only files that name
// OpenMP.
#pragma once

#include <atomic>
#include <thread>

#if defined(_OPENMP)
#include <omp.h>
#elif defined(FASTFISHER_STD_THREADS)
#include <vector>
#endif

#include "types.hpp"

namespace fastfisher {

// How many threads a call may use: `requested`, or the default where requested is 0
// (set_threads, else OpenMP's own number, which OMP_NUM_THREADS, the affinity mask and
// threadpoolctl rule). Inside another pool's OpenMP region: one.
int team_size(int requested);
void set_threads(int threads);  // 0: back to OpenMP's number
bool has_openmp();

// How many of `threads` the system lets start now, at least 1. OpenMP ends the whole process where
// it cannot start one (too little address space, or a limit on threads), so trial threads are
// started first, when a team is to be larger than any before, and under a limit of the address
// space whenever it grows. Fewer threads give the same bits.
int startable(int threads);

// Counts finished tasks, so that later tasks can wait for earlier ones.
class Finished {
 public:
  void add() { count_.fetch_add(1, std::memory_order_release); }
  // A wait lasts a task at most (see run_in_order), so: spin a little, then give the core away,
  // since the thread waited for may be queued behind a busy neighbour on this very core.
  void wait(Index target) const {
    for (int spins = 0; count_.load(std::memory_order_acquire) < target;)
      if (spins < 200)
        ++spins;
      else
        std::this_thread::yield();
  }

 private:
  std::atomic<Index> count_{0};
};

// Runs task(i, thread) for i = 0 … count-1. Threads take the next i as they come free, always in
// ascending order, so a task may wait (Finished) for any earlier one without deadlock, and nobody
// meets at a barrier before the end: a thread that loses its core to a neighbour delays only the
// tasks that need what it holds. What a task computes must depend on i alone, never on `thread`
// (use it for scratch space only): that is what keeps the bits the same for any thread count.
template <class Task>
void run_in_order(int threads, Index count, Task&& task) {
#if defined(_OPENMP)
  if (threads > count) threads = static_cast<int>(count);
  if (threads > 1) threads = startable(threads);
  if (threads > 1) {
    std::atomic<Index> next{0};
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num();
      for (Index i = next.fetch_add(1, std::memory_order_relaxed); i < count;
           i = next.fetch_add(1, std::memory_order_relaxed))
        task(i, thread);
    }
    return;
  }
#elif defined(FASTFISHER_STD_THREADS)
  // For the thread sanitizer, which sees these threads but not those of every OpenMP.
  if (threads > count) threads = static_cast<int>(count);
  if (threads > 1) {
    std::atomic<Index> next{0};
    const auto work = [&](int thread) {
      for (Index i = next.fetch_add(1, std::memory_order_relaxed); i < count;
           i = next.fetch_add(1, std::memory_order_relaxed))
        task(i, thread);
    };
    std::vector<std::thread> team;
    for (int thread = 1; thread < threads; ++thread) team.emplace_back(work, thread);
    work(0);
    for (std::thread& member : team) member.join();
    return;
  }
#endif
  (void)threads;
  for (Index i = 0; i < count; ++i) task(i, 0);
}

}  // namespace fastfisher
