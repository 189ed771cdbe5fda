// Hermitian matrices as panel triangles: projected, from dense and to dense.
#include "hermitian.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "parallel.hpp"
#include "simd.hpp"

namespace fastfisher {

namespace {

// Below this many parameters one thread does the work, as for real triangles.
constexpr Index kParallelParams = 256;

int useful_threads(int requested, Index params) {
  return params < kParallelParams ? 1 : team_size(requested);
}

// Complex rows of a panel, and those of panel i that exist.
template <class T>
constexpr Index kRows = kPanel<T> / 2;
template <class T>
Index rows_of(Index i, Index params) {
  return std::min(kRows<T>, params - i * kRows<T>);
}

// Columns 2c and 2c + 1 of a panel: entry r is the block [[a[2r], b[2r]], [a[2r+1], b[2r+1]]].
template <class T>
struct Pair {
  T *a, *b;
  Pair(T* panel, Index c) : a(panel + 2 * c * kPanel<T>), b(a + kPanel<T>) {}
};

template <class T>
std::complex<T> entry(const T* panel, Index c, Index r, T scale) {
  const Pair<const T> H(const_cast<T*>(panel), c);
  return {scale * H.a[2 * r] + scale * H.b[2 * r + 1], scale * H.b[2 * r] - scale * H.a[2 * r + 1]};
}

}  // namespace

// With b' = b, its pairs swapped, and s = (1, −1, 1, …): a ← (a + s b') / 2 is (Re, Im) of R's
// first column, and b ← (s a)' its second.
template <class T>
void hermitian_project(T* triangle, Index params, bool conjugate, int threads) {
  constexpr Index W = kPanel<T>, L = kLanes<T>;
  T signs[L];
  for (Index l = 0; l < L; ++l) signs[l] = l % 2 ? T(-1) : T(1);
  run_in_order(useful_threads(threads, params), panel_count<T>(2 * params), [&](Index i, int) {
    T* panel = triangle + panel_offset<T>(i);
    const Vec<T> s = Vec<T>::load(signs), half = Vec<T>::broadcast(T(0.5));
    const Index first = i * kRows<T>;
    for (Index c = 0; c < first + rows_of<T>(i, params); ++c) {
      const Pair<T> H(panel, c);
      if (c >= first) H.b[2 * (c - first)] = H.a[2 * (c - first) + 1];  // Im = 0 on the diagonal
      for (Index r = 0; r < W; r += L) {
        const Vec<T> b = half * swap_pairs(Vec<T>::load(H.b + r));  // halved first: no overflow
        const Vec<T> a = fma(s, b, half * Vec<T>::load(H.a + r));
        (conjugate ? s * a : a).store(H.a + r);
        swap_pairs(conjugate ? a : s * a).store(H.b + r);
      }
    }
  });
}

template <class T>
Report hermitian_from_dense(const ConstMatrix<std::complex<T>>& matrix, T* triangle, int threads) {
  constexpr Index W = kPanel<T>;
  const Index params = matrix.rows();
  std::atomic<bool> finite{true};
  run_in_order(useful_threads(threads, params), panel_count<T>(2 * params), [&](Index i, int) {
    T* panel = triangle + panel_offset<T>(i);
    const Index first = i * kRows<T>, rows = rows_of<T>(i, params);
    std::fill_n(panel, 2 * (first + kRows<T>)*W, T(0));
    bool good = true;
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c <= first + r; ++c) {
        const std::complex<T> x = matrix(first + r, c);
        const T re = x.real() / 2, im = c < first + r ? x.imag() / 2 : T(0);
        good = good && std::isfinite(re) && std::isfinite(im);
        const Pair<T> H(panel, c);
        H.a[2 * r] = H.b[2 * r + 1] = re;
        H.a[2 * r + 1] = -im;
        H.b[2 * r] = im;
      }
    if (!good) finite.store(false, std::memory_order_relaxed);
  });
  if (finite.load()) return {};
  for (Index i = 0; i < params; ++i)
    for (Index j = 0; j <= i; ++j) {
      const std::complex<T> x = matrix(i, j);
      const T bad = !std::isfinite(x.real()) || i == j ? x.real() : x.imag();
      if (!std::isfinite(bad)) return {Status::NonFinite, i, j, static_cast<double>(bad)};
    }
  return {Status::NonFinite};
}

template <class T>
void hermitian_to_dense(const T* triangle, double scale, Matrix<std::complex<T>> out, int threads) {
  constexpr Index line = static_cast<Index>(kCacheLine / sizeof(std::complex<T>));
  const Index params = out.rows();
  const T s = static_cast<T>(scale);
  run_in_order(useful_threads(threads, params), panel_count<T>(2 * params), [&](Index i, int) {
    const T* panel = triangle + panel_offset<T>(i);
    const Index first = i * kRows<T>, rows = rows_of<T>(i, params);
    for (Index c0 = 0; c0 < first; c0 += line)  // a cache line of the lower half at a time
      for (Index r = 0; r < rows; ++r)
        for (Index c = c0; c < c0 + line; ++c) out(first + r, c) = entry(panel, c, r, s);
    for (Index c = 0; c < first; ++c)
      for (Index r = 0; r < rows; ++r) out(c, first + r) = std::conj(entry(panel, c, r, s));
    for (Index c = 0; c < rows; ++c) {
      out(first + c, first + c) = entry(panel, first + c, c, s).real();
      for (Index r = c + 1; r < rows; ++r) {
        out(first + r, first + c) = entry(panel, first + c, r, s);
        out(first + c, first + r) = std::conj(out(first + r, first + c));
      }
    }
  });
}

#define FASTFISHER_INSTANTIATE(T)                                                     \
  template void hermitian_project(T*, Index, bool, int);                              \
  template Report hermitian_from_dense(const ConstMatrix<std::complex<T>>&, T*, int); \
  template void hermitian_to_dense(const T*, double, Matrix<std::complex<T>>, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
