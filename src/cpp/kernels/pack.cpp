// Packing: rows of any layout into panels, weighed, centred, widened and checked on the way.
#include "pack.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <tuple>

#include "parallel.hpp"
#include "simd.hpp"

namespace fastfisher {

namespace {

// One vector of a row: widened, centred, weighed, stored.
template <class T, class S, bool Affine>
FASTFISHER_INLINE void pack_vector(const S* x, const T* shift, Vec<T> shift_all, Vec<T> scale,
                                   T* out) {
  Vec<T> v = Vec<T>::load(x);
  if (Affine) v = (v - shift_all - Vec<T>::load(shift)) * scale;
  v.store(out);
}

// Rows whose columns lie side by side: whole panels, a group of them at a time, so that each row is
// read in one run of `panels` * 192 bytes. Of the last panel only the columns that exist are
// packed, rounded up to the register block: whole vectors where they lie, the rest through a padded
// copy.
template <class T, class S, bool Affine>
void pack_contiguous(const Operand<T, S>& Y, Index k0, Index depth, Index panel0, Index panels,
                     T* out, Index stride) {
  constexpr Index W = kPanel<T>, lanes = kLanes<T>;
  // Rows; a long row is a new page each, which hardware does not prefetch.
  constexpr Index ahead = 8;
  constexpr Index line = static_cast<Index>(kCacheLine / sizeof(S));
  const Index ld = Y.X.rowStride(), width = std::min(Y.columns() - panel0 * W, panels * W);
  const Index whole = width / W, rest = width % W, vectors = rest / lanes * lanes,
              odd = rest % lanes;
  const Index used =
      ceil_div(rest, std::max<Index>(lanes, kColumns)) * std::max<Index>(lanes, kColumns);
  const S* x = Y.X.data() + k0 * ld + panel0 * W;
  const bool long_rows = std::abs(ld) * static_cast<Index>(sizeof(S)) >= 2048;
  S tail[lanes] = {};
  T shift_tail[W] = {}, no_shift[W] = {};
  const T* shift = Y.shift_by_column ? Y.shift_by_column + panel0 * W : nullptr;
  if (shift) std::copy_n(shift + whole * W, rest, shift_tail);

  for (Index k = 0; k < depth; ++k, x += ld) {
    const Vec<T> scale = Vec<T>::broadcast(Y.scale_by_depth ? Y.scale_by_depth[k0 + k] : T(1));
    const Vec<T> shift_all = Vec<T>::broadcast(Y.shift_by_depth ? Y.shift_by_depth[k0 + k] : T(0));
    const auto pack = [&](const S* from, const T* s, T* to) {
      pack_vector<T, S, Affine>(from, s, shift_all, scale, to);
    };
    if (long_rows && k + ahead < depth)
      for (Index j = 0; j < width; j += line) prefetch(x + ahead * ld + j);
    T* to = out + k * W;
    for (Index i = 0; i < whole; ++i, to += stride) {
      const T* s = shift ? shift + i * W : no_shift;
      FASTFISHER_UNROLL
      for (Index r = 0; r < W; r += lanes) pack(x + i * W + r, s + r, to + r);
    }
    for (Index r = 0; r < vectors; r += lanes) pack(x + whole * W + r, shift_tail + r, to + r);
    if (odd) {
      std::copy_n(x + whole * W + vectors, odd, tail);
      pack(tail, shift_tail + vectors, to + vectors);
    }
    if (used > rest) std::fill(to + rest, to + used, T(0));
  }
}

// out[k, j] = x[j, k], one square of entries of `Group` lanes turned in registers; W numbers from
// one row of out to the next, `across` from one of x.
template <int Group, class T, class S>
FASTFISHER_INLINE void turn(const S* x, Index across, T* out) {
  constexpr int M = kLanes<T> / Group;
  Vec<T> square[M];
  for (int l = 0; l < M; ++l) square[l] = Vec<T>::load(x + l * across);
  transpose<Group>(square);
  for (int l = 0; l < M; ++l) square[l].store(out + l * kPanel<T>);
}

// Any layout, one panel of `width` ≤ W columns; column by column in runs of rows, which also is the
// memory order of a Fortran-ordered matrix and of the transposed view that a Gram matrix packs.
// Where a column lies in one run, squares of it are turned in registers.
template <class T, class S>
void pack_any(const Operand<T, S>& Y, Index k0, Index depth, Index panel, T* out) {
  constexpr Index W = kPanel<T>;
  constexpr int L = kLanes<T>;
  constexpr Index run = 16;  // rows: 16 × 192 bytes of output stay in the first-level cache
  const Index column0 = panel * W, width = std::min(W, Y.columns() - column0);
  const Index sk = Y.X.rowStride(), sj = Y.X.colStride(), parts = Y.parts;
  const S* x0 = Y.X.data() + k0 * sk + column0 / parts * sj;
  const T none[2] = {};
  T shifts[W] = {}, scales[W] = {};
  for (Index r = 0; r < width; ++r) {
    if (Y.shift_by_column) shifts[r] = Y.shift_by_column[column0 + r];
    if (Y.scale_by_column) scales[r] = Y.scale_by_column[(column0 + r) / parts];
  }
  for (Index k1 = 0; k1 < depth; k1 += run) {
    const Index rows = std::min(run, depth - k1);
    T* to = out + k1 * W;
    const Index turned = sk == parts && rows == run ? width / L * L : 0;
    for (Index r = 0; r < turned; r += L)
      for (Index k = 0; k < run; k += L / parts) {
        const S* x = x0 + (k1 + k) * sk + r / parts * sj;
        if (parts == 1)
          turn<1>(x, sj, to + k * W + r);
        else
          turn<2>(x, sj, to + k * W + r);
      }
    for (Index r = turned; r < width; ++r)
      for (Index k = 0; k < rows; ++k)
        to[k * W + r] = static_cast<T>(x0[(k1 + k) * sk + r / parts * sj + r % parts]);
    for (Index k = 0; k < rows; ++k) {
      T* row = to + k * W;
      const T* shift = Y.shift_by_depth ? Y.shift_by_depth + (k0 + k1 + k) * parts : none;
      const T scale = Y.scale_by_depth ? Y.scale_by_depth[k0 + k1 + k] : T(1);
      if (Y.shift_by_column || Y.shift_by_depth) {
        const T even = shift[0], odd = shift[parts - 1];
        for (Index r = 0; r < width; ++r) row[r] -= (r % 2 ? odd : even) + shifts[r];
      }
      if (Y.scale_by_column)
        for (Index r = 0; r < width; ++r) row[r] *= scales[r];
      if (Y.scale_by_depth)
        for (Index r = 0; r < width; ++r) row[r] *= scale;
      std::fill(row + width, row + W, T(0));
    }
  }
}

}  // namespace

template <class T, class S>
void pack_panels(const Operand<T, S>& Y, Index k0, Index depth, Index panel0, Index panels, T* out,
                 Index stride) {
  if (Y.X.colStride() == 1 && !Y.scale_by_column)
    return Y.affine() ? pack_contiguous<T, S, true>(Y, k0, depth, panel0, panels, out, stride)
                      : pack_contiguous<T, S, false>(Y, k0, depth, panel0, panels, out, stride);
  for (Index i = 0; i < panels; ++i) pack_any(Y, k0, depth, panel0 + i, out + i * stride);
}

template <class T, class S>
void pack_rows(const Operand<T, S>& Y, Index k0, Index depth, Index column0, Index columns, T* out,
               Index ld) {
  constexpr Index lanes = kLanes<T>, line = static_cast<Index>(kCacheLine / sizeof(S));
  constexpr Index ahead = 4;  // rows of a few kB: far enough for memory, near enough for the cache
  const Index sk = Y.X.rowStride(), sj = Y.X.colStride(), parts = Y.parts;
  const Index whole =
      sj == 1 && !Y.scale_by_column && !Y.shift_by_depth ? columns / lanes * lanes : 0;
  const T* shift = Y.shift_by_column ? Y.shift_by_column + column0 : nullptr;
  for (Index k = 0; k < depth; ++k, out += ld) {
    const T scale = Y.scale_by_depth ? Y.scale_by_depth[k0 + k] : T(1);
    const S* x = Y.X.data() + (k0 + k) * sk + column0 / parts * sj;
    if (whole > 0 && k + ahead < depth)
      for (Index j = 0; j < columns; j += line) prefetch(x + ahead * sk + j);
    if (!Y.affine()) {
      for (Index j = 0; j < whole; j += lanes) Vec<T>::load(x + j).store(out + j);
    } else {
      const Vec<T> s = Vec<T>::broadcast(scale);
      for (Index j = 0; j < whole; j += lanes) {
        const Vec<T> v = Vec<T>::load(x + j);
        ((shift ? v - Vec<T>::load(shift + j) : v) * s).store(out + j);
      }
    }
    for (Index j = whole; j < columns; ++j) {
      T v = static_cast<T>(x[j / parts * sj + j % parts]);
      if (shift) v -= shift[j];
      if (Y.shift_by_depth) v -= Y.shift_by_depth[(k0 + k) * parts + j % parts];
      if (Y.scale_by_column) v *= Y.scale_by_column[(column0 + j) / parts];
      out[j] = v * scale;
    }
    std::fill(out + columns, out + ld, T(0));
  }
}

template <class T>
void add_packed_rows(const T* packed, Index depth, Index panels, Index stride, const T* scale,
                     double* sums) {
  constexpr int W = kPanel<T>, lanes = kLanes<T>, vectors = W / lanes;
  for (Index i = 0; i < panels; ++i) {
    const T* row = packed + i * stride;
    Vec<T> total[vectors];
    for (int v = 0; v < vectors; ++v) total[v] = Vec<T>::zero();
    for (Index k = 0; k < depth; ++k, row += W) {
      const Vec<T> s = Vec<T>::broadcast(scale ? scale[k] : T(1));
      FASTFISHER_UNROLL
      for (int v = 0; v < vectors; ++v) total[v] = fma(s, Vec<T>::load(row + v * lanes), total[v]);
    }
    T lane[W];
    for (int v = 0; v < vectors; ++v) total[v].store(lane + v * lanes);
    for (Index r = 0; r < W; ++r) sums[i * W + r] += static_cast<double>(lane[r]);
  }
}

template <class S>
Report find_nonfinite(const ConstMatrix<S>& X, int threads) {
  using R = Real<S>;
  const bool by_column = std::abs(X.rowStride()) < std::abs(X.colStride());
  const Index lines = by_column ? X.cols() : X.rows(), length = by_column ? X.rows() : X.cols();
  const Index across = by_column ? X.colStride() : X.rowStride();
  const Index along = by_column ? X.rowStride() : X.colStride();
  const Index vectors = along == 1 ? length / kLanes<R> * kLanes<R> : 0;
  constexpr Index piece = 16;  // lines
  std::atomic<bool> finite{true};
  run_in_order(X.size() < (1 << 17) ? 1 : team_size(threads), ceil_div(lines, piece),
               [&](Index task, int) {
                 Vec<R> bad = Vec<R>::zero();
                 R worst = 0;
                 for (Index i = task * piece; i < std::min((task + 1) * piece, lines); ++i) {
                   const S* x = X.data() + i * across;
                   for (Index j = 0; j < vectors; j += kLanes<R>) {
                     const Vec<R> v = Vec<R>::load(x + j);
                     bad = bad + (v - v);
                   }
                   for (Index j = vectors; j < length; ++j) {
                     const R v = static_cast<R>(x[j * along]);
                     worst += v - v;
                   }
                 }
                 if (sum(bad) + worst != R(0)) finite.store(false, std::memory_order_relaxed);
               });
  if (finite.load()) return {};
  for (Index i = 0; i < X.rows(); ++i)
    for (Index j = 0; j < X.cols(); ++j) {
      const double value = static_cast<double>(X.data()[i * X.rowStride() + j * X.colStride()]);
      if (!std::isfinite(value)) return {Status::NonFinite, i, j, value};
    }
  return {};
}

template <class S>
Report find_nonfinite(const ConstMatrix<std::complex<S>>& X, int threads) {
  const S* data = reinterpret_cast<const S*>(X.data());
  if (X.colStride() == 1) {  // real rows of twice the length
    Report report = find_nonfinite(
        ConstMatrix<S>(data, X.rows(), 2 * X.cols(), Strides(2 * X.rowStride(), 1)), threads);
    if (!report.ok()) report.col /= 2;
    return report;
  }
  const Strides strides(2 * X.rowStride(), 2 * X.colStride());
  const Report re = find_nonfinite(ConstMatrix<S>(data, X.rows(), X.cols(), strides), threads);
  const Report im = find_nonfinite(ConstMatrix<S>(data + 1, X.rows(), X.cols(), strides), threads);
  if (re.ok() || im.ok()) return re.ok() ? im : re;
  return std::tie(im.row, im.col) < std::tie(re.row, re.col) ? im : re;
}

#define FASTFISHER_INSTANTIATE(S, T)                                                      \
  template void pack_panels(const Operand<T, S>&, Index, Index, Index, Index, T*, Index); \
  template void pack_rows(const Operand<T, S>&, Index, Index, Index, Index, T*, Index);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE
template void add_packed_rows(const double*, Index, Index, Index, const double*, double*);
template void add_packed_rows(const float*, Index, Index, Index, const float*, double*);
template Report find_nonfinite(const ConstMatrix<double>&, int);
template Report find_nonfinite(const ConstMatrix<float>&, int);
template Report find_nonfinite(const ConstMatrix<Float16>&, int);
template Report find_nonfinite(const ConstMatrix<BFloat16>&, int);
template Report find_nonfinite(const ConstMatrix<std::complex<double>>&, int);
template Report find_nonfinite(const ConstMatrix<std::complex<float>>&, int);

}  // namespace fastfisher
