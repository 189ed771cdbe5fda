// Scores in, blocks of the Fisher out: the diagonal blocks, and the neighbours below them.
#pragma once

#include "blocks.hpp"
#include "report.hpp"

namespace fastfisher {

// F += the blocks of Σᵢ wᵢ (sᵢ - m)(sᵢ - m)ᵀ
//   [(w[:, None] * X[:, b]).T @ X[:, b] for b in blocks]  with X = S - m, and X[:, b + 1].T on the
//   left for the neighbours
//
//   S        (n, p)   scores, any strides, of type Source ∈ {T, narrower}, p the rows of the blocks
//   weights  (n,)     ≥ 0, or null for ones
//   mean     (p,)     with `centred` the mean of these samples is written there, and used as m;
//                     else null or m itself
//   F                 as `Blocks` says; `fresh` promises that it is zero
// A complex S is its real form of 2p columns, and so are blocks and mean; blocks_project follows.
//
// Blocks of up to 192 rows are summed in one pass: a group of neighbouring blocks takes a few rows
// at a time, packed once as rows, while they are in the cache, so memory is read in runs of 2 kB
// and more. Where groups are few, rows are cut into slabs as well, whose sums are added in order.
// Larger blocks are column slices of S on the engine, no copy. Same bits for any thread count. n·Σ
// size² flops for the blocks, 2n·Σ size·next for the neighbours; centring costs nothing but, as in
// accumulate_centred, where the provisional mean is far off.
//
// NonFinite names the first bad (row, col) of S or, with row -1, the first column where finite
// scores overflow; F is then unchanged unless `fresh`. What is not fresh is summed apart and added,
// or where that would take more memory than the scores, read once more in advance.
template <class T, class S>
Report accumulate_blocks(const ConstMatrix<S>& scores, const T* weights, T* mean, bool centred,
                         const Blocks<T>& blocks, T* F, bool fresh, bool check_finite, int threads);

}  // namespace fastfisher
