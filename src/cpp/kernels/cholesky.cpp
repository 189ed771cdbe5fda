// Cholesky on the product engine: a panel of L is an operand as it stands, so nothing is packed.
#include "cholesky.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "parallel.hpp"
#include "product.hpp"

namespace fastfisher {

namespace {

// Panels per tile: 192 columns of float64 or of float32 (measured at p = 2000 and 4000).
template <class T>
constexpr Index kTile = 192 / kPanel<T>;
constexpr Index kDepth = 256;  // as in product.cpp
// Below this order a second thread costs more than it brings.
constexpr Index kParallelOrder = 192;

template <class T>
struct Factor {
  T* triangle;
  Index params;
  Index panels() const { return panel_count<T>(params); }
  T* panel(Index i) const { return triangle + panel_offset<T>(i); }
  // Column c of the whole matrix, rows of panel i.
  T* column(Index i, Index c) const { return panel(i) + c * kPanel<T>; }
  Index columns(Index j) const { return std::min<Index>(kPanel<T>, params - j * kPanel<T>); }
};

// X[:, c] for the columns of panel j, given X[:, k] for all k before them:
//   X[:, c] = (X[:, c] - Σ_{k<c} X[:, k] L[c, k]) / L[c, c],  k from `start` on
// X is a W-row panel: of L itself while factoring, of right-hand sides (one per row) in a solve.
// `rows` of the panel are in use, a multiple of the vector length.
template <class T, int V>
FASTFISHER_INLINE void divide_block(const T* diagonal, Index c0, Index count, const T* inverse,
                                    T* X) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<T>;
  for (Index c = c0; c < c0 + count; ++c) {
    Vec<T> x[V];
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) x[u] = Vec<T>::load(X + c * W + u * lanes);
    for (Index k = c0; k < c; ++k) {
      const Vec<T> l = Vec<T>::broadcast(-diagonal[k * W + c]);
      FASTFISHER_UNROLL
      for (int u = 0; u < V; ++u) x[u] = fma(Vec<T>::load(X + k * W + u * lanes), l, x[u]);
    }
    const Vec<T> scale = Vec<T>::broadcast(inverse[c]);
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) (x[u] * scale).store(X + c * W + u * lanes);
  }
}

// Columns of one W×W diagonal block, in steps of the register block: engine first, then the small
// rest.
template <class T>
void divide_panel(const T* diagonal, Index columns, const T* inverse, T* X, Index rows) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  for (Index c = 0; c < columns; c += kColumns) {
    if (c > 0) multiply_panel<T, W, 1>(c, X, diagonal + c, X + c * W, T(-1), 0, rows);
    const Index count = std::min<Index>(kColumns, columns - c);
    Index r = 0;
    for (; r + 3 * lanes <= rows; r += 3 * lanes)
      divide_block<T, 3>(diagonal, c, count, inverse, X + r);
    for (; r < rows; r += lanes) divide_block<T, 1>(diagonal, c, count, inverse, X + r);
  }
}

template <class T>
void inverse_pivots(const T* diagonal, Index columns, T* inverse) {
  for (Index c = 0; c < columns; ++c) inverse[c] = T(1) / diagonal[c * kPanel<T> + c];
}

// LLᵀ of one W×W diagonal block, right-looking, whole columns at a time (rows above the diagonal
// are scratch). Returns the index of the first pivot ≤ tolerance · own[c], or -1.
template <class T>
Index factor_block(T* block, Index columns, const T* own, T tolerance, T& pivot) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<T>, vectors = static_cast<int>(W) / lanes;
  for (Index c = 0; c < columns; ++c) {
    pivot = block[c * W + c];
    if (!(pivot > tolerance * own[c])) return c;  // also when NaN
    const T root = std::sqrt(pivot);
    const Vec<T> inverse = Vec<T>::broadcast(T(1) / root);
    Vec<T> x[vectors];
    for (int u = 0; u < vectors; ++u) {
      x[u] = Vec<T>::load(block + c * W + u * lanes) * inverse;
      x[u].store(block + c * W + u * lanes);
    }
    block[c * W + c] = root;
    for (Index k = c + 1; k < columns; ++k) {
      const Vec<T> l = Vec<T>::broadcast(-block[c * W + k]);
      for (int u = static_cast<int>(k) / lanes; u < vectors; ++u)
        fma(x[u], l, Vec<T>::load(block + k * W + u * lanes)).store(block + k * W + u * lanes);
    }
  }
  return -1;
}

// The state that the tile tasks of one factorisation share.
template <class T>
struct Factorisation {
  Factor<T> A;
  T scale;
  const T* shift;
  T tolerance;
  std::vector<Finished> row;  // tiles finished in each tile row, from left to right
  std::atomic<bool> failed{false};
  Report report;
};

// Rows of panels [i0, i1) of the panel columns [j0, j1): scale, take away all columns before the
// tile, then panel by panel the columns within it.
template <class T>
void run_tile(Factorisation<T>& job, Index I, Index J) {
  constexpr Index W = kPanel<T>;
  const Factor<T>& A = job.A;
  const Index i1 = std::min((I + 1) * kTile<T>, A.panels()), j0 = J * kTile<T>,
              j1 = std::min(j0 + kTile<T>, A.panels());
  const auto rows = [&](Index i) { return panel_rows<T>(i, A.params); };
  T own[kTile<T> * kPanel<T>];  // the diagonal of A, before elimination

  for (Index i = I * kTile<T>; i < i1; ++i) {
    T* tile = A.column(i, j0 * W);
    const Index size = (std::min(i + 1, j1) - j0) * W * W;
    if (job.scale != T(1)) Vector<T>(tile, size) *= job.scale;
    if (I == J)
      for (Index r = 0; r < A.columns(i); ++r) {
        T& d = A.column(i, i * W + r)[r];
        if (job.shift) d += job.shift[i * W + r];
        own[(i - j0) * W + r] = d;
      }
  }

  job.row[static_cast<std::size_t>(I)].wait(J);
  job.row[static_cast<std::size_t>(J)].wait(J);
  if (job.failed.load(std::memory_order_relaxed)) return;
  for (Index k = 0; k < j0 * W; k += kDepth) {
    const Index depth = std::min(kDepth, j0 * W - k);
    for (Index c = j0 * W; c < std::min(j1 * W, A.params); c += kColumns)
      for (Index i = std::max(I * kTile<T>, c / W); i < i1; ++i)
        multiply_panel<T, W, 1>(depth, A.column(i, k), A.column(c / W, k) + c % W, A.column(i, c),
                                T(-1), 0, rows(i));
  }

  if (I != J) job.row[static_cast<std::size_t>(J)].wait(J + 1);
  if (job.failed.load(std::memory_order_relaxed)) return;
  for (Index j = j0; j < j1; ++j) {
    T* diagonal = A.column(j, j * W);
    const auto eliminate = [&](Index i) {
      if (j > j0)
        for (Index c = j * W; c < j * W + A.columns(j); c += kColumns)
          multiply_panel<T, W, 1>((j - j0) * W, A.column(i, j0 * W), A.column(j, j0 * W) + c % W,
                                  A.column(i, c), T(-1), 0, rows(i));
    };
    if (I == J) {
      eliminate(j);
      T pivot = 0;
      const Index bad =
          factor_block(diagonal, A.columns(j), own + (j - j0) * W, job.tolerance, pivot);
      if (bad >= 0) {  // only the first diagonal tile to fail gets here: later ones wait for it
        job.report = {Status::NotPositiveDefinite, j * W + bad, j * W + bad,
                      static_cast<double>(pivot)};
        job.failed.store(true);
        return;
      }
    }
    T inverse[kPanel<T>];
    inverse_pivots(diagonal, A.columns(j), inverse);
    for (Index i = I == J ? j + 1 : I * kTile<T>; i < i1; ++i) {
      eliminate(i);
      divide_panel(diagonal, A.columns(j), inverse, A.column(i, j * W), rows(i));
    }
  }
}

// R = L⁻¹R for right-hand sides in a panel, R[k * W + q] (k parameter, q right-hand side), given
// that rows before panel `first` are zero; `data` points at the row of that panel.
template <class T>
void forward(const Factor<T>& L, Index first, T* data, Index lanes_used) {
  constexpr Index W = kPanel<T>;
  T inverse[kPanel<T>];
  for (Index j = first; j < L.panels(); ++j) {
    T* X = data + (j - first) * W * W;
    if (j > first)
      for (Index c = 0; c < L.columns(j); c += kColumns)
        multiply_panel<T, W, 1>((j - first) * W, data, L.column(j, first * W) + c, X + c * W, T(-1),
                                0, lanes_used);
    inverse_pivots(L.column(j, j * W), L.columns(j), inverse);
    divide_panel(L.column(j, j * W), L.columns(j), inverse, X, lanes_used);
  }
}

// R = L⁻ᵀR, same layout, all panels.
template <class T>
void backward(const Factor<T>& L, T* data, Index lanes_used) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  for (Index j = L.panels() - 1; j >= 0; --j) {
    T* X = data + j * W * W;
    for (Index i = j + 1; i < L.panels(); ++i)
      for (Index c = 0; c < W;
           c += kColumns)  // reads L[i-th panel's rows, c …] with k along the rows
        multiply_panel<T, 1, W>(L.columns(i), data + i * W * W, L.column(i, j * W + c), X + c * W,
                                T(-1), 0, lanes_used);
    const T* diagonal = L.column(j, j * W);
    for (Index c = L.columns(j) - 1; c >= 0; --c) {
      const Vec<T> inverse = Vec<T>::broadcast(T(1) / diagonal[c * W + c]);
      for (Index r = 0; r < lanes_used; r += lanes) {
        Vec<T> x = Vec<T>::load(X + c * W + r);
        for (Index k = c + 1; k < L.columns(j); ++k)
          x = fma(Vec<T>::load(X + k * W + r), Vec<T>::broadcast(-diagonal[c * W + k]), x);
        (x * inverse).store(X + c * W + r);
      }
    }
  }
}

// Panel q of M = L⁻¹: M[k * W + r] = (L⁻¹)[k, qW + r] from row qW on.
template <class T>
void invert_panel(const Factor<T>& L, Index q, T* M) {
  constexpr Index W = kPanel<T>;
  std::fill_n(M, (L.panels() - q) * W * W, T(0));
  for (Index r = 0; r < L.columns(q); ++r) M[r * W + r] = T(1);
  forward(L, q, M, panel_rows<T>(q, L.params));
}

template <class T>
Factor<T> view(const T* L, Index params) {
  return {const_cast<T*>(L), params};
}

int useful_threads(int requested, Index params) {
  return params < kParallelOrder ? 1 : team_size(requested);
}

}  // namespace

template <class T>
Report cholesky(T* triangle, Index params, double scale, const T* shift, double tolerance,
                int threads) {
  const Factor<T> A{triangle, params};
  const Index tiles = ceil_div(A.panels(), kTile<T>);
  Factorisation<T> job{A,
                       static_cast<T>(scale),
                       shift,
                       static_cast<T>(tolerance),
                       std::vector<Finished>(static_cast<std::size_t>(tiles)),
                       {},
                       {}};
  std::vector<std::pair<Index, Index>> order;
  for (Index J = 0; J < tiles; ++J)
    for (Index I = J; I < tiles; ++I) order.emplace_back(I, J);
  run_in_order(useful_threads(threads, params), static_cast<Index>(order.size()),
               [&](Index task, int) {
                 const auto [I, J] = order[static_cast<std::size_t>(task)];
                 run_tile(job, I, J);
                 job.row[static_cast<std::size_t>(I)].add();
               });
  return job.report;
}

template <class T>
void cholesky_solve(const T* L, const ConstMatrix<T>& B, Half half, Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>;
  const Factor<T> factor = view(L, B.rows());
  const Index columns = B.cols(), size = factor.panels() * W * W, groups = ceil_div(columns, W);
  threads = static_cast<int>(
      std::min<Index>(useful_threads(threads, factor.params), std::max<Index>(groups, 1)));
  Buffer<T> scratch(threads * size);
  run_in_order(threads, groups, [&](Index g, int thread) {
    T* R = scratch.data() + thread * size;
    const Index q0 = g * W, count = std::min(W, columns - q0);
    std::fill_n(R, size, T(0));
    for (Index k = 0; k < factor.params; ++k)
      for (Index q = 0; q < count; ++q) R[k * W + q] = B(k, q0 + q);
    const Index lanes_used = panel_rows<T>(g, columns);
    if (half != Half::Upper) forward(factor, 0, R, lanes_used);
    if (half != Half::Lower) backward(factor, R, lanes_used);
    for (Index k = 0; k < factor.params; ++k)
      for (Index q = 0; q < count; ++q) out(k, q0 + q) = R[k * W + q];
  });
}

template <class T>
double cholesky_logdet(const T* L, Index params) {
  double total = 0;
  for (Index j = 0; j < params; ++j)
    total += std::log(static_cast<double>(L[triangle_at<T>(j, j)]));
  return 2 * total;
}

template <class T>
void cholesky_inverse(const T* L, Index params, T* inverse, int threads) {
  constexpr Index W = kPanel<T>;
  const Factor<T> factor = view(L, params), out{inverse, params};
  const Index panels = factor.panels(), tiles = ceil_div(panels, kTile<T>);
  threads = useful_threads(threads, params);
  Buffer<T> M(
      triangle_size<T>(params));  // panel q has panels - q blocks: the triangle, upside down
  const auto M_panel = [&](Index q) {
    return M.data() + triangle_size<T>(params) - panel_offset<T>(panels - q);
  };
  run_in_order(threads, panels, [&](Index q, int) { invert_panel(factor, q, M_panel(q)); });

  std::fill_n(inverse, triangle_size<T>(params), T(0));
  std::vector<std::pair<Index, Index>> order;  // the deepest sums first
  for (Index I = 0; I < tiles; ++I)
    for (Index J = 0; J <= I; ++J) order.emplace_back(I, J);
  run_in_order(threads, static_cast<Index>(order.size()), [&](Index task, int) {
    const auto [I, J] = order[static_cast<std::size_t>(task)];
    const Index i1 = std::min((I + 1) * kTile<T>, panels),
                c1 = std::min((J + 1) * kTile<T> * W, params);
    for (Index k0 = I * kTile<T> * W; k0 < params; k0 += kDepth)
      for (Index c = J * kTile<T> * W; c < c1; c += kColumns)
        for (Index i = std::max(I * kTile<T>, c / W); i < i1; ++i) {
          const Index k = std::max(k0, i * W), depth = std::min(k0 + kDepth, params) - k;
          if (depth > 0)
            multiply_panel<T, W, 1>(depth, M_panel(i) + (k - i * W) * W,
                                    M_panel(c / W) + (k - c / W * W) * W + c % W, out.column(i, c),
                                    T(1), 0, panel_rows<T>(i, params));
        }
  });
}

template <class T>
void cholesky_inverse_diagonal(const T* L, Index params, T* out, int threads) {
  constexpr Index W = kPanel<T>;
  const Factor<T> factor = view(L, params);
  const Index panels = factor.panels(), size = panels * W * W;
  threads = useful_threads(threads, params);
  Buffer<T> scratch(threads * size);
  run_in_order(threads, panels, [&](Index q, int thread) {
    T* M = scratch.data() + thread * size;
    invert_panel(factor, q, M);
    T total[kPanel<T>] = {};
    for (Index k = 0; k < params - q * W; ++k)
      for (Index r = 0; r < W; ++r) total[r] += M[k * W + r] * M[k * W + r];
    std::copy_n(total, factor.columns(q), out + q * W);
  });
}

template <class T>
double cholesky_rcond(const T* L, Index params, double norm1, int threads) {
  using Array = Eigen::Array<T, Eigen::Dynamic, 1>;
  if (params == 0) return 1.0;
  const auto solve = [&](Array& x) {
    Matrix<T> X(x.data(), params, 1, Strides(1, 1));
    cholesky_solve<T>(L, ConstMatrix<T>(x.data(), params, 1, Strides(1, 1)), Half::Both, X,
                      threads);
  };
  // Maximise ‖A⁻¹x‖₁ over the unit 1-norm ball: from its centre, then along its best vertex.
  Array x = Array::Constant(params, T(1) / static_cast<T>(params));
  double best = 0;
  Index vertex = -1;
  for (int step = 0; step < 5; ++step) {
    solve(x);
    const double norm = static_cast<double>(x.abs().template cast<double>().sum());
    if (step > 0 && norm <= best) break;
    best = norm;
    Array z = (x < T(0)).select(Array::Constant(params, T(-1)), Array::Constant(params, T(1)));
    solve(z);
    Index next;
    z.abs().maxCoeff(&next);
    if (next == vertex) break;
    vertex = next;
    x.setZero();
    x[vertex] = T(1);
  }
  // Higham's safeguard against cancellation: an alternating, growing vector.
  for (Index j = 0; j < params; ++j)
    x[j] = static_cast<T>(
        (j % 2 ? -1.0 : 1.0) *
        (1.0 + static_cast<double>(j) / std::max<double>(1.0, static_cast<double>(params - 1))));
  solve(x);
  best = std::max(best, 2.0 * static_cast<double>(x.abs().template cast<double>().sum()) /
                            (3.0 * static_cast<double>(params)));
  const double rcond = 1.0 / best / norm1;
  return std::isfinite(rcond) ? std::min(rcond, 1.0) : 0.0;
}

#define FASTFISHER_INSTANTIATE(T)                                                      \
  template Report cholesky(T*, Index, double, const T*, double, int);                  \
  template void cholesky_solve(const T*, const ConstMatrix<T>&, Half, Matrix<T>, int); \
  template double cholesky_logdet(const T*, Index);                                    \
  template void cholesky_inverse(const T*, Index, T*, int);                            \
  template void cholesky_inverse_diagonal(const T*, Index, T*, int);                   \
  template double cholesky_rcond(const T*, Index, double, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
