// Products of the scores with several right-hand sides, which share every load of a score.
#include "fan.hpp"

#include <algorithm>

#include "memory.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace fastfisher {

namespace {

// Rows, or columns, taken together: accumulators of the register block.
constexpr int kTogether = 8;
// Columns before the next rows: their right-hand sides (512 × one register) stay in the first-level
// cache or next to it.
constexpr Index kStretch = 512;
// Rows of a block stay in the second-level cache until they are read again.
constexpr Index kBlockBytes = 1 << 17;
constexpr Index kMostRows = 64;

// One block of rows: x(r, c) at data[r * by_row + c * by_column].
template <class S>
struct Block {
  const S* data;
  Index by_row, by_column, rows, columns;
  bool more;  // another block follows in memory
};

// T[r] += Σ_c (x(r, c) - m[c]) V[c];    T += (X - m) @ V
//   T (rows, N), V (columns, N) contiguous; mean read if Centred. 2·rows·columns·N flops.
template <int N, bool Centred, class S, class A>
void dots(const Block<S>& x, const A* mean, const A* V, A* T) {
  for (Index c0 = 0; c0 < x.columns; c0 += kStretch) {
    const Index c1 = std::min(c0 + kStretch, x.columns);
    for (Index r0 = 0; r0 < x.rows; r0 += kTogether) {
      const S* row[kTogether];  // past the last row: the last once more, not stored
      Vec<A, N> sum[kTogether];
      FASTFISHER_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        row[i] = x.data + std::min(r0 + i, x.rows - 1) * x.by_row;
        sum[i] = Vec<A, N>::zero();
      }
      for (Index c = c0; c < c1; ++c) {
        const Vec<A, N> v = Vec<A, N>::load(V + c * N);
        FASTFISHER_UNROLL
        for (int i = 0; i < kTogether; ++i) {
          A e = static_cast<A>(row[i][c * x.by_column]);
          if (Centred) e -= mean[c];
          sum[i] = fma(Vec<A, N>::broadcast(e), v, sum[i]);
        }
      }
      FASTFISHER_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        if (r0 + i >= x.rows) break;
        A* t = T + (r0 + i) * N;
        (Vec<A, N>::load(t) + sum[i]).store(t);
      }
    }
  }
}

// Y[c] += Σ_r (x(r, c) - m[c]) T[r];    Y += (X - m).T @ T
// The block after this one comes from memory meanwhile, the 8 scores of one step for those of the
// next block: dots, which comes first there, then finds it in cache.
template <int N, bool Centred, class S, class A>
void sums(const Block<S>& x, const A* mean, const A* T, A* Y) {
  for (Index c0 = 0; c0 < x.columns; c0 += kTogether) {
    const S* column[kTogether];
    A m[kTogether];
    Vec<A, N> sum[kTogether];
    FASTFISHER_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      const Index c = std::min(c0 + i, x.columns - 1);
      column[i] = x.data + c * x.by_column;
      m[i] = Centred ? mean[c] : A(0);
      sum[i] = Vec<A, N>::load(Y + c * N);
    }
    for (Index r = 0; r < x.rows; ++r) {
      if (x.more) prefetch(column[0] + (r + x.rows) * x.by_row);
      const Vec<A, N> t = Vec<A, N>::load(T + r * N);
      FASTFISHER_UNROLL
      for (int i = 0; i < kTogether; ++i) {
        A e = static_cast<A>(column[i][r * x.by_row]);
        if (Centred) e -= m[i];
        sum[i] = fma(Vec<A, N>::broadcast(e), t, sum[i]);
      }
    }
    FASTFISHER_UNROLL
    for (int i = 0; i < kTogether; ++i) {
      if (c0 + i >= x.columns) break;
      sum[i].store(Y + (c0 + i) * N);
    }
  }
}

// Rows cut by the shape alone: slabs for the threads, each with a partial result, of blocks.
struct Cut {
  Index rows, block, slab, slabs;

  Cut(Index n, Index p, Index itemsize) : rows(n) {
    const Index fit = kBlockBytes / (p * itemsize) / kTogether * kTogether;
    // Rows too long for the cache are read twice anyway: many at a time share the right-hand sides.
    block = p * itemsize * kTogether > (1 << 20) ? kMostRows
                                                 : std::clamp<Index>(fit, kTogether, kMostRows);
    const Index wanted = std::max({ceil_div(n, 64), Index{128}, (Index{1} << 17) / p});
    slab = ceil_div(wanted, block) * block;
    slabs = ceil_div(n, slab);
  }

  // body(first row, rows) for the blocks of a slab.
  template <class Body>
  void blocks(Index i, Body&& body) const {
    const Index end = std::min((i + 1) * slab, rows);
    for (Index r = i * slab; r < end; r += block) body(r, std::min(block, end - r));
  }
};

template <class S>
Block<S> block_of(const ConstMatrix<S>& G, Index row, Index rows) {
  return {G.data() + row * G.rowStride(), G.rowStride(), G.colStride(), rows, G.cols(),
          row + 2 * rows <= G.rows()};
}

// Row r of V from column q0 on: k numbers, zero in the rest of N lanes.
template <int N, class A, class View>
Vec<A, N> row_of(const View& V, Index r, Index q0, Index k) {
  const A* from = V.data() + r * V.rowStride() + q0 * V.colStride();
  if (k == N && V.colStride() == 1) return Vec<A, N>::load(from);
  A lanes[N] = {};
  for (Index q = 0; q < k; ++q) lanes[q] = from[q * V.colStride()];
  return Vec<A, N>::load(lanes);
}

template <int N, class A>
void write_row(Vec<A, N> row, Matrix<A>& out, Index r, Index q0, Index k) {
  A* to = out.data() + r * out.rowStride() + q0 * out.colStride();
  if (k == N && out.colStride() == 1) return row.store(to);
  A lanes[N];
  row.store(lanes);
  for (Index q = 0; q < k; ++q) to[q * out.colStride()] = lanes[q];
}

// The right-hand sides q0 … q0+k-1 across N lanes, zero in the rest.
template <int N, class A>
Buffer<A> across(const ConstMatrix<A>& V, Index q0, Index k) {
  Buffer<A> packed(std::max<Index>(1, V.rows() * N));
  for (Index c = 0; c < V.rows(); ++c) row_of<N, A>(V, c, q0, k).store(packed.data() + c * N);
  return packed;
}

// total (p, N) = Σ over slabs of what body(first row, rows, part, T) adds to `part`.
template <int N, class A, class Body>
Buffer<A> sum_slabs(const Cut& cut, Index p, int threads, Body&& body) {
  const Index size = p * N;
  Buffer<A> total(std::max<Index>(1, cut.slabs) * size), T(threads * kMostRows * N);
  if (cut.slabs == 0) total.zero();
  run_in_order(threads, cut.slabs, [&](Index i, int thread) {
    A* part = total.data() + i * size;
    std::fill_n(part, size, A(0));
    cut.blocks(i, [&](Index row, Index rows) {
      body(row, rows, part, T.data() + thread * kMostRows * N);
    });
  });
  constexpr Index piece = 1 << 13;
  run_in_order(size * cut.slabs > (1 << 17) ? threads : 1, ceil_div(size, piece),
               [&](Index i, int) {
                 const Index at = i * piece, some = std::min(piece, size - at);
                 Vector<A> sum(total.data() + at, some);
                 for (Index s = 1; s < cut.slabs; ++s)
                   sum += ConstVector<A>(total.data() + s * size + at, some);
               });
  return total;
}

// Calls f(N, centred, q0, k) for groups of right-hand sides: N lanes hold k of them. Half a
// register serves a few as well as a whole one, and faster.
template <class A, class F>
void over_groups(Index count, bool centred, F&& f) {
  constexpr int L = kLanes<A>, half = L > 2 ? L / 2 : L;
  const auto with_lanes = [&](auto lanes, Index q, Index k) {
    if (centred)
      f(lanes, std::true_type(), q, k);
    else
      f(lanes, std::false_type(), q, k);
  };
  for (Index q = 0; q < count; q += L) {
    const Index k = std::min<Index>(L, count - q);
    if (k <= half)
      with_lanes(std::integral_constant<int, half>(), q, k);
    else
      with_lanes(std::integral_constant<int, L>(), q, k);
  }
}

int team(int threads, const Cut& cut) {
  return static_cast<int>(std::max<Index>(1, std::min<Index>(team_size(threads), cut.slabs)));
}

}  // namespace

template <class S, class A>
void fan_fvp(const ConstMatrix<S>& scores, const A* weights, const A* mean, const ConstMatrix<A>& V,
             double scale, double damping, Matrix<A>& out, int threads) {
  const Index p = scores.cols();
  if (p == 0) return;
  const Cut cut(scores.rows(), p, sizeof(S));
  over_groups<A>(V.cols(), mean, [&](auto lanes, auto centred, Index q0, Index k) {
    constexpr int N = decltype(lanes)::value;
    constexpr bool Centred = decltype(centred)::value;
    const Buffer<A> right = across<N>(V, q0, k);
    const Buffer<A> total =
        sum_slabs<N, A>(cut, p, team(threads, cut), [&](Index row, Index rows, A* part, A* T) {
          const Block<S> x = block_of(scores, row, rows);
          std::fill_n(T, rows * N, A(0));
          dots<N, Centred>(x, mean, right.data(), T);
          for (Index r = 0; weights && r < rows; ++r) {
            const A w = weights[row + r];  // where it is zero the product may have overflowed
            const Vec<A, N> t = w == A(0) ? Vec<A, N>::zero() : Vec<A, N>::load(T + r * N);
            (Vec<A, N>::broadcast(w) * t).store(T + r * N);
          }
          sums<N, Centred>(x, mean, T, part);
        });
    const auto s = Vec<A, N>::broadcast(static_cast<A>(scale));
    const auto d = Vec<A, N>::broadcast(static_cast<A>(damping));
    for (Index c = 0; c < p; ++c) {
      const Vec<A, N> product = s * Vec<A, N>::load(total.data() + c * N);
      const Vec<A, N> v = Vec<A, N>::load(right.data() + c * N);
      write_row(damping != 0.0 ? fma(d, v, product) : product, out, c, q0, k);
    }
  });
}

template <class S, class A>
void fan_dot(const ConstMatrix<S>& scores, const A* mean, const ConstMatrix<A>& V, Matrix<A>& out,
             int threads) {
  if (scores.cols() == 0) return out.setZero(), void();
  const Cut cut(scores.rows(), scores.cols(), sizeof(S));
  over_groups<A>(V.cols(), mean, [&](auto lanes, auto centred, Index q0, Index k) {
    constexpr int N = decltype(lanes)::value;
    constexpr bool Centred = decltype(centred)::value;
    const Buffer<A> right = across<N>(V, q0, k);
    const int some = team(threads, cut);
    Buffer<A> scratch(some * kMostRows * N);
    run_in_order(some, cut.slabs, [&](Index i, int thread) {
      A* T = scratch.data() + thread * kMostRows * N;
      cut.blocks(i, [&](Index row, Index rows) {
        std::fill_n(T, rows * N, A(0));
        dots<N, Centred>(block_of(scores, row, rows), mean, right.data(), T);
        for (Index r = 0; r < rows; ++r) write_row(Vec<A, N>::load(T + r * N), out, row + r, q0, k);
      });
    });
  });
}

template <class S, class A>
void fan_transpose_dot(const ConstMatrix<S>& scores, const A* weights, const A* mean,
                       const ConstMatrix<A>& Y, Matrix<A>& out, int threads) {
  const Index p = scores.cols();
  if (p == 0) return;
  const Cut cut(scores.rows(), p, sizeof(S));
  over_groups<A>(Y.cols(), mean, [&](auto lanes, auto centred, Index q0, Index k) {
    constexpr int N = decltype(lanes)::value;
    constexpr bool Centred = decltype(centred)::value;
    const Buffer<A> total =
        sum_slabs<N, A>(cut, p, team(threads, cut), [&](Index row, Index rows, A* part, A* T) {
          for (Index r = 0; r < rows; ++r) {
            const auto w = Vec<A, N>::broadcast(weights ? weights[row + r] : A(1));
            (w * row_of<N, A>(Y, row + r, q0, k)).store(T + r * N);
          }
          sums<N, Centred>(block_of(scores, row, rows), mean, T, part);
        });
    for (Index c = 0; c < p; ++c) write_row(Vec<A, N>::load(total.data() + c * N), out, c, q0, k);
  });
}

#define FASTFISHER_FAN(S, A)                                                                      \
  template void fan_fvp(const ConstMatrix<S>&, const A*, const A*, const ConstMatrix<A>&, double, \
                        double, Matrix<A>&, int);                                                 \
  template void fan_dot(const ConstMatrix<S>&, const A*, const ConstMatrix<A>&, Matrix<A>&, int); \
  template void fan_transpose_dot(const ConstMatrix<S>&, const A*, const A*,                      \
                                  const ConstMatrix<A>&, Matrix<A>&, int);
FASTFISHER_FOR_STORED(FASTFISHER_FAN)
#undef FASTFISHER_FAN

}  // namespace fastfisher
