// Products of bfloat16 rows by the processor's dot products of pairs, where it has them.
#pragma once

#include "block.hpp"
#include "triangle.hpp"

namespace fastfisher {

// The level of this module decides: matrix tiles (Intel AMX), vector dot products (AVX-512 BF16,
// twice the multiply-adds of float32 on Zen 4) or neither. Both multiply bfloat16 exactly, add in
// float32 and take subnormal numbers (below 1.2e-38) for zero.
#if defined(__AMX_BF16__)
constexpr bool kHasPairs = true;
constexpr bool kHasTiles = true;
#elif defined(__AVX512BF16__)
constexpr bool kHasPairs = true;
constexpr bool kHasTiles = false;
#else
constexpr bool kHasPairs = false;
constexpr bool kHasTiles = false;
#endif

// Two bfloat16 of one column, of rows 2k and 2k+1, the first in the low half.
using Pair = std::uint32_t;

// Pairs that `rows` packed rows of a panel take. Tiles need whole groups of 16 pairs of rows, once
// as they are and once transposed.
constexpr Index pair_count(Index rows) {
  constexpr Index W = kPanel<float>;
  return kHasTiles ? ceil_div(rows, 32) * 32 * W : ceil_div(rows, 2) * W;
}

// Packs rows [k0, k0 + depth) of panels [panel0, panel0 + panels), panel after panel, `stride`
// pairs apart: word k·W + r holds rows 2k, 2k+1 of column r, zero past the last row and column.
// With tiles, groups of 16 such words-rows alternate with their 16 × 16 transposes.
void pack_pairs(const ConstMatrix<BFloat16>& X, Index k0, Index depth, Index panel0, Index panels,
                Pair* out, Index stride);

// triangle(panels [i0, i1) × columns [c0, c1)) += XᵀX over `depth` packed rows, on and below the
// diagonal; `params` columns in all. Compiled only where kHasPairs.
void multiply_pairs(Index depth, const Pair* packed, Index stride, Index i0, Index i1, Index c0,
                    Index c1, Index params, float* triangle);

}  // namespace fastfisher
