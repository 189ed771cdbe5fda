// Many small symmetric positive definite systems at once: one matrix in each SIMD lane.
#pragma once

#include <cstdint>

#include "lanes.hpp"

namespace fastfisher {

enum class BatchJob { Solve, Inverse, InverseDiagonal, LogDeterminant };

// For each b:  A = F_b + diag(damping_b), and of it
//   Solve            X_b = A⁻¹ B_b                np.linalg.solve(A, B)
//   Inverse          X_b = A⁻¹                    np.linalg.inv(A)
//   InverseDiagonal  x_b = diag(A⁻¹)              np.diagonal(np.linalg.inv(A), axis1=1, axis2=2)
//   LogDeterminant   x_b = log det A              np.linalg.slogdet(A)[1]
//
// F        (count, p, p)  only the lower triangles are read
// damping  (count, p)     as (count, p, 1); stride 0 where one number serves
// rhs      (count, p, k)  Solve only
// out      (count, p, k), (count, p, p), (count, p) or (count,), contiguous, no overlap with inputs
// status   (count,)       Status of each item; the entries of a failed item's answer are NaN
// rcond    (count,)       estimate of 1/κ₁(S A S), see below; 0 or NaN for a failed item
//
// Algorithm. V = kLanes<T> matrices are transposed into one structure of arrays: A(i, j) of all of
// them is one register. Then, departing from the textbook in this:
//   1. A is scaled to S A S with S = diag(2^-⌊log₂(A_jj)/2⌋): exact, and no entry of a positive
//      definite matrix can overflow or underflow harmfully, whatever the units of the parameters.
//   2. L D Lᵀ, unit lower L: a division for each pivot and no square root. Left-looking, in tiles
//   of
//      kTile × kTile registers.
//   3. A pivot D_jj ≤ p·ε·(S A S)_jj is rounding: NotPositiveDefinite. Lanes go on with whatever
//      numbers come (NaN is as fast as any other), so a bad matrix costs its neighbours nothing.
//   4. rcond = 1 / (‖S A S‖₁ ‖z‖_∞) with S A S z = e, where e_j = ±1 makes |(L⁻¹e)_j| as large as
//      it can be, j by j. As ‖e‖_∞ = 1 it is never below the true 1/κ₁, but for rounding.
// A⁻¹ = Mᵀ D⁻¹ M with M = L⁻¹, in place.
//
// Parallel over chunks of groups; no operation mixes lanes, so the bits of an item depend on
// nothing but the item: not on threads, neighbours, or its place in the batch.
// Cost: p³/3 + 2 k p² flops (Solve), p³ (Inverse), 2p³/3 (InverseDiagonal), and the estimate 2 p².
// Scratch: p²/2 + (min(k, 16) + 1)·p registers a thread. Failure: in `status`, item by item.
template <class T>
void batch_factor(BatchJob job, const ConstBatch<T>& F, const ConstBatch<T>& damping,
                  const ConstBatch<T>& rhs, T* out, std::int8_t* status, T* rcond, int threads);

}  // namespace fastfisher
