// The roofs of this machine, measured by the loops that define them.
#include "probe.hpp"

#include <algorithm>
#include <chrono>

#include "memory.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace fastfisher {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Chains enough to cover a latency of 4 or 5 cycles on two units, and registers left for a and b.
constexpr int kChains = kVectorRegisters >= 32 ? 20 : 12;

// x ← a x + b, `rounds` times in every chain. x tends to b / (1 − a), so it never leaves the
// normal numbers; the sum returned keeps the loop alive.
template <class T>
T multiply_add(Index rounds, T a, T b) {
  Vec<T> x[kChains];
  const Vec<T> va = Vec<T>::broadcast(a), vb = Vec<T>::broadcast(b);
  for (int c = 0; c < kChains; ++c) x[c] = Vec<T>::broadcast(static_cast<T>(c));
  for (Index r = 0; r < rounds; ++r) {
    FASTFISHER_UNROLL
    for (int c = 0; c < kChains; ++c) x[c] = fma(x[c], va, vb);
  }
  Vec<T> total = x[0];
  for (int c = 1; c < kChains; ++c) total = total + x[c];
  return sum(total);
}

}  // namespace

template <class T>
double fma_peak(int threads) {
  threads = team_size(threads);
  constexpr Index rounds = 1 << 20;
  constexpr int tasks_per_thread = 4;
  const Index tasks = static_cast<Index>(threads) * tasks_per_thread;
  Buffer<T> kept(tasks * 16);
  volatile T a = T(0.5), b = T(1);  // unknown to the compiler
  const T av = a, bv = b;
  run_in_order(threads, tasks,
               [&](Index i, int) { kept[16 * i] = multiply_add(Index{1000}, av, bv); });
  const auto start = Clock::now();
  run_in_order(threads, tasks, [&](Index i, int) { kept[16 * i] = multiply_add(rounds, av, bv); });
  const double seconds = seconds_since(start);
  volatile T sink = kept[0];
  (void)sink;
  return 2.0 * kChains * kLanes<T> * static_cast<double>(rounds) * static_cast<double>(tasks) /
         seconds;
}

double read_bandwidth(Index bytes, int threads) {
  threads = team_size(threads);
  constexpr Index L = kLanes<double>, step = 8 * L;
  constexpr Index piece = 1 << 15;  // doubles per task
  const Index pieces = std::max<Index>(1, bytes / (piece * static_cast<Index>(sizeof(double))));
  Buffer<double> data(pieces * piece), kept(pieces);
  run_in_order(threads, pieces, [&](Index i, int) {
    std::fill(data.data() + i * piece, data.data() + (i + 1) * piece, 1.0);
  });
  const auto start = Clock::now();
  run_in_order(threads, pieces, [&](Index i, int) {
    Vec<double> acc[8];
    for (auto& x : acc) x = Vec<double>::zero();
    const double* at = data.data() + i * piece;
    for (Index e = 0; e < piece; e += step, at += step) {
      FASTFISHER_UNROLL
      for (int u = 0; u < 8; ++u) acc[u] = acc[u] + Vec<double>::load(at + u * L);
    }
    for (int u = 1; u < 8; ++u) acc[0] = acc[0] + acc[u];
    kept[i] = sum(acc[0]);
  });
  const double seconds = seconds_since(start);
  volatile double sink = kept[0];
  (void)sink;
  return static_cast<double>(pieces * piece) * sizeof(double) / seconds;
}

template double fma_peak<float>(int);
template double fma_peak<double>(int);

}  // namespace fastfisher
