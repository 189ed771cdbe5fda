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

// Right-hand sides in panels of W: side q of panel g has parameter k at data[g · size + k · W + q].
// All lanes of a panel are in use but for the last one's, `last_rows`, a multiple of the vector
// length.
template <class T>
struct Sides {
  T* data;
  Index size, groups, last_rows;

  T* at(Index g, Index k) const { return data + g * size + k * kPanel<T>; }
  Index rows(Index g) const { return g + 1 == groups ? last_rows : Index{kPanel<T>}; }
  // Panels [g0, g1).
  Sides some(Index g0, Index g1) const { return {data + g0 * size, size, g1 - g0, rows(g1 - 1)}; }
};

// Side q of R = B[:, q], parameters k0 … k1-1 of it; zero where B has none. Row by row through all
// panels: a row of B is contiguous, rows are far apart.
template <class T>
void take_rows(const ConstMatrix<T>& B, Index k0, Index k1, const Sides<T>& R);

// out[:, q] = side q of R, rows k0 … k1-1 of it.
template <class T>
void give_rows(const Sides<T>& R, Index k0, Index k1, Matrix<T> out);

// X[:, c] = (X[:, c] - Σ_{k<c} X[:, k] D[c, k]) · inverse[c] for the columns of one W×W diagonal
// block D, in place: X D⁻ᵀ. X is a W-row panel: of L itself while factoring, of right-hand sides
// (one per row) in a solve. `rows` of it are in use, a multiple of the vector length.
template <class T>
void divide_panel(const T* diagonal, Index columns, const T* inverse, T* X, Index rows);

// inverse[c] = 1 / D[c, c].
template <class T>
void inverse_pivots(const T* diagonal, Index columns, T* inverse);

// R = L⁻¹R in one thread, for right-hand sides that are zero before panel `first` of the
// parameters; R.data points at that panel.
template <class T>
void forward(const Factor<T>& L, Index first, const Sides<T>& R);

// R = L⁻ᵀR in one thread.
template <class T>
void backward(const Factor<T>& L, const Sides<T>& R);

// R = L⁻¹R (down), then R = L⁻ᵀR (up). Tiles are taken in an order where each waits only for
// earlier ones, for one right-hand side as for many: same bits for any thread count. A tile of the
// triangle is read once for several panels: 2p² flops a right-hand side, p²/2 words.
template <class T>
void substitute(const Factor<T>& L, bool down, bool up, const Sides<T>& R, int threads);

}  // namespace fastfisher
