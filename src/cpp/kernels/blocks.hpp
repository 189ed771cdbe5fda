// Blocks: the diagonal blocks of a symmetric matrix, and the neighbours below them, in one array.
#pragma once

#include <vector>

#include "triangle.hpp"

namespace fastfisher {

// Where the blocks of a block-diagonal or block-tridiagonal matrix stand:
//
//        ⎡F₀         ⎤      the diagonal blocks, one after another: one of at most W rows as a full
//        ⎢B₀ F₁      ⎥      square, row after row, a larger one as a panel triangle that begins on
//        a ⎣   B₁ F₂  ⋱⎦      cache line; then, if tridiagonal, the neighbours B_b = F[b+1, b],
//        dense,
//                           row after row.
// Sums of matrices are sums of arrays; what lies between is zero. Complex matrices are held in
// their real form (hermitian.hpp), with blocks of twice the rows.
template <class T>
struct Blocks {
  Index count, rows = 0, entries = 0, largest = 0;
  bool tridiagonal;
  std::vector<Index> size, row, at, beside;

  Blocks(const Index* sizes, Index blocks, bool with_neighbours);

  bool is_square(Index b) const { return size[static_cast<std::size_t>(b)] <= kPanel<T>; }
  Index size_of(Index b) const { return size[static_cast<std::size_t>(b)]; }
  Index row_of(Index b) const { return row[static_cast<std::size_t>(b)]; }
  Index at_of(Index b) const { return at[static_cast<std::size_t>(b)]; }
  bool has_neighbour(Index b) const { return tridiagonal && b + 1 < count; }
  Index beside_of(Index b) const { return beside[static_cast<std::size_t>(b)]; }
};

// Some neighbouring blocks that are computed with as one: blocks [first, last), rows [row, row +
// size). Those that fit share one panel.
struct Unit {
  Index first, last, row, size;
};

// All blocks as units, in order; of more than one block only where they have W rows at most.
template <class T>
std::vector<Unit> units_of(const Blocks<T>& blocks);

// F += the blocks that a panel triangle of the unit holds; the rest of it is not read.
template <class T>
void add_unit(const Blocks<T>& blocks, const Unit& unit, const T* triangle, T* F);

// triangle = scale · the unit's part of F, zero between its blocks.
template <class T>
void read_unit(const Blocks<T>& blocks, const Unit& unit, const T* F, T scale, T* triangle);

// out[j] = F[j, j].
template <class T>
void blocks_diagonal(const Blocks<T>& blocks, const T* F, T* out);

// F += alpha · x xᵀ where F has entries. Parallel over blocks.
template <class T>
void blocks_add_outer(const Blocks<T>& blocks, T* F, const T* x, double alpha, int threads);

// out = scale · F V for V, out (p, k), not overlapping, any strides. Parallel over blocks, each of
// which sums its own rows: same bits for any thread count. 2·k flops an entry of F, and one read of
// the diagonal blocks, two of the neighbours.
template <class T>
void blocks_product(const Blocks<T>& blocks, const T* F, const ConstMatrix<T>& V, double scale,
                    Matrix<T> out, int threads);

// max_j Σ_i |F[i, j]|;  np.abs(F).sum(0).max().
template <class T>
double blocks_norm1(const Blocks<T>& blocks, const T* F);

// Σ_ij F[i, j] G[i, j] where they have entries;  np.vdot(F, G), the trace of F Gᵀ.
template <class T>
double blocks_dot(const Blocks<T>& blocks, const T* F, const T* G);

// The Hermitian form of what the engine makes of complex scores, block by block; see
// hermitian_project. Sizes are those of the real form, so even.
template <class T>
void blocks_project(const Blocks<T>& blocks, T* F, int threads);

}  // namespace fastfisher
