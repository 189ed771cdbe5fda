// The product engine: packed, register-blocked XᵀX and XᵀY, on which every O(n p²) and O(p³) job
// runs.
#pragma once

#include "block.hpp"
#include "report.hpp"
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

// True where symmetric_product works by slabs, so leaves the triangle alone when it reports
// NonFinite.
template <class T>
bool works_by_slabs(Index depth, Index columns);

// out += XᵀY for operands X (depth, m), Y (depth, q), out (m, q) with any strides: out += X.T @ Y.
// Tiles over shared packed chunks: same bits for any thread count. 2·depth·m·q flops.
template <class T, class S>
void add_product(const Operand<T, S>& X, const Operand<T, S>& Y, Matrix<T> out, int threads);

// out = XᵀY for X (depth, m), Y (depth, q), out (m, q) with any strides: X.T @ Y.
template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads);

}  // namespace fastfisher
