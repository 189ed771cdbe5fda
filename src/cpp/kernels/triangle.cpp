// The panel triangle: to and from dense, times a matrix, and its small quantities.
#include "triangle.hpp"

#include <algorithm>
#include <cmath>

#include "pack.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace fastfisher {

namespace {

// Below this many elements one thread does the work.
constexpr Index kParallelSize = Index{1} << 17;

template <class T>
int useful_threads(int requested, Index params) {
  return triangle_size<T>(params) < kParallelSize ? 1 : team_size(requested);
}

// [y_own; y_above] += [T  ; Tᵀ] v for one panel and K columns of V: the panel's rows get its
// columns times v, and its columns (the other half of the matrix) get their dot product with v's
// rows. V and Y are (p, K) row-major; the diagonal block goes both ways by its lower half alone.
template <class T, int K>
void panel_product(const T* panel, Index i, Index params, const T* V, T* Y) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<T>, vectors = static_cast<int>(W) / lanes;
  const Index row0 = i * W, rows = std::min(W, params - row0);
  T v_own[K][W] = {}, y_own[K][W];
  for (Index r = 0; r < rows; ++r)
    for (int q = 0; q < K; ++q) v_own[q][r] = V[(row0 + r) * K + q];

  Vec<T> total[K][vectors];
  for (int q = 0; q < K; ++q)
    for (int u = 0; u < vectors; ++u) total[q][u] = Vec<T>::zero();
  for (Index c = 0; c < row0; ++c) {
    for (int q = 0; q < K; ++q) {
      const Vec<T> right = Vec<T>::broadcast(V[c * K + q]);
      Vec<T> dot = Vec<T>::zero();
      FASTFISHER_UNROLL
      for (int u = 0; u < vectors; ++u) {
        const Vec<T> a = Vec<T>::load(panel + c * W + u * lanes);
        total[q][u] = fma(a, right, total[q][u]);
        dot = fma(a, Vec<T>::load(v_own[q] + u * lanes), dot);
      }
      Y[c * K + q] += sum(dot);
    }
  }
  for (int q = 0; q < K; ++q)
    for (int u = 0; u < vectors; ++u) total[q][u].store(y_own[q] + u * lanes);
  const T* block = panel + row0 * W;
  for (Index c = 0; c < rows; ++c)
    for (Index r = c; r < rows; ++r) {
      const T a = block[c * W + r];
      for (int q = 0; q < K; ++q) {
        y_own[q][r] += a * v_own[q][c];
        if (r != c) y_own[q][c] += a * v_own[q][r];
      }
    }
  for (Index r = 0; r < rows; ++r)
    for (int q = 0; q < K; ++q) Y[(row0 + r) * K + q] += y_own[q][r];
}

// Fixed groups of panels of about equal area, whatever the number of threads.
constexpr Index kGroups = 16;
inline Index group_start(Index group, Index panels) {
  return static_cast<Index>(
      std::lround(std::sqrt(static_cast<double>(group) / kGroups) * static_cast<double>(panels)));
}

template <class T, int K>
void product_of_columns(const T* triangle, Index params, const ConstMatrix<T>& V, Index q0,
                        Index count, T scale, T damping, Matrix<T>& out, int threads) {
  const Index panels = panel_count<T>(params);
  Buffer<T> right(params * K), partial(kGroups * params * K);
  if (count < K) right.zero();
  for (Index j = 0; j < params; ++j)
    for (Index q = 0; q < count; ++q) right[j * K + q] = V(j, q0 + q);
  run_in_order(threads, kGroups, [&](Index g, int) {
    T* own = partial.data() + g * params * K;
    std::fill_n(own, params * K, T(0));
    for (Index i = group_start(g, panels); i < group_start(g + 1, panels); ++i)
      panel_product<T, K>(triangle + panel_offset<T>(i), i, params, right.data(), own);
  });
  for (Index j = 0; j < params; ++j)
    for (Index q = 0; q < count; ++q) {
      T total = 0;
      for (Index g = 0; g < kGroups; ++g) total += partial[(g * params + j) * K + q];
      out(j, q0 + q) = scale * total + damping * right[j * K + q];
    }
}

}  // namespace

template <class T>
Report triangle_from_dense(const ConstMatrix<T>& matrix, T* triangle, int threads) {
  constexpr Index W = kPanel<T>;
  const Index params = matrix.rows(), panels = panel_count<T>(params);
  std::atomic<bool> finite{true};
  // A panel left of its diagonal block is what packing makes of the transposed matrix.
  const Operand<T> columns{ConstMatrix<T>(matrix.data(), params, params,
                                          Strides(matrix.colStride(), matrix.rowStride()))};
  run_in_order(useful_threads<T>(threads, params), panels, [&](Index i, int) {
    const Index row0 = i * W, rows = std::min(W, params - row0);
    T* panel = triangle + panel_offset<T>(i);
    pack_panels(columns, 0, row0, i, 1, panel, W * W * (i + 1));
    bool good = true;
    T* block = panel + row0 * W;
    std::fill_n(block, W * W, T(0));
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c <= r; ++c) {
        const T x = matrix(row0 + r, row0 + c);
        good = good && std::isfinite(x);
        block[c * W + r] = x;
      }
    for (Index c = 0; c < row0; ++c) std::fill_n(panel + c * W + rows, W - rows, T(0));
    Vec<T> bad = Vec<T>::zero();  // 0 for finite values, NaN otherwise
    for (Index e = 0; e < W * row0; e += kLanes<T>) {
      const Vec<T> v = Vec<T>::load(panel + e);
      bad = bad + (v - v);
    }
    good = good && sum(bad) == T(0);
    if (!good) finite.store(false, std::memory_order_relaxed);
  });
  if (finite.load()) return {};
  for (Index i = 0; i < params; ++i)
    for (Index j = 0; j <= i; ++j)
      if (!std::isfinite(matrix(i, j)))
        return {Status::NonFinite, i, j, static_cast<double>(matrix(i, j))};
  return {Status::NonFinite};
}

template <class T>
void triangle_to_dense(const T* triangle, double scale, Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>, line = static_cast<Index>(kCacheLine / sizeof(T));
  const Index params = out.rows();
  const T s = static_cast<T>(scale);
  run_in_order(useful_threads<T>(threads, params), panel_count<T>(params), [&](Index i, int) {
    const T* panel = triangle + panel_offset<T>(i);
    const Index row0 = i * W, rows = std::min(W, params - row0);
    for (Index c0 = 0; c0 < row0; c0 += line)  // a cache line of the lower half at a time
      for (Index r = 0; r < rows; ++r)
        for (Index c = c0; c < c0 + line; ++c) out(row0 + r, c) = s * panel[c * W + r];
    for (Index c = 0; c < row0; ++c)
      for (Index r = 0; r < rows; ++r) out(c, row0 + r) = s * panel[c * W + r];
    for (Index c = 0; c < rows; ++c)
      for (Index r = c; r < rows; ++r)
        out(row0 + r, row0 + c) = out(row0 + c, row0 + r) = s * panel[(row0 + c) * W + r];
  });
}

template <class T>
void triangle_diagonal(const T* triangle, Index params, T* out) {
  for (Index j = 0; j < params; ++j) out[j] = triangle[triangle_at<T>(j, j)];
}

template <class T>
void triangle_add_outer(T* triangle, Index params, const T* x, double alpha, int threads) {
  constexpr Index W = kPanel<T>;
  run_in_order(useful_threads<T>(threads, params), panel_count<T>(params), [&](Index i, int) {
    T* panel = triangle + panel_offset<T>(i);
    const Index rows = std::min(W, params - i * W);
    for (Index c = 0; c < std::min((i + 1) * W, params); ++c) {
      const T xc = static_cast<T>(alpha) * x[c];
      for (Index r = 0; r < rows; ++r) panel[c * W + r] += xc * x[i * W + r];
    }
  });
}

template <class T>
void triangle_product(const T* triangle, Index params, const ConstMatrix<T>& V, double scale,
                      double damping, Matrix<T> out, int threads) {
  threads = useful_threads<T>(threads, params);
  const T s = static_cast<T>(scale), d = static_cast<T>(damping);
  for (Index q = 0; q < V.cols(); q += 4) {
    const Index count = std::min<Index>(4, V.cols() - q);
    if (count > 1)
      product_of_columns<T, 4>(triangle, params, V, q, count, s, d, out, threads);
    else
      product_of_columns<T, 1>(triangle, params, V, q, count, s, d, out, threads);
  }
}

template <class T>
double triangle_norm1(const T* triangle, Index params, int threads) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<double>, vectors = static_cast<int>(W) / lanes;
  const Index panels = panel_count<T>(params);
  Buffer<double> partial(kGroups * params);  // in double: sums of finite float32 must not overflow
  run_in_order(useful_threads<T>(threads, params), kGroups, [&](Index g, int) {
    double* own = partial.data() + g * params;
    std::fill_n(own, params, 0.0);
    for (Index i = group_start(g, panels); i < group_start(g + 1, panels); ++i) {
      const T* panel = triangle + panel_offset<T>(i);
      const Index row0 = i * W, rows = std::min(W, params - row0);
      Vec<double> total[vectors];
      for (int u = 0; u < vectors; ++u) total[u] = Vec<double>::zero();
      for (Index c = 0; c < row0; ++c) {
        Vec<double> column = Vec<double>::zero();
        FASTFISHER_UNROLL
        for (int u = 0; u < vectors; ++u) {
          const Vec<double> a = abs(Vec<double>::load(panel + c * W + u * lanes));
          total[u] = total[u] + a;
          column = column + a;
        }
        own[c] += sum(column);
      }
      double along[kPanel<T>];
      for (int u = 0; u < vectors; ++u) total[u].store(along + u * lanes);
      for (Index c = 0; c < rows; ++c)
        for (Index r = c; r < rows; ++r) {
          const double a = std::abs(static_cast<double>(panel[(row0 + c) * W + r]));
          along[r] += a;
          if (r != c) along[c] += a;
        }
      for (Index r = 0; r < rows; ++r) own[row0 + r] += along[r];
    }
  });
  double largest = 0;
  for (Index j = 0; j < params; ++j) {
    double total = 0;
    for (Index g = 0; g < kGroups; ++g) total += partial[g * params + j];
    if (!(total <= largest)) largest = total;  // NaN wins
  }
  return largest;
}

#define FASTFISHER_INSTANTIATE(T)                                                        \
  template Report triangle_from_dense(const ConstMatrix<T>&, T*, int);                   \
  template void triangle_to_dense(const T*, double, Matrix<T>, int);                     \
  template void triangle_diagonal(const T*, Index, T*);                                  \
  template void triangle_add_outer(T*, Index, const T*, double, int);                    \
  template void triangle_product(const T*, Index, const ConstMatrix<T>&, double, double, \
                                 Matrix<T>, int);                                        \
  template double triangle_norm1(const T*, Index, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
