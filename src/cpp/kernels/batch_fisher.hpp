// Empirical Fishers of many small score arrays: one array in each SIMD lane.
#pragma once

#include "lanes.hpp"

namespace fastfisher {

// F_b = Σ_i w_bi (s_bi − m_b)(s_bi − m_b)ᵀ · scale_b     np.einsum('bn,bni,bnj->bij', w, S, S)
//
// scores   (count, n, p)
// weights  (count, n, 1), data null for ones
// center   whether m_b is the weighted mean of the rows, or zero
// mean     whether scale_b = 1/Σ_i w_bi, or one
// out      (count, p, p), contiguous, symmetric
//
// Lanes are items: a block of rows of V of them is transposed, then every register tile of F takes
// the block, rows in order. Centring takes the mean in a pass of its own. Parallel over chunks of
// groups; the bits depend on the item alone. Cost: n p (p + 1) flops, and n p numbers transposed
// (twice if centred). NaN and infinity pass into their own item and nowhere else.
template <class T>
void batch_fisher(const ConstBatch<T>& scores, const ConstBatch<T>& weights, bool center, bool mean,
                  T* out, int threads);

}  // namespace fastfisher
