// The scores of a layer, sᵢ = vec(Σ_t g_it a_itᵀ): products, squares and Gram matrix without them.
#pragma once

#include "patches.hpp"

namespace fastfisher {

// Everywhere: a (n·T, d_in) and g (n·T, d_out) are the two sides of a layer, patches.hpp; vec is
// the C-order ravel of the (d_out, d_in) matrix. Every verb runs on the product engine, takes
// scratch of a bounded size whatever n, and has the same bits for any thread count. None can fail
// but for a lack of memory: NaN and infinity end in what they touch.

// out_i = Σ_t g_itᵀ V a_it;  np.einsum("ito,oc,itc->i", g, V, a).
//   V  (d_out, d_in) any strides      out  (n,) `step` apart
// G V (or A Vᵀ, whichever is narrower) in blocks of rows, each then contracted with the other side
// while in cache. 2·n·T·d_out·d_in flops.
template <class T>
void layer_dot(const Patches<T>& a, const Patches<T>& g, const ConstMatrix<T>& V, T* out,
               Index step, int threads);

// out = Σ_i w_i (Σ_t g_it a_itᵀ)²;  np.einsum("i,ioc->oc", w, np.einsum("ito,itc->ioc", g, a)**2).
//   weights  (n,) or null      out  (d_out, d_in) any strides
// T = 1: one product of squares formed while packing. T > 1: each tile of the matrix of a sample is
// formed in cache, squared and added. 2·n·T·d_out·d_in flops.
template <class T>
void layer_squares(const Patches<T>& a, const Patches<T>& g, const T* weights, Matrix<T> out,
                   int threads);

// The same in the bases U_g (d_out, d_out), U_a (d_in, d_in), orthogonal: of U_gᵀ (Σ_t g aᵀ) U_a.
// Rows are rotated in blocks. 2·n·T·(d_out² + d_in²) flops more.
template <class T>
void layer_squares_rotated(const Patches<T>& a, const Patches<T>& g, const T* weights,
                           const ConstMatrix<T>& U_a, const ConstMatrix<T>& U_g, Matrix<T> out,
                           int threads);

// triangle += K, K_ij = s_i · s_j, of size n;  np.tril(S @ S.T).
// By flops, from shapes alone: (A Aᵀ) ∘ (G Gᵀ) in tiles, summed over positions, n²T²(d_in + d_out);
// or blocks of the scores' columns, formed and multiplied, 2nT·d_in·d_out + n²·d_in·d_out.
template <class T>
void layer_gram(const Patches<T>& a, const Patches<T>& g, T* triangle, int threads);

}  // namespace fastfisher
