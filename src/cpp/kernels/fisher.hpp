// The empirical Fisher and its dual, the Gram matrix: scores in, panel triangle out.
#pragma once

#include "product.hpp"

namespace fastfisher {

// triangle += Σᵢ wᵢ (sᵢ - m)(sᵢ - m)ᵀ;  np.tril((w[:, None] * (S - m)).T @ (S - m)).
//   S        (n, p)   scores, any strides, of type Source ∈ {T, narrower}
//   weights  (n,)     ≥ 0, or null for ones
//   mean     (p,)     or null for zero
//   triangle          panel triangle of size p; `fresh` promises that it is zero
// A complex S is its real form of 2p columns, real and imaginary parts in turn: so are mean and
// triangle, of size 2p; hermitian.hpp makes a Hermitian matrix of it.
// No (n, p) temporary: √w and m are applied while packing. n·p·(p+1) flops, one read of S; one
// more, in advance, for what is not `fresh` and not tall, since nothing may be added before all is
// known to be finite.
// NonFinite names the first bad (row, col) of S or, with row -1, the first column where finite
// scores overflow; the triangle is then unchanged unless `fresh`. A sum that overflows because of
// what the triangle held before is seen for tall S alone.
template <class T, class S>
Report accumulate(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                  bool fresh, bool check_finite, int threads);

// The same in a triangle of zeros, by Strassen's products from `least` parameters and samples on:
// up to 1/7 fewer flops, and an error bound for the largest entry only (strassen.hpp). NonFinite as
// above; the triangle is then undefined.
template <class T, class S>
Report accumulate_fast(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                       Index least, bool check_finite, int threads);

// Σ wᵢ (sᵢ - m)(sᵢ - m)ᵀ added about the mean m of these samples, which is written to `mean` (p,):
//   m = np.average(S, axis=0, weights=w)
// One read of S as a rule: sums are taken about the mean of 64 rows, and what that lacks is taken
// out at the end. Where it is further from m than the scores are from each other, all is done once
// more about m, so no offset and no drift costs digits. No samples, or no weight: m is zero.
template <class T, class S>
Report accumulate_centred(const ConstMatrix<S>& scores, const T* weights, T* mean, T* triangle,
                          bool fresh, bool check_finite, int threads);

// triangle += W½ (S - m)(S - m)ᵀ W½ (n, n);  np.tril(np.sqrt(np.outer(w, w)) * ((S - m) @ (S -
// m).T)). Shapes and failure as above; the triangle, of size n (2n
// for a complex S), must be zero. n·(n+1)·p flops.
template <class T, class S>
Report gram(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
            bool check_finite, int threads);

}  // namespace fastfisher
