// The panel triangle: the one layout of a symmetric matrix, half of p², ready for product and
// Cholesky.
//
// W = kPanel<T> rows make a panel. Panel i holds columns 0 … (i+1)W-1 of rows iW … iW+W-1, column
// after column, W values each:
//
//        column   0   1   2   3 | 4   5   6   7 | 8 …          (W = 4)
//   panel 0     [ d   ·   ·   · ]                              d: diagonal block, its upper half is
//   panel 1     [ x   x   x   x | d   ·   ·   · ]                 scratch that nobody reads
//   panel 2     [ x   x   x   x | x   x   x   x | d …
//
// So a W×8 block of results is contiguous (the engine's output tile), a panel's run of columns is
// an operand of the engine as it stands (Cholesky packs nothing), and sums of matrices are sums of
// arrays. Rows and columns past p are zero.
#pragma once

#include "pack.hpp"
#include "report.hpp"

namespace fastfisher {

// First element of panel i.
template <class T>
constexpr Index panel_offset(Index i) {
  return Index{kPanel<T>} * kPanel<T> * (i * (i + 1) / 2);
}

template <class T>
constexpr Index panel_count(Index params) {
  return ceil_div(params, kPanel<T>);
}

template <class T>
constexpr Index triangle_size(Index params) {
  return panel_offset<T>(panel_count<T>(params));
}

// Position of element (row, col), row ≥ col.
template <class T>
constexpr Index triangle_at(Index row, Index col) {
  const Index i = row / kPanel<T>;
  return panel_offset<T>(i) + col * kPanel<T> + (row - i * kPanel<T>);
}

// T = lower triangle of `matrix` (p, p); np.tril(matrix). Parallel over panels; p²/2 read, p²/2
// written. NonFinite names the first bad (row, col) of the lower triangle.
template <class T>
Report triangle_from_dense(const ConstMatrix<T>& matrix, T* triangle, int threads);

// out = scale · (T + Tᵀ - diag T), both halves; the symmetric (p, p) matrix in full.
// Parallel over tiles; p²/2 read, p² written.
template <class T>
void triangle_to_dense(const T* triangle, double scale, Matrix<T> out, int threads);

// out[j] = T[j, j].
template <class T>
void triangle_diagonal(const T* triangle, Index params, T* out);

// out = scale · F[start : start + b, start : start + b] for out (b, b), both halves.
template <class T>
void triangle_block(const T* triangle, Index start, double scale, Matrix<T> out);

// copy = T, all `size` numbers of it, in parallel: most of the time of a large one goes to the
// first touch of new pages.
template <class T>
void triangle_copy(const T* triangle, Index size, T* copy, int threads);

// narrow = scale · T, rounded to float: each of its panels is two of T side by side. Parallel over
// panels; p²/2 read, p²/2 written.
void triangle_narrow(const double* triangle, Index params, double scale, float* narrow,
                     int threads);

// T += alpha · x xᵀ.
template <class T>
void triangle_add_outer(T* triangle, Index params, const T* x, double alpha, int threads);

// out = scale · F V + damping · V with F the full symmetric matrix; V, out (p, k), not overlapping.
// One read of the triangle serves both halves and four columns. Parallel over fixed groups of
// panels whose partial results are added in order: same bits for any thread count. 2p²k flops, p²/2
// words.
template <class T>
void triangle_product(const T* triangle, Index params, const ConstMatrix<T>& V, double scale,
                      double damping, Matrix<T> out, int threads);

// max_j Σ_i |F[i, j]|; np.abs(F).sum(0).max(). Parallel and summed like triangle_product.
template <class T>
double triangle_norm1(const T* triangle, Index params, int threads);

}  // namespace fastfisher
