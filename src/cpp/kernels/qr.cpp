// QR by blocks of rows: which panel takes which reflectors when, and where rows come from.
#include "qr.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "product.hpp"
#include "reflectors.hpp"
#include "schedule.hpp"

namespace fastfisher {

namespace {

// Rows of a block: its panels are read from the second-level cache, as those of a product are.
constexpr Index kBlockRows = kDepth;

// Memory for some blocks of rows in panels, what belongs to their reflectors, and a W × W scratch
// for each thread.
template <class T>
class Blocks {
 public:
  Blocks(Index params, Index rows, Index slots, int threads)
      : panels_(panel_count<T>(params)),
        height_(round_up(std::min(rows, kBlockRows), kColumns)),
        rows_(slots * panels_ * height_ * kPanel<T>),
        inner_(slots * panels_ * kOwn),
        scratch_(threads * kPanel<T> * kPanel<T>) {}

  T* rows(Index slot, Index K) { return rows_.data() + (slot * panels_ + K) * height_ * kPanel<T>; }
  T* D(Index slot, Index K) { return inner_.data() + (slot * panels_ + K) * kOwn; }
  T* inverse(Index slot, Index K) { return D(slot, K) + kPanel<T> * kPanel<T>; }
  T* scratch(int thread) { return scratch_.data() + thread * kPanel<T> * kPanel<T>; }

 private:
  static constexpr Index kOwn = Index{kPanel<T>} * (kPanel<T> + 1);
  Index panels_, height_;
  Buffer<T> rows_, inner_, scratch_;
};

// Panel K of one block, rows [k0, …) of the source: packs it, takes the reflectors of the panels J
// before it, and becomes reflectors itself. ready(K) returns when the block before has left this
// panel's columns of R, ready(J) when this block's panel J is factored.
template <class T, class Source, class Ready>
void absorb_panel(const Source& source, Index k0, Index params, Index K, T* triangle,
                  Blocks<T>& blocks, Index slot, int thread, Ready&& ready) {
  // Rows of R's panel J in the columns of panel K.
  const auto R = [&](Index J) { return triangle + panel_offset<T>(K) + J * kPanel<T> * kPanel<T>; };
  const Index first = source.first_panel(k0);
  const Index some = std::min(kBlockRows, source.rows() - k0), m = round_up(some, kColumns);
  const Index columns = used_columns<T>(K, params);
  T *B = blocks.rows(slot, K), *Y = blocks.scratch(thread);
  if (K >= first) {
    source.pack(k0, some, K, B);
    std::fill(B + some * kPanel<T>, B + m * kPanel<T>, T(0));
  }
  ready(K);
  for (Index J = first; J < K; ++J) {
    ready(J);
    apply_panel(m, blocks.rows(slot, J), blocks.D(slot, J), blocks.inverse(slot, J), columns, R(J),
                B, Y);
  }
  if (K >= first) factor_panel(m, columns, R(K), B, blocks.D(slot, K), blocks.inverse(slot, K), Y);
}

// All rows of a source, in one thread.
template <class T, class Source>
void absorb(const Source& source, Index params, T* triangle, Blocks<T>& blocks, int thread) {
  for (Index k0 = 0; k0 < source.rows(); k0 += kBlockRows)
    for (Index K = 0; K < panel_count<T>(params); ++K)
      absorb_panel(source, k0, params, K, triangle, blocks, 0, thread, [](Index) {});
}

// All rows of a source, panels of columns shared by the threads: panel K of block b waits for the
// reflectors of the panels before it, and for panel K of block b - 1, which holds its R.
template <class T, class Source>
void absorb_together(const Source& source, Index params, T* triangle, int threads) {
  const Index panels = panel_count<T>(params), count = ceil_div(source.rows(), kBlockRows);
  if (count == 0) return;
  threads = useful_threads(
      threads, 2.0 * static_cast<double>(source.rows()) * static_cast<double>(params * params));
  const Index slots = std::min<Index>(count, threads > 1 ? threads + 1 : 1);
  Blocks<T> blocks(params, source.rows(), slots, threads);
  std::vector<Finished> done(static_cast<std::size_t>(panels));  // blocks, for each panel
  run_in_order(threads, count * panels, [&](Index task, int thread) {
    const Index b = task / panels, K = task % panels;
    if (b >= slots) done[static_cast<std::size_t>(panels - 1)].wait(b - slots + 1);
    absorb_panel(source, b * kBlockRows, params, K, triangle, blocks, b % slots, thread,
                 [&](Index J) { done[static_cast<std::size_t>(J)].wait(J < K ? b + 1 : b); });
    done[static_cast<std::size_t>(K)].add();
  });
}

// ---- sources of rows ----
// Rows [begin, end) of an operand, complex ones twice, with √w as one more column if asked for.
template <class T, class S>
struct ScoreRows {
  Operand<T, S> Y;
  Index begin, end, parts;
  bool with_root;

  Index rows() const { return parts * (end - begin); }
  Index first_panel(Index) const { return 0; }
  void pack(Index k0, Index some, Index K, T* out) const {
    constexpr Index W = kPanel<T>;
    const Index from = begin + k0 / parts, own = some / parts;
    const Index width = std::clamp<Index>(Y.columns() - K * W, 0, W);
    if (width > 0) pack_panels(Y, from, own, K, 1, out, own * W);
    if (width < W && with_root)
      for (Index k = 0; k < own; ++k) {
        std::fill(out + k * W + width, out + (k + 1) * W, T(0));
        out[k * W + width] = Y.scale_by_depth ? Y.scale_by_depth[from + k] : T(1);
      }
    if (parts == 1) return;
    for (Index k = 0; k < own; ++k) {  // i·s beside s
      const T* row = out + k * W;
      T* turned = out + (own + k) * W;
      for (Index r = 0; r < W; r += 2) {
        turned[r] = r < width ? -row[r + 1] : T(0);
        turned[r + 1] = r < width ? row[r] : T(0);
      }
    }
  }
};

template <class T, class S>
ScoreRows<T, S> rows_of(const Operand<T, S>& Y, Index begin, Index end, Index parts,
                        bool with_root) {
  return {Y, begin, end, parts, with_root};
}

// The rows of another R: panel K holds them as a block is packed.
template <class T>
struct TriangleRows {
  const T* triangle;
  Index params;

  Index rows() const { return params; }
  Index first_panel(Index k0) const { return k0 / kPanel<T>; }
  void pack(Index k0, Index some, Index K, T* out) const {
    constexpr Index W = kPanel<T>;
    const T* from = triangle + panel_offset<T>(K) + k0 * W;
    for (Index k = 0; k < some; ++k) {
      const Index zeros = std::clamp<Index>(k0 + k - K * W, 0, W);
      std::fill_n(out + k * W, zeros, T(0));
      if (zeros < W) std::copy(from + k * W + zeros, from + (k + 1) * W, out + k * W + zeros);
    }
  }
};

template <class T>
struct DiagonalRows {
  const T* diagonal;
  Index params;

  Index rows() const { return params; }
  Index first_panel(Index k0) const { return k0 / kPanel<T>; }
  void pack(Index k0, Index some, Index K, T* out) const {
    constexpr Index W = kPanel<T>;
    std::fill_n(out, some * W, T(0));
    const Index end = std::min({k0 + some, (K + 1) * W, params});
    for (Index j = std::max(k0, K * W); j < end; ++j) out[(j - k0) * W + j - K * W] = diagonal[j];
  }
};

// Slabs of at least 16 p rows, whose merging then costs 2 % of them; fewer than eight are not worth
// it, and past 48 panels a block gives the threads enough to share.
template <class T>
Index slab_count(Index rows, Index params) {
  const Index wanted = rows / (16 * params);
  return wanted < 8 || panel_count<T>(params) > 48 ? 1 : std::min<Index>(wanted, 64);
}

template <class T, class S>
void absorb_scores(const ScoreRows<T, S>& all, Index params, T* triangle, int threads) {
  const Index slabs = slab_count<T>(all.rows(), params), size = triangle_size<T>(params);
  if (slabs == 1) return absorb_together(all, params, triangle, threads);
  const Index rows = round_up(ceil_div(all.end, slabs), kBlockRows),
              count = ceil_div(all.end, rows);
  threads = static_cast<int>(std::min<Index>(
      useful_threads(threads,
                     2.0 * static_cast<double>(all.rows()) * static_cast<double>(params * params)),
      count));
  Buffer<T> partial(count * size);
  std::vector<Blocks<T>> blocks;
  for (int t = 0; t < threads; ++t) blocks.emplace_back(params, all.rows(), 1, 1);
  run_in_order(threads, count, [&](Index slab, int thread) {
    T* own = partial.data() + slab * size;
    std::fill_n(own, size, T(0));
    const ScoreRows<T, S> source{all.Y, slab * rows, std::min(all.end, (slab + 1) * rows),
                                 all.parts, all.with_root};
    absorb(source, params, own, blocks[static_cast<std::size_t>(thread)], 0);
  });
  for (Index slab = 0; slab < count; ++slab)
    qr_merge(partial.data() + slab * size, params, triangle, threads);
}

}  // namespace

template <class T, class S>
Report qr_scores(const ConstMatrix<S>& scores, const T* weights, const T* mean, bool with_root,
                 T* triangle, bool check_finite, int threads) {
  constexpr Index parts = kParts<S>;
  auto Y = operand_of<T>(scores);
  const Index samples = scores.rows(), params = Y.columns() + with_root;
  if (samples == 0) return {};
  Buffer<T> roots(weights || parts == 2 ? samples : 0);
  if (roots.size() > 0) {
    Vector<T> w(roots.data(), samples);
    if (weights)
      w = (ConstVector<T>(weights, samples) / T(parts)).cwiseSqrt();
    else
      w.setConstant(std::sqrt(T(1) / T(parts)));
    Y.scale_by_depth = roots.data();
  }
  Y.shift_by_column = mean;
  absorb_scores(rows_of(flattened(Y), 0, samples, parts, with_root), params, triangle, threads);
  for (Index j = 0; check_finite && j < Y.columns(); ++j) {
    const T pivot = triangle[triangle_at<T>(j, j)];
    if (std::isfinite(pivot)) continue;
    const Report place = find_nonfinite(scores, threads);
    return place.ok() ? Report{Status::NonFinite, -1, j / parts, static_cast<double>(pivot)}
                      : place;
  }
  return {};
}

template <class T>
void qr_merge(const T* other, Index params, T* triangle, int threads) {
  absorb_together(TriangleRows<T>{other, params}, params, triangle, threads);
}

template <class T>
void qr_diagonal(const T* diagonal, Index params, T* triangle, int threads) {
  absorb_together(DiagonalRows<T>{diagonal, params}, params, triangle, threads);
}

template <class T>
void qr_split(T* triangle, Index params, T* z) {
  for (Index j = 0; j < params; ++j)
    z[j] = std::exchange(triangle[triangle_at<T>(params - 1, j)], T(0));
}

template <class T>
void qr_square(const T* triangle, Index params, T* out, int threads) {
  constexpr Index W = kPanel<T>;
  const Index panels = panel_count<T>(params);
  threads = useful_threads(threads, std::pow(static_cast<double>(params), 3) / 3);
  std::fill_n(out, triangle_size<T>(params), T(0));
  run_in_order(threads, panels, [&](Index task, int) {
    const Index i = panels - 1 - task;  // the longest first
    const T* L = triangle + panel_offset<T>(i);
    for (Index j = 0; j <= i; ++j) {
      const T* other = triangle + panel_offset<T>(j);
      for (Index k = 0; k < (j + 1) * W; k += kDepth)
        for (Index c = j * W; c < std::min((j + 1) * W, params); c += kColumns)
          multiply_panel<T, W, 1>(std::min(kDepth, (j + 1) * W - k), L + k * W,
                                  other + k * W + c % W, out + panel_offset<T>(i) + c * W, T(1), 0,
                                  panel_rows<T>(i, params));
    }
  });
}

template <class T>
void qr_squares(const T* triangle, Index params, T* out) {
  constexpr Index W = kPanel<T>;
  for (Index i = 0; i < panel_count<T>(params); ++i) {
    const T* panel = triangle + panel_offset<T>(i);
    T total[kPanel<T>] = {};
    for (Index k = 0; k < (i + 1) * W; ++k)
      for (Index r = std::max<Index>(0, k - i * W); r < W; ++r)
        total[r] += panel[k * W + r] * panel[k * W + r];
    std::copy_n(total, std::min(W, params - i * W), out + i * W);
  }
}

#define FASTFISHER_INSTANTIATE(S, T) \
  template Report qr_scores(const ConstMatrix<S>&, const T*, const T*, bool, T*, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
FASTFISHER_FOR_COMPLEX(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE
#define FASTFISHER_INSTANTIATE(T)                      \
  template void qr_merge(const T*, Index, T*, int);    \
  template void qr_diagonal(const T*, Index, T*, int); \
  template void qr_split(T*, Index, T*);               \
  template void qr_square(const T*, Index, T*, int);   \
  template void qr_squares(const T*, Index, T*);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
