// QR of the score matrix by Householder reflections: rows are absorbed into R, block after block.
#pragma once

#include "triangle.hpp"

namespace fastfisher {

// R, upper triangular with a diagonal that is not negative, is held as L = Rᵀ, a panel triangle:
// the Cholesky factor of UᵀU that never saw UᵀU, so its error is that of cond(U) and not cond(U)².
// All of these absorb rows B: L becomes the factor with
//   L Lᵀ ← L Lᵀ + BᵀB,        np.linalg.qr(np.vstack([R, B]), mode="r") with the signs of its rows.
// A zero L has absorbed nothing. Blocks of rows and their order are fixed by the shape: same bits
// for any thread count. They cannot fail but for numbers that are not finite.

// Rows of U = W½ (S - 1 meanᵀ), of complex scores in real form: each row s is the pair of real rows
// (Re s₀, Im s₀, …) and (-Im s₀, Re s₀, …) times √½, and L Lᵀ is what hermitian.hpp holds.
//   scores    (n, p), any strides; weights (n,) or null; mean (parts · p,) or null
//   with_root √w is one more column, so that its last row of L is z = Qᵀ√w (see qr_split)
//   triangle  (triangle_size(parts · p + with_root),)
// With `check_finite`, NonFinite names the place in the scores, or row -1 and the column whose
// squares overflowed; the triangle is then undefined. Tall scores are cut into slabs with an R of
// their own, merged in order; else all threads share a block, each task a panel of columns.
// 2 parts² n p² flops, one read of the scores, blocks of 256 rows as scratch for each thread.
template <class T, class S>
Report qr_scores(const ConstMatrix<S>& scores, const T* weights, const T* mean, bool with_root,
                 T* triangle, bool check_finite, int threads);

// Rows of another R, given as its triangle: 2p³/3 flops.
template <class T>
void qr_merge(const T* other, Index params, T* triangle, int threads);

// Rows of diag(diagonal), (params,): damping without squares. 2p³/3 flops.
template <class T>
void qr_diagonal(const T* diagonal, Index params, T* triangle, int threads);

// Takes the last of `params` rows of L out: z[j] = L[params - 1, j], (params,). The first
// triangle_size(params - 1) numbers are then the triangle without it.
template <class T>
void qr_split(T* triangle, Index params, T* z);

// out = L Lᵀ, a triangle again: R.T @ R. Parallel over panels of rows; p³/3 flops.
template <class T>
void qr_square(const T* triangle, Index params, T* out, int threads);

// out[j] = Σ_k R[k, j]², the diagonal of L Lᵀ, (params,).
template <class T>
void qr_squares(const T* triangle, Index params, T* out);

}  // namespace fastfisher
