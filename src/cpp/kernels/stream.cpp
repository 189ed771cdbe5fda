// One-pass kernels on the scores: how rows are cut into slabs and blocks, and read as lines.
#include "stream.hpp"

#include <algorithm>
#include <cmath>

#include "fan.hpp"
#include "lines.hpp"
#include "memory.hpp"
#include "pack.hpp"
#include "parallel.hpp"

namespace fastfisher {

namespace {

constexpr Index kMaxSlabs = 64;  // partial results held at once, and threads that can help
constexpr Index kSlabScores =
    1 << 17;                     // below, a slab costs more than it brings (30 µs of reading)
constexpr Index kSlabRows = 16;  // rows of a slab pay for its partial result
// Rows, but at least a block, whose sum joins the slab's: in short chains of additions rounding
// stays below LAPACK's threshold.
constexpr Index kChunkRows = 128;

// Rows: every row is contiguous and is a line. Columns: every column is, and a block of rows of it
// is a line. Packed: neither (or too short for a register); a block is copied to columns first.
enum class Layout { Rows, Columns, Packed };

template <class S, class A>
Layout layout_of(const ConstMatrix<S>& G) {
  if (G.innerStride() == 1 && G.cols() >= kLanes<A>) return Layout::Rows;
  if (G.outerStride() == 1 && G.rows() >= kLanes<A>) return Layout::Columns;
  return Layout::Packed;
}

// One pass over the scores: their layout, and rows cut in slabs (shared out to threads) of chunks
// of blocks (kept in cache). A is the type sums are taken in, W that of weights and mean.
template <class S, class A, class W>
struct Pass {
  ConstMatrix<S> G;
  const W* weights;
  Layout layout;
  Index block, slab, slabs;
  Buffer<A> centre;  // the mean as `lines` wants it

  // `bytes` of scores and at most `rows` rows make a block.
  Pass(ConstMatrix<S> scores, const W* w, const W* mean, Index bytes, Index rows)
      : G(scores), weights(w), layout(layout_of<S, A>(scores)) {
    const Index n = G.rows(), p = G.cols();
    const Index unit = layout == Layout::Rows ? 4 : kLanes<A>;
    const Index fit = bytes / (p * static_cast<Index>(sizeof(S)));
    block = std::max(unit, std::min(fit, rows) / unit * unit);
    const Index wanted = std::max({ceil_div(n, kMaxSlabs), kSlabRows, kSlabScores / p});
    slab = ceil_div(wanted, block) * block;
    slabs = ceil_div(n, slab);
    if (!mean) return;
    centre = Buffer<A>(spread_size<A>(p));
    const Lines<S> x = lines(0, 0, nullptr);
    if (layout == Layout::Rows) {
      spread(x, p, [&](Index c) { return mean[c]; }, centre.data());
      if (x.tail)
        for (Index l = 0; l < kLanes<A>; ++l)
          centre[x.vectors * kLanes<A> + l] = static_cast<A>(mean[p - kLanes<A> + l]);
    } else {
      std::copy(mean, mean + p, centre.data());
    }
  }

  // Entries of a spread line: a row, or a block of a column.
  Index line_size() const {
    return layout == Layout::Rows ? spread_size<A>(G.cols()) : spread_size<A>(block);
  }
  Index line_length(Index rows) const { return layout == Layout::Rows ? G.cols() : rows; }
  Index packed_stride() const { return block + kLanes<A>; }  // an odd number of registers apart
  Index packed_size() const { return layout == Layout::Packed ? packed_stride() * G.cols() : 0; }

  // The lines of rows row … row+rows-1; `packed` is the thread's scratch.
  Lines<S> lines(Index row, Index rows, S* packed) const {
    constexpr Index L = kLanes<A>;
    const Index p = G.cols();
    const S* at = G.data() + row * G.outerStride();
    if (layout == Layout::Rows) return {at, G.outerStride(), rows, p, p / L, p % L != 0};
    if (layout == Layout::Columns) return {at, G.innerStride(), p, rows, rows / L, rows % L != 0};
    const Index length = ceil_div(rows, L) * L, stride = packed_stride();
    if (packed) {
      // In the order of memory.
      if (std::abs(G.outerStride()) < std::abs(G.innerStride())) {
        for (Index c = 0; c < p; ++c)
          for (Index r = 0; r < rows; ++r)
            packed[c * stride + r] = at[r * G.outerStride() + c * G.innerStride()];
      } else {
        for (Index r = 0; r < rows; ++r)
          for (Index c = 0; c < p; ++c)
            packed[c * stride + r] = at[r * G.outerStride() + c * G.innerStride()];
      }
      for (Index c = 0; c < p; ++c)
        std::fill(packed + c * stride + rows, packed + c * stride + length, S{});
    }
    return {packed, stride, p, length, length / L, false};
  }

  // body(lines, row, rows) for the blocks of rows begin … end-1.
  template <class Body>
  void blocks(Index begin, Index end, S* packed, Body body) const {
    for (Index row = begin; row < end; row += block) {
      const Index rows = std::min(block, end - row);
      body(lines(row, rows, packed), row, rows);
    }
  }

  A weight(Index row) const { return weights ? static_cast<A>(weights[row]) : A(1); }
};

// Calls f with the kind of centre as a compile-time constant.
template <class F>
void with_centre(Layout layout, bool centred, F f) {
  if (!centred) return f(std::integral_constant<Centre, Centre::None>());
  if (layout == Layout::Rows) return f(std::integral_constant<Centre, Centre::Along>());
  f(std::integral_constant<Centre, Centre::Across>());
}

// total = Σ over blocks of what body(lines, row, rows, part, scratch) adds to part; both of `size`.
// body is given `extra` entries of scratch. Returns the buffer whose first `size` entries are
// total.
template <class S, class A, class W, class Body>
Buffer<A> sum_over_rows(const Pass<S, A, W>& pass, Index size, Index extra, int threads,
                        Body body) {
  threads = static_cast<int>(std::min<Index>(team_size(threads), pass.slabs));
  const Index gap = kCacheLine / sizeof(A);  // threads never share a line
  const Index room = ceil_div(size + extra, gap) * gap;
  Buffer<A> total(std::max<Index>(1, pass.slabs) * size), scratch(std::max(1, threads) * room);
  Buffer<S> packed(std::max(1, threads) * pass.packed_size());
  if (pass.slabs == 0) total.zero();
  run_in_order(threads, pass.slabs, [&](Index i, int thread) {
    A* sum = total.data() + i * size;
    A* part = scratch.data() + thread * room;
    S* pack = packed.data() + thread * pass.packed_size();
    std::fill(sum, sum + size, A(0));
    const Index begin = i * pass.slab, end = std::min(begin + pass.slab, pass.G.rows());
    const Index chunk = std::max(Index{1}, kChunkRows / pass.block) * pass.block;
    for (Index row = begin; row < end; row += chunk) {
      std::fill(part, part + size, A(0));
      pass.blocks(
          row, std::min(row + chunk, end), pack,
          [&](const Lines<S>& x, Index r, Index rows) { body(x, r, rows, part, part + size); });
      Vector<A>(sum, size) += ConstVector<A>(part, size);
    }
  });
  // The slabs' sums join in their order, piece by piece.
  constexpr Index piece = 1 << 13;
  run_in_order(size * pass.slabs > (1 << 17) ? threads : 1, ceil_div(size, piece),
               [&](Index i, int) {
                 const Index begin = i * piece, end = std::min(begin + piece, size);
                 Vector<A> sum(total.data() + begin, end - begin);
                 for (Index s = 1; s < pass.slabs; ++s)
                   sum += ConstVector<A>(total.data() + s * size + begin, end - begin);
               });
  return total;
}

template <class S, class A, class W>
Index sum_size(const Pass<S, A, W>& pass) {
  return pass.layout == Layout::Rows ? pass.line_size() : pass.G.cols();
}

// v (p,) as lines want it: spread along a row for Rows, contiguous else.
template <class S, class A, class W>
Buffer<A> right_side(const Pass<S, A, W>& pass, const ConstMatrix<A>& v) {
  const Index p = pass.G.cols();
  Buffer<A> packed(sum_size(pass));
  if (pass.layout == Layout::Rows)
    spread(pass.lines(0, 0, nullptr), p, [&](Index c) { return v(c, 0); }, packed.data());
  else
    for (Index c = 0; c < p; ++c) packed[c] = v(c, 0);
  return packed;
}

// Hands entry c of a (p,) sum to put(c, value).
template <class S, class A, class W, class Put>
void collect(const Pass<S, A, W>& pass, const Buffer<A>& sum, Put put) {
  const Index p = pass.G.cols();
  const Lines<S> x = pass.lines(0, 0, nullptr);
  for (Index c = 0; c < p; ++c)
    put(c, sum[pass.layout == Layout::Rows ? spread_place<A>(x, p, c) : c]);
}

// (p,) sum Σ_r f(s_r − m) w_r right(r), f the identity or the square.
template <bool Squared, class S, class A, class W, class Right>
Buffer<A> transpose_dot(const Pass<S, A, W>& pass, Right right, int threads) {
  Buffer<A> total;
  with_centre(pass.layout, pass.centre.size() > 0, [&](auto kind) {
    constexpr Centre M = decltype(kind)::value;
    const bool as_rows = pass.layout == Layout::Rows;
    total = sum_over_rows(pass, sum_size(pass), as_rows ? pass.block : pass.line_size(), threads,
                          [&](const Lines<S>& x, Index row, Index rows, A* part, A* y) {
                            const auto factor = [&](Index r) {
                              return pass.weight(row + r) * right(row + r);
                            };
                            if (as_rows) {
                              for (Index r = 0; r < rows; ++r) y[r] = factor(r);
                              sums<M, Squared>(x, pass.centre.data(), y, part);
                            } else {
                              spread(x, rows, factor, y);
                              dots<M, Squared>(x, pass.centre.data(), y, part);
                            }
                          });
  });
  return total;
}

// Why a sum is not finite: the first NaN or infinity of the scores or, row -1, the first column
// whose finite scores overflowed.
template <class S, class A>
Report why_not_finite(const ConstMatrix<S>& G, const A* sums, int threads) {
  const Report place = find_nonfinite(G, threads);
  if (!place.ok()) return place;
  for (Index c = 0; c < G.cols(); ++c)
    if (!std::isfinite(sums[c])) return {Status::NonFinite, -1, c, static_cast<double>(sums[c])};
  return {};
}

// Bytes of scores in a block, and at most how many rows. A product that reads the scores once keeps
// only its right-hand sides in cache; fvp reads every block twice, the second time from L1 (rows),
// or from L3, since short pieces of columns would starve the prefetcher. Measured on Zen 4.
constexpr Index kBlockBytes = 1 << 17;
constexpr Index kBlockRows = 64;
constexpr Index kColumnBlockBytes = 1 << 20;
constexpr Index kColumnBlockRows = 4096;

template <class S, class A, class W>
Pass<S, A, W> one_pass(const ConstMatrix<S>& G, const W* weights, const W* mean) {
  switch (layout_of<S, A>(G)) {
    case Layout::Rows:
      return {G, weights, mean, kBlockBytes, kBlockRows};
    case Layout::Columns:
      return {G, weights, mean, Index{1} << 40, kColumnBlockRows};
    default:
      return {G, weights, mean, kBlockBytes, kBlockRows};
  }
}

template <class S, class A, class W>
Pass<S, A, W> two_reads(const ConstMatrix<S>& G, const W* weights, const W* mean) {
  if (layout_of<S, A>(G) == Layout::Columns)
    return {G, weights, mean, kColumnBlockBytes, kColumnBlockRows};
  return {G, weights, mean, kBlockBytes, kBlockRows};
}

}  // namespace

template <class S, class A>
Report column_mean(ConstMatrix<S> scores, const A* weights, A* out, bool check_finite,
                   int threads) {
  const Index n = scores.rows(), p = scores.cols();
  if (p == 0) return {};
  const Pass<S, double, A> pass = one_pass<S, double, A>(scores, weights, nullptr);
  const Buffer<double> total = transpose_dot<false>(pass, [](Index) { return 1.0; }, threads);
  const double weight = weight_sum(weights, n);
  bool finite = true;
  collect(pass, total, [&](Index c, double value) {
    out[c] = static_cast<A>(weight == 0.0 ? 0.0 : value / weight);
    finite = finite && std::isfinite(out[c]);
  });
  return check_finite && !finite ? why_not_finite(scores, out, threads) : Report{};
}

template <class S, class A>
Report diagonal(ConstMatrix<S> scores, const A* weights, const A* mean, A* out, bool check_finite,
                int threads) {
  if (scores.cols() == 0) return {};
  const Pass<S, double, A> pass = one_pass<S, double, A>(scores, weights, mean);
  const Buffer<double> total = transpose_dot<true>(pass, [](Index) { return 1.0; }, threads);
  bool finite = true;
  collect(pass, total, [&](Index c, double value) {
    out[c] = static_cast<A>(value);
    finite = finite && std::isfinite(out[c]);
  });
  return check_finite && !finite ? why_not_finite(scores, out, threads) : Report{};
}

template <class S, class A>
void fvp(ConstMatrix<S> scores, const A* weights, const A* mean, ConstMatrix<A> V, double scale,
         double damping, Matrix<A> out, int threads) {
  if (V.cols() > 1) return fan_fvp(scores, weights, mean, V, scale, damping, out, threads);
  if (V.size() == 0) return;
  const Pass<S, A, A> pass = two_reads<S, A, A>(scores, weights, mean);
  const Buffer<A> right = right_side(pass, V);
  const Index ld = pass.line_size();
  const bool as_rows = pass.layout == Layout::Rows;
  Buffer<A> total;
  with_centre(pass.layout, mean != nullptr, [&](auto kind) {
    constexpr Centre M = decltype(kind)::value;
    const A* centre = pass.centre.data();
    total = sum_over_rows(pass, sum_size(pass), as_rows ? pass.block : 2 * ld, threads,
                          [&](const Lines<S>& x, Index row, Index rows, A* part, A* t) {
                            const auto weight = [&](Index r) { return pass.weight(row + r); };
                            if (as_rows && is_short(x)) {
                              if constexpr (M != Centre::Across)
                                dots_then_sums<M>(x, centre, right.data(), weight, part);
                            } else if (as_rows) {
                              std::fill(t, t + rows, A(0));
                              dots<M, false>(x, centre, right.data(), t);
                              for (Index r = 0; r < rows; ++r) t[r] = weighed(t[r], weight(r));
                              sums<M, false>(x, centre, t, part);
                            } else {
                              A* w = t + ld;
                              const Index size = (x.vectors + x.tail) * kLanes<A>;
                              std::fill(t, t + ld, A(0));
                              sums<M, false>(x, centre, right.data(), t);
                              spread(x, rows, weight, w);
                              for (Index l = 0; l < size; ++l) t[l] = weighed(t[l], w[l]);
                              dots<M, false>(x, centre, t, part);
                            }
                          });
  });
  collect(pass, total, [&](Index c, A value) {
    const A product = static_cast<A>(scale) * value;
    out(c, 0) = damping != 0.0 ? product + static_cast<A>(damping) * V(c, 0) : product;
  });
}

template <class S, class A>
void scores_dot(ConstMatrix<S> scores, const A* mean, ConstMatrix<A> V, Matrix<A> out,
                int threads) {
  if (scores.cols() == 0) return out.setZero(), void();
  if (V.cols() > 1) return fan_dot(scores, mean, V, out, threads);
  if (V.cols() == 0) return;
  const Pass<S, A, A> pass = one_pass<S, A, A>(scores, nullptr, mean);
  const Buffer<A> right = right_side(pass, V);
  const bool as_rows = pass.layout == Layout::Rows;
  const Index room = ceil_div(as_rows ? pass.block : pass.line_size(), 16) * 16;
  const int team =
      static_cast<int>(std::max<Index>(1, std::min<Index>(team_size(threads), pass.slabs)));
  Buffer<A> scratch(team * room);
  Buffer<S> packed(team * pass.packed_size());
  with_centre(pass.layout, mean != nullptr, [&](auto kind) {
    constexpr Centre M = decltype(kind)::value;
    run_in_order(team, pass.slabs, [&](Index i, int thread) {
      A* t = scratch.data() + thread * room;
      const Index begin = i * pass.slab, end = std::min(begin + pass.slab, scores.rows());
      pass.blocks(begin, end, packed.data() + thread * pass.packed_size(),
                  [&](const Lines<S>& x, Index row, Index rows) {
                    std::fill(t, t + room, A(0));
                    if (as_rows)
                      dots<M, false>(x, pass.centre.data(), right.data(), t);
                    else
                      sums<M, false>(x, pass.centre.data(), right.data(), t);
                    for (Index r = 0; r < rows; ++r)
                      out(row + r, 0) = t[as_rows ? r : spread_place<A>(x, rows, r)];
                  });
    });
  });
}

template <class S, class A>
void scores_transpose_dot(ConstMatrix<S> scores, const A* weights, const A* mean, ConstMatrix<A> Y,
                          Matrix<A> out, int threads) {
  if (Y.cols() > 1) return fan_transpose_dot(scores, weights, mean, Y, out, threads);
  if (scores.cols() == 0 || Y.cols() == 0) return;
  const Pass<S, A, A> pass = one_pass<S, A, A>(scores, weights, mean);
  const Buffer<A> total = transpose_dot<false>(pass, [&](Index r) { return Y(r, 0); }, threads);
  collect(pass, total, [&](Index c, A value) { out(c, 0) = value; });
}

#define FASTFISHER_STREAM(S, A)                                                                    \
  template Report column_mean(ConstMatrix<S>, const A*, A*, bool, int);                            \
  template Report diagonal(ConstMatrix<S>, const A*, const A*, A*, bool, int);                     \
  template void fvp(ConstMatrix<S>, const A*, const A*, ConstMatrix<A>, double, double, Matrix<A>, \
                    int);                                                                          \
  template void scores_dot(ConstMatrix<S>, const A*, ConstMatrix<A>, Matrix<A>, int);              \
  template void scores_transpose_dot(ConstMatrix<S>, const A*, const A*, ConstMatrix<A>,           \
                                     Matrix<A>, int);
FASTFISHER_FOR_STORED(FASTFISHER_STREAM)
#undef FASTFISHER_STREAM

}  // namespace fastfisher
