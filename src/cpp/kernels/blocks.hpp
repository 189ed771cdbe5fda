// A block-diagonal matrix by its Cholesky factors: panel triangles of the blocks, one after
// another.
#pragma once

#include "triangle.hpp"

namespace fastfisher {

// out = A⁻¹B for A = diag(A₁, …), Aᵢ = LᵢLᵢᵀ.
//   np.vstack([scipy.linalg.cho_solve((L, True), b) for L, b in zip(factors, blocks_of_B)])
//
//   L       the factors' panel triangles, one after another
//   sizes   (count,)   rows of each block, ≥ 1; they add up to p
//   B, out  (p, k)     any strides, may be the same
//
// Parallel over blocks, each by one thread: same bits for any thread count. 2·Σ size²·k flops, one
// read of L for every W right-hand sides. Cannot fail.
template <class T>
void blocks_solve(const T* L, const Index* sizes, Index count, const ConstMatrix<T>& B,
                  Matrix<T> out, int threads);

}  // namespace fastfisher
