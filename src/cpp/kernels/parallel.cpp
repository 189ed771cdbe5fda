// The number of threads, and safety where there are forks, or limits on memory and threads.
#include "parallel.hpp"

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#include <sys/resource.h>
#endif

namespace fastfisher {

namespace {

std::atomic<int> chosen_threads{0};

#if defined(_OPENMP)
std::atomic<int> largest_team{1};  // that was ever started
thread_local int last_team = 1;    // of this thread; what a smaller one needs no more, OpenMP ends

// What OpenMP and the C library take beside the stacks of threads that have been tried: a few kB.
constexpr std::size_t kHeadroom = std::size_t{1} << 20;

bool address_space_is_limited() {
#if defined(_WIN32)
  return false;
#else
  rlimit limit;
  return getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
#endif
}

// Starts up to threads - 1 threads that live until the last has started, and counts them.
int started_on_trial(int threads) {
  void* headroom = std::malloc(kHeadroom);
  if (!headroom) return 0;
  std::mutex mutex;
  std::condition_variable all_started;
  bool over = false;
  std::vector<std::thread> trial;
  try {
    trial.reserve(static_cast<std::size_t>(threads - 1));
    for (int i = 1; i < threads; ++i)
      trial.emplace_back([&] {
        std::unique_lock<std::mutex> lock(mutex);
        all_started.wait(lock, [&] { return over; });
      });
  } catch (const std::exception&) {  // system_error: no thread; bad_alloc
  }
  {
    const std::lock_guard<std::mutex> lock(mutex);
    over = true;
  }
  all_started.notify_all();
  for (std::thread& thread : trial) thread.join();
  std::free(headroom);
  return static_cast<int>(trial.size());
}
#endif

#if defined(_OPENMP) && !defined(_WIN32)
// libgomp's workers do not survive fork(), yet the child believes in them and hangs at its first
// parallel region. Ending them just before the fork leaves both sides with a fresh start.
// Their stacks were given back by then, hence the trial of new ones.
const int fork_handler = pthread_atfork(
    [] {
      omp_pause_resource_all(omp_pause_soft);
      last_team = 1;
    },
    nullptr, nullptr);
#endif

}  // namespace

int team_size(int requested) {
#if defined(_OPENMP)
  if (omp_in_parallel()) return 1;
  if (requested > 0) return requested;
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  const int allowed = omp_get_max_threads();
  return chosen > 0 && chosen < allowed ? chosen : allowed;
#elif defined(FASTFISHER_STD_THREADS)
  if (requested > 0) return requested;
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  return chosen > 0 ? chosen : static_cast<int>(std::thread::hardware_concurrency());
#else
  (void)requested;
  return 1;
#endif
}

void set_threads(int threads) { chosen_threads.store(threads, std::memory_order_relaxed); }

#if defined(_OPENMP)
int startable(int threads) {
  if (threads <= last_team) return last_team = threads;
  const int largest = largest_team.load(std::memory_order_relaxed);
  if (threads > largest || address_space_is_limited()) {
    threads = 1 + started_on_trial(threads);
    if (threads > largest) largest_team.store(threads, std::memory_order_relaxed);
  }
  return last_team = threads;
}
#else
int startable(int threads) { return threads; }
#endif

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

}  // namespace fastfisher
