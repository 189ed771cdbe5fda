// XᵀX past the classical count: Strassen's seven products instead of eight, for large p, on
// request.
#pragma once

#include "pack.hpp"
#include "report.hpp"

namespace fastfisher {

// triangle += YᵀY for an operand Y (depth, columns) of one part, scaled and shifted by nothing but
// scale_by_depth and shift_by_column: np.tril(Y.T @ Y).
// Columns are halved while there are `least` or more (and as many rows): the diagonal blocks are
// classical, a block below the diagonal is Strassen's product of one level, of two where it comes
// from twice `least`. Sums of blocks are formed while packing; what halves leave over (some panels,
// up to three rows) is classical. Memory: the packed halves of one product, at most (columns / 4)²
// numbers for it, and one diagonal block.
//
// Error, with ℓ levels, u = ε/2 and ‖Y‖ the largest |Y[k, j]|, to first order in u (Higham,
// Accuracy and Stability of Numerical Algorithms, 2nd ed., theorem 23.2, cut off after ℓ levels):
//   max |F̂ − F| ≤ 3^ℓ · depth · (depth + 5·2^ℓ) · u · ‖Y‖²
// against depth² · u · ‖Y‖² classically. That is a bound on the largest entry: a small column
// beside large ones loses the digits that its entries are smaller by, which it keeps classically.
// Diagonal blocks, so all variances, keep the bound entry by entry.
//
// With `check_finite`, NonFinite names (row -1, the column) the first diagonal sum that is not
// finite; the triangle is then undefined. Where a diagonal sum is so large that sums of blocks
// might overflow, all is classical. Same bits for any thread count: every entry takes its products
// in one order.
template <class T, class S>
Report symmetric_product_fast(const Operand<T, S>& Y, T* triangle, Index least, bool check_finite,
                              int threads);

}  // namespace fastfisher
