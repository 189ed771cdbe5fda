// Reflectors: one panel of a QR factorisation becomes them, the panels to its right take them.
#pragma once

#include <algorithm>

#include "pack.hpp"

namespace fastfisher {

// A block of m rows B lies under R. Panel J (W columns) of B becomes its reflectors V, one below
// the other in the columns that they annihilate: I - Ṽ T Ṽᵀ with Ṽ = [I; V], and
// T⁻¹ + T⁻ᵀ = ṼᵀṼ = I + VᵀV, so T is never formed: D = tril(I + VᵀV) with half its diagonal is
// T⁻ᵀ. Each panel K to the right takes them in two products and a substitution:
//   Y = R_JK + VᵀB_K,   Z = D⁻¹Y,   R_JK ← Z - R_JK,   B_K ← B_K - V Z.
// Rows of R change their sign with each block, which leaves its diagonal positive: R_jj = ‖(R_jj;
// x)‖, and no difference of near numbers is ever taken.
//
// All panels are as the engine packs them: B[k * W + r] is row k, R[j * W + r] row j of the block,
// D[j * W + i] column j. `rows` is a multiple of kColumns, zero rows included. One thread each.

// Columns that are reflected one after the other before the engine takes over.
template <class T>
constexpr Index kInner = kLanes<T> > kColumns ? kLanes<T> : kColumns;

constexpr Index round_up(Index n, Index unit) { return ceil_div(n, unit) * unit; }

// Columns of panel K that exist, rounded up to what is packed.
template <class T>
constexpr Index used_columns(Index K, Index params) {
  return std::min<Index>(kPanel<T>, round_up(params - K * kPanel<T>, kInner<T>));
}

// B and its diagonal block R become reflectors and the new R, in place; D (W, W) and the inverse of
// its diagonal (W,) are written, Y (W, W) is scratch. A column whose squares underflow is
// scaled by a power of two first. 2 rows W² flops, a third of them column by column.
template <class T>
void factor_panel(Index rows, Index columns, T* R, T* B, T* D, T* inverse, T* Y);

// B, `columns` wide, with its block R takes the W reflectors V of a panel before it, in place; Y
// (W, W) is scratch. 4 rows W² flops on the engine.
template <class T>
void apply_panel(Index rows, const T* V, const T* D, const T* inverse, Index columns, T* R, T* B,
                 T* Y);

}  // namespace fastfisher
