// Cholesky on the product engine: a panel of L is an operand as it stands, so nothing is packed.
#include "cholesky.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "condition.hpp"
#include "parallel.hpp"
#include "substitution.hpp"

namespace fastfisher {

namespace {

// Below this order a second thread costs more than it brings.
constexpr Index kParallelOrder = 384;

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
  const T* held_against;
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
        own[(i - j0) * W + r] = job.held_against ? job.held_against[i * W + r] : d;
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
        const bool number = std::isfinite(pivot) && std::isfinite(own[(j - j0) * W + bad]);
        job.report = {number ? Status::NotPositiveDefinite : Status::NonFinite, j * W + bad,
                      j * W + bad, static_cast<double>(pivot)};
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

// Panel q of M = L⁻¹: M[k * W + r] = (L⁻¹)[k, qW + r] from row qW on.
template <class T>
void invert_panel(const Factor<T>& L, Index q, T* M) {
  constexpr Index W = kPanel<T>;
  std::fill_n(M, (L.panels() - q) * W * W, T(0));
  for (Index r = 0; r < L.columns(q); ++r) M[r * W + r] = T(1);
  forward(L, q, Sides<T>{M, 0, 1, panel_rows<T>(q, L.params)});
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
                int threads, const T* held_against) {
  const Factor<T> A{triangle, params};
  const Index tiles = ceil_div(A.panels(), kTile<T>);
  Factorisation<T> job{A,
                       static_cast<T>(scale),
                       shift,
                       static_cast<T>(tolerance),
                       held_against,
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
  constexpr Index kGroups = 8;  // panels of right-hand sides held at a time
  const Factor<T> factor = view(L, B.rows());
  const Index size = factor.panels() * W * W;
  // A few right-hand sides of a small system are done before a second thread is awake.
  threads = factor.params * factor.params * B.cols() < (Index{1} << 21) ? 1 : team_size(threads);
  Buffer<T> buffer(std::min(kGroups, ceil_div(B.cols(), W)) * size);
  for (Index q0 = 0; q0 < B.cols(); q0 += kGroups * W) {
    const Index columns = std::min(kGroups * W, B.cols() - q0), groups = ceil_div(columns, W);
    const Sides<T> R{buffer.data(), size, groups, panel_rows<T>(groups - 1, columns)};
    const ConstMatrix<T> some = part_of(B, 0, q0, B.rows(), columns);
    constexpr Index kRows = 4 * W;
    const Index parts = ceil_div(factor.params, kRows), end = factor.panels() * W;
    run_in_order(threads, parts, [&](Index part, int) {
      take_rows(some, part * kRows, std::min((part + 1) * kRows, end), R);
    });
    substitute(factor, half != Half::Upper, half != Half::Lower, R, threads);
    run_in_order(threads, parts, [&](Index part, int) {
      give_rows(R, part * kRows, std::min((part + 1) * kRows, factor.params),
                part_of(out, 0, q0, B.rows(), columns));
    });
  }
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
  threads = static_cast<int>(std::min<Index>(useful_threads(threads, params), panels));
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
  return reciprocal_condition<T>(params, norm1, [&](Matrix<T> X) {
    const Strides strides(X.cols(), 1);
    cholesky_solve<T>(L, ConstMatrix<T>(X.data(), params, X.cols(), strides), Half::Both, X,
                      threads);
  });
}

#define FASTFISHER_INSTANTIATE(T)                                                      \
  template Report cholesky(T*, Index, double, const T*, double, int, const T*);        \
  template void cholesky_solve(const T*, const ConstMatrix<T>&, Half, Matrix<T>, int); \
  template double cholesky_logdet(const T*, Index);                                    \
  template void cholesky_inverse(const T*, Index, T*, int);                            \
  template void cholesky_inverse_diagonal(const T*, Index, T*, int);                   \
  template double cholesky_rcond(const T*, Index, double, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
