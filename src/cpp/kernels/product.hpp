// The product engine: packed, register-blocked XᵀX and XᵀY, on which every O(n p²) and O(p³) job
// runs.
#pragma once

#include "block.hpp"
#include "report.hpp"
#include "source.hpp"
#include "triangle.hpp"

namespace fastfisher {

// Rows of panel i that exist, rounded up to whole vectors.
template <class T>
constexpr Index panel_rows(Index i, Index params) {
  const Index rows = params - i * kPanel<T>;
  return rows >= kPanel<T> ? kPanel<T> : ceil_div(rows, kLanes<T>) * kLanes<T>;
}

// triangle += YᵀY for an operand Y (depth, columns): np.tril(Y.T @ Y).
//   column_sums  (columns rounded up to whole panels,)   += Yᵀ scale, scale that of Y by depth or
//                ones: with √w there, Σ w (s - shift). Null: not wanted
// Two schedules, chosen by the shape alone: row slabs with a partial triangle each (tall Y) or
// output tiles over shared packed chunks. With `check_finite`, NonFinite names (row -1, the column)
// the first diagonal sum that is not finite: the one place that every NaN, infinity and overflow
// reaches. The triangle is then unchanged after slabs and undefined after tiles. Same bits for any
// thread count. depth·columns·(columns+1) flops.
template <class T, class S>
Report symmetric_product(const Operand<T, S>& Y, T* triangle, double* column_sums,
                         bool check_finite, int threads);

// The same for rows that pack themselves.
template <class T>
Report symmetric_product(const Source<T>& Y, T* triangle, bool check_finite, int threads);

// True where symmetric_product works by slabs, so leaves the triangle alone when it reports
// NonFinite.
template <class T>
bool works_by_slabs(Index depth, Index columns);

// Numbers that XᵀY takes in panels, for X of m columns and Y of q.
template <class T>
Index product_size(Index m, Index q) {
  return panel_count<T>(m) * panel_count<T>(q) * kPanel<T> * kPanel<T>;
}

// R += XᵀY for X (depth, m), Y (depth, q), with R in panels of W rows,
//   R[(i·Q + c)·W + r] = (XᵀY)[i·W + r, c],   Q = q rounded up to whole panels,
// product_size numbers. 2·depth·m·q flops; tiles over shared packed chunks, each of which takes the
// chunks in order: same bits for any thread count.
template <class T>
void product_panels(const Source<T>& X, const Source<T>& Y, T* R, int threads);

// out = R, taken out of its panels, or out += R; out (m, q) with any strides.
template <class T>
void panels_to_dense(const T* R, Matrix<T> out, bool add, int threads);

// out = XᵀY for X (depth, m), Y (depth, q), out (m, q) with any strides: X.T @ Y.
template <class T>
void product(const Source<T>& X, const Source<T>& Y, Matrix<T> out, int threads);
template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads);

// out += XᵀY, likewise.
template <class T>
void add_product(const Source<T>& X, const Source<T>& Y, Matrix<T> out, int threads);

}  // namespace fastfisher
