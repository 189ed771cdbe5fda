// Cholesky of a block-tridiagonal (or block-diagonal) matrix, and everything its factor answers.
#pragma once

#include "blocks.hpp"
#include "cholesky.hpp"
#include "report.hpp"

namespace fastfisher {

// A = 𝓛𝓛ᵀ for a block-tridiagonal A, with the diagonal blocks A_b and B_b = A[b+1, b]:
//
//        ⎡L₀         ⎤     L₀L₀ᵀ = A₀
//   𝓛 =  ⎢W₀ L₁      ⎥     W_b = B_b L_b⁻ᵀ
//        ⎣   W₁ L₂  ⋱⎦     L_b L_bᵀ = A_b − W_{b-1} W_{b-1}ᵀ
//
// The links of a chain, in one array: L_b as panel triangles, then W_b in panels, W rows of block
// b + 1 each, over the columns of block b rounded up to panels, column after column. So they stand
// as the engine and `substitute` take them. Without neighbours there is no W_b, and blocks are
// independent. Neighbouring blocks that fit in one panel are one link (units_of).
template <class T>
struct Chain {
  Index count, rows = 0, entries = 0, largest = 0;
  bool tridiagonal;
  std::vector<Index> size, row, diagonal, beside;

  Chain(const Index* sizes, Index links, bool with_neighbours);

  Index size_of(Index b) const { return size[static_cast<std::size_t>(b)]; }
  Index row_of(Index b) const { return row[static_cast<std::size_t>(b)]; }
  // Numbers of a panel of W_b.
  Index stride(Index b) const { return panel_count<T>(size_of(b)) * kPanel<T> * kPanel<T>; }
  bool has_next(Index b) const { return tridiagonal && b + 1 < count; }
};

// The sizes of the links that `blocks` make.
template <class T>
std::vector<Index> links_of(const Blocks<T>& blocks);

// The factor of A = scale · F + diag(shift), shift (p,), in `factor` of chain.entries numbers; the
// sizes of `chain` are links_of(blocks). A pivot ≤ tolerance · A[j, j] is NotPositiveDefinite as in
// cholesky, which names the row; the factor is then undefined. Links of a block-diagonal matrix in
// parallel, those of a block-tridiagonal one in turn with all threads in each; same bits for any
// number of them. Σ size³/3 flops, and Σ size²·next + size·next² for the neighbours.
template <class T>
Report tridiagonal_factor(const Blocks<T>& blocks, const Chain<T>& chain, const T* F, double scale,
                          const T* shift, double tolerance, T* factor, int threads);

// out = A⁻¹B, 𝓛⁻¹B or 𝓛⁻ᵀB for B, out (p, k), any strides, may be the same:
//   x_b = L_b⁻¹ (b_b − W_{b-1} x_{b-1}) downwards, x_b = L_b⁻ᵀ (b_b − W_bᵀ x_{b+1}) upwards.
// Parallel over panels of right-hand sides and, without neighbours, over blocks. 2·k flops an entry
// of the factor for each half.
template <class T>
void tridiagonal_solve(const Chain<T>& chain, const T* factor, const ConstMatrix<T>& B, Half half,
                       Matrix<T> out, int threads);

// log det A = 2 Σ log L[j, j].
template <class T>
double tridiagonal_logdet(const Chain<T>& chain, const T* factor);

// The selected inverse: the entries of Σ = A⁻¹ that `blocks` has, added to `out`, which is zero.
// From the last block to the first (H. Rauch, F. Tung, C. Striebel, AIAA J. 3 (1965) 1445; K.
// Takahashi et al., 8th PICA (1973) 63), with K_b = W_b L_b⁻¹:
//   Σ[b+1, b] = −Σ[b+1, b+1] K_b,    Σ[b, b] = L_b⁻ᵀL_b⁻¹ + K_bᵀ Σ[b+1, b+1] K_b
// Linear in the number of blocks: 2/3·size³ flops, and size²·next·2 + size·next²·2 with neighbours.
template <class T>
void tridiagonal_inverse(const Blocks<T>& blocks, const Chain<T>& chain, const T* factor, T* out,
                         int threads);

// 1 / (‖A‖₁ · estimate of ‖A⁻¹‖₁); see condition.hpp.
template <class T>
double tridiagonal_rcond(const Chain<T>& chain, const T* factor, double norm1, int threads);

}  // namespace fastfisher
