// Forward and backward substitution with a panel triangle, for right-hand sides held in panels.
#pragma once

#include <algorithm>

#include "product.hpp"

namespace fastfisher {

// A panel triangle seen as a lower triangular matrix of W×W blocks.
template <class T>
struct Factor {
  T* triangle;
  Index params;
  Index panels() const { return panel_count<T>(params); }
  T* panel(Index i) const { return triangle + panel_offset<T>(i); }
  // Column c of the whole matrix, rows of panel i.
  T* column(Index i, Index c) const { return panel(i) + c * kPanel<T>; }
  // Columns of diagonal block j that exist.
  Index columns(Index j) const { return std::min<Index>(kPanel<T>, params - j * kPanel<T>); }
};

// Panels per tile: 192 columns. Factoring and substitution go tile by tile.
template <class T>
constexpr Index kTile = 192 / kPanel<T>;

// X[:, c] = (X[:, c] - Σ_{k<c} X[:, k] D[c, k]) · inverse[c] for the columns of one W×W diagonal
// block D, in place: X D⁻ᵀ. X is a W-row panel: of L itself while factoring, of right-hand sides
// (one per row) in a solve. `rows` of it are in use, a multiple of the vector length.
template <class T>
void divide_panel(const T* diagonal, Index columns, const T* inverse, T* X, Index rows);

// inverse[c] = 1 / D[c, c].
template <class T>
void inverse_pivots(const T* diagonal, Index columns, T* inverse);

// R = L⁻¹R in one thread, for R[k * W + q] (k parameter, q right-hand side) that is zero before
// panel `first`; `data` points at the row of that panel.
template <class T>
void forward(const Factor<T>& L, Index first, T* data, Index rows);

// R = L⁻ᵀR in one thread, for all of R.
template <class T>
void backward(const Factor<T>& L, T* data, Index rows);

// R = L⁻¹R (down), then R = L⁻ᵀR (up), for `groups` panels of right-hand sides, `size` apart,
// of which all lanes are in use, in the last group `last_rows`. Tiles are taken in an order where
// each waits only for earlier ones, for one right-hand side as for many: same bits for any thread
// count. The triangle is read once for each of the two: 2p² flops a right-hand side, p²/2 words.
template <class T>
void substitute(const Factor<T>& L, bool down, bool up, T* data, Index size, Index groups,
                Index last_rows, int threads);

}  // namespace fastfisher
