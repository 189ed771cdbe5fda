// The lane kernel of Fishers: rows of a group are transposed, register tiles take them in order.
#include "batch_fisher.hpp"

#include <algorithm>
#include <vector>

#include "memory.hpp"
#include "parallel.hpp"

namespace fastfisher {

namespace {

// A block of rows: 16 KiB of a 32 KiB first cache level, but enough rows to pay for a tile's visit.
constexpr Index kBlockBytes = 16 * 1024;
constexpr Index kLeastRows = 8;

template <class T>
struct Sums {
  using Lane = Vec<T>;
  static constexpr int V = kLanes<T>;

  Index p, rows;  // rows of a block
  T* F;           // packed lower triangle
  T* X;           // (rows, p) s − m
  T* Y;           // (rows, p) w (s − m), where there are weights
  T* mean;        // (p,)
  T* w;           // (rows,)

  static Index block(Index p) { return std::max(kLeastRows, kBlockBytes / (p * kVectorBytes)); }
  static Index size(Index p) { return (p * (p + 1) / 2 + p + block(p) * (2 * p + 1)) * V; }
  Sums(T* memory, Index params) : p(params), rows(block(params)) {
    F = memory;
    X = F + p * (p + 1) / 2 * V;
    Y = X + rows * p * V;
    mean = Y + rows * p * V;
    w = mean + p * V;
  }

  // F += Σ_rows y xᵀ, one tile at a time.
  template <int R, int C>
  FASTFISHER_INLINE void add_tile(const T* y, const T* x, Index count, Index i, Index j) {
    Lane acc[R][C];
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c)
      acc[r][c] = j + c <= i + r ? Lane::load(F + packed(i + r, j + c) * V) : Lane::zero();
    for (Index t = 0; t < count; ++t) {
      Lane b[C];
      FASTFISHER_UNROLL
      for (int c = 0; c < C; ++c) b[c] = Lane::load(x + (t * p + j + c) * V);
      FASTFISHER_UNROLL
      for (int r = 0; r < R; ++r) {
        const Lane a = Lane::load(y + (t * p + i + r) * V);
        FASTFISHER_UNROLL
        for (int c = 0; c < C; ++c) acc[r][c] = fma(a, b[c], acc[r][c]);
      }
    }
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c)
      if (j + c <= i + r) acc[r][c].store(F + packed(i + r, j + c) * V);
  }

  void add(const T* y, Index count) {
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto tall) {
        constexpr int R = decltype(tall)::value;
        for (Index j = 0; j < i; j += kTile) add_tile<R, kTile>(y, X, count, i, j);
        add_tile<R, R>(y, X, count, i, i);
      });
  }
};

template <class T>
void fisher_group(const ConstBatch<T>& scores, const ConstBatch<T>& weights, bool center, bool mean,
                  Index first, T* memory, T* out) {
  using Lane = Vec<T>;
  constexpr int V = kLanes<T>;
  const Index n = scores.rows, p = scores.cols;
  const Group<T> group(scores, first);
  const bool weighted = weights.data != nullptr;
  const Group<T> weight = weighted ? Group<T>(weights, first) : group;
  Sums<T> sums(memory, p);
  const Lane one = Lane::broadcast(T(1));

  // The sum of the weights, and the weighted mean.
  Lane total = Lane::broadcast(static_cast<T>(n));
  for (Index i = 0; i < p; ++i) Lane::zero().store(sums.mean + i * V);
  if (weighted) total = Lane::zero();
  if (weighted || center)
    for (Index from = 0; from < n; from += sums.rows) {
      const Index rows = std::min(sums.rows, n - from);
      if (weighted) gather_rows(weights, weight, from, rows, sums.w);
      if (center) gather_rows(scores, group, from, rows, sums.X);
      for (Index t = 0; t < rows; ++t) {
        const Lane w = weighted ? Lane::load(sums.w + t * V) : one;
        if (weighted) total = total + w;
        if (center)
          for (Index i = 0; i < p; ++i)
            fma(w, Lane::load(sums.X + (t * p + i) * V), Lane::load(sums.mean + i * V))
                .store(sums.mean + i * V);
      }
    }
  const Lane inverse = one / total;
  if (center)
    for (Index i = 0; i < p; ++i) (Lane::load(sums.mean + i * V) / total).store(sums.mean + i * V);

  for (Index e = 0; e < p * (p + 1) / 2; ++e) Lane::zero().store(sums.F + e * V);
  for (Index from = 0; from < n; from += sums.rows) {
    const Index rows = std::min(sums.rows, n - from);
    gather_rows(scores, group, from, rows, sums.X);
    if (weighted) gather_rows(weights, weight, from, rows, sums.w);
    if (center || weighted)
      for (Index t = 0; t < rows; ++t) {
        const Lane w = weighted ? Lane::load(sums.w + t * V) : one;
        for (Index i = 0; i < p; ++i) {
          T* const x = sums.X + (t * p + i) * V;
          const Lane centred =
              center ? Lane::load(x) - Lane::load(sums.mean + i * V) : Lane::load(x);
          centred.store(x);
          if (weighted) (centred * w).store(sums.Y + (t * p + i) * V);
        }
      }
    sums.add(weighted ? sums.Y : sums.X, rows);
  }
  if (mean)
    for (Index e = 0; e < p * (p + 1) / 2; ++e)
      (Lane::load(sums.F + e * V) * inverse).store(sums.F + e * V);
  scatter_symmetric(sums.F, out + first * p * p, group.used, p);
}

}  // namespace

template <class T>
void batch_fisher(const ConstBatch<T>& scores, const ConstBatch<T>& weights, bool center, bool mean,
                  T* out, int threads) {
  constexpr int V = kLanes<T>;
  const Index n = scores.rows, p = scores.cols, count = scores.count;
  if (count == 0 || p == 0) return;
  const Index groups = ceil_div(count, V);
  const Index bytes = V * (n + p) * p * static_cast<Index>(sizeof(T));
  const Index together = std::max<Index>(1, kTaskBytes / bytes);
  const double flops = static_cast<double>(count) * static_cast<double>(n * p * (p + 1));
  const int team = flops < kSerialFlops ? 1 : team_size(threads);
  std::vector<Buffer<T>> memory;
  for (int t = 0; t < team; ++t) memory.emplace_back(Sums<T>::size(p));
  run_in_order(team, ceil_div(groups, together), [&](Index task, int thread) {
    const Index end = std::min(groups, (task + 1) * together);
    for (Index g = task * together; g < end; ++g)
      fisher_group(scores, weights, center, mean, g * V,
                   memory[static_cast<std::size_t>(thread)].data(), out);
  });
}

#define FASTFISHER_BATCH_FISHER(T) \
  template void batch_fisher(const ConstBatch<T>&, const ConstBatch<T>&, bool, bool, T*, int);
FASTFISHER_BATCH_FISHER(double)
FASTFISHER_BATCH_FISHER(float)
#undef FASTFISHER_BATCH_FISHER

}  // namespace fastfisher
