// The number of threads, and fork safety.
#include "parallel.hpp"

#if defined(_OPENMP) && !defined(_WIN32)
#include <pthread.h>
#endif

namespace fastfisher {

namespace {

std::atomic<int> chosen_threads{0};

#if defined(_OPENMP) && !defined(_WIN32)
// libgomp's workers do not survive fork(), yet the child believes in them and hangs at its first
// parallel region. Ending them just before the fork leaves both sides with a fresh start.
const int fork_handler =
    pthread_atfork([] { omp_pause_resource_all(omp_pause_soft); }, nullptr, nullptr);
#endif

}  // namespace

int team_size(int requested) {
#if defined(_OPENMP)
  if (omp_in_parallel()) return 1;
  if (requested > 0) return requested;
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  const int allowed = omp_get_max_threads();
  return chosen > 0 && chosen < allowed ? chosen : allowed;
#else
  (void)requested;
  return 1;
#endif
}

void set_threads(int threads) { chosen_threads.store(threads, std::memory_order_relaxed); }

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

}  // namespace fastfisher
