// Cholesky of a panel triangle, in place and in parallel, and everything its factor answers.
#pragma once

#include "report.hpp"
#include "triangle.hpp"

namespace fastfisher {

// L Lᵀ = A = scale · F + diag(shift);  L overwrites the triangle of F.
//   shift      (p,) added to the diagonal, or null
//   held_against  (p,) instead of A[j, j] below, where A is what an elimination has left; or null
//   tolerance  a pivot ≤ tolerance · A[j, j] means "not positive definite": rounding alone leaves a
//              singular matrix pivots of either sign about p·ε·A[j, j]
// NotPositiveDefinite: row = index of the first bad pivot, value = that pivot. NonFinite: likewise,
// where a number of A or a pivot is NaN or infinite. In both the triangle is undefined. Tiles are
// updated left-looking by the product engine, in an order where each waits only for earlier ones:
// no barrier, and the same bits for any thread count. p³/3 flops.
template <class T>
Report cholesky(T* triangle, Index params, double scale, const T* shift, double tolerance,
                int threads, const T* held_against = nullptr);

// What to solve with the factor.
enum class Half { Both, Lower, Upper };  // A⁻¹B, L⁻¹B, L⁻ᵀB

// out = A⁻¹B, L⁻¹B or L⁻ᵀB;  scipy.linalg.cho_solve((L, True), B), solve_triangular(L, B,
// lower=True[, trans=1]). B, out (p, k), any strides, may be the same. Parallel over tiles
// and right-hand sides. 2p²k flops.
template <class T>
void cholesky_solve(const T* L, const ConstMatrix<T>& B, Half half, Matrix<T> out, int threads);

// log det A = 2 Σ log L[j, j].
template <class T>
double cholesky_logdet(const T* L, Index params);

// inverse = A⁻¹ as a panel triangle (not L itself). L⁻¹ is formed once beside it. 2p³/3 flops.
template <class T>
void cholesky_inverse(const T* L, Index params, T* inverse, int threads);

// out[j] = (A⁻¹)[j, j] = Σ_k (L⁻¹)[k, j]², without storing L⁻¹. p³/3 flops, p·W words a thread.
template <class T>
void cholesky_inverse_diagonal(const T* L, Index params, T* out, int threads);

// 1 / (‖A‖₁ · estimate of ‖A⁻¹‖₁), by the block method of Higham and Tisseur (SIAM J. Matrix Anal.
// 21 (2000) 1185) with eight columns: three solves, which take as long as three with one column.
// The estimate is never above ‖A⁻¹‖₁ but for rounding. norm1 = ‖A‖₁ from before the factorisation.
template <class T>
double cholesky_rcond(const T* L, Index params, double norm1, int threads);

}  // namespace fastfisher
