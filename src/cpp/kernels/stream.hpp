// One-pass kernels on the scores, bound by memory bandwidth: mean, diagonal, products with vectors.
//
// Everywhere: scores (n, p) of type S with any element strides; weights (n,), mean (p,), right-hand
// sides and results of the accumulation type A, which is S or, for float scores, double; nullptr
// where weights or mean are not given. Nothing of size n·p is ever formed.
//
// Threads take slabs of rows. How rows are cut depends on the shape alone and the slabs' results
// are added in their order, so the bits do not depend on the number of threads (0: the default).
#pragma once

#include "report.hpp"
#include "types.hpp"

namespace fastfisher {

// Σ w in double, n without weights; in blocks, so that the error grows with their number alone.
template <class W>
double weight_sum(const W* weights, Index n) {
  if (!weights) return static_cast<double>(n);
  constexpr Index block = 256;
  double total = 0.0;
  for (Index begin = 0; begin < n; begin += block) {
    double part = 0.0;
    for (Index i = begin; i < begin + block && i < n; ++i) part += static_cast<double>(weights[i]);
    total += part;
  }
  return total;
}

// out = Σ w s / Σ w                                  np.average(S, axis=0, weights=w)
//
//   scores  (n, p)    weights  (n,)    out  (p,)
//
// out overlaps nothing. float scores are summed in double. Where Σ w = 0 (no rows) out is zero.
// 2·n·p flops, n·p scores read. NonFinite (only with check_finite) names the first NaN or Inf of
// the scores or, with row -1, the first column whose finite scores overflow; out is then undefined.
// The check costs O(p): one bad score makes its column's sum bad, and only then is the matrix
// searched.
template <class S, class A>
Report column_mean(ConstMatrix<S> scores, const A* weights, A* out, bool check_finite, int threads);

// out = Σ w (s − m)²                                 w @ (S - m) ** 2
//
//   scores  (n, p)    weights  (n,)    mean  (p,)    out  (p,)
//
// out overlaps nothing. float scores are summed in double. 4·n·p flops, n·p scores read. Failure as
// in column_mean.
template <class S, class A>
Report diagonal(ConstMatrix<S> scores, const A* weights, const A* mean, A* out, bool check_finite,
                int threads);

// out = scale Σ w (s − m) ((s − m)ᵀ V) + damping V
//     X = S - m;  scale * X.T @ (w[:, None] * (X @ V)) + damping * V
//
//   scores  (n, p)    weights  (n,)    mean  (p,)    V  (p, k)    out  (p, k)
//
// out may be V. 4·n·p·k flops; the scores are read from memory once for every 8 right-hand sides: a
// block of rows gives t = (S − m)V, then, from cache, (S − m)ᵀ(w t). Cannot fail.
template <class S, class A>
void fvp(ConstMatrix<S> scores, const A* weights, const A* mean, ConstMatrix<A> V, double scale,
         double damping, Matrix<A> out, int threads);

// out = (S − 1mᵀ) V                                  (S - m) @ V
//
//   scores  (n, p)    mean  (p,)    V  (p, k)    out  (n, k)
//
// out overlaps nothing. 2·n·p·k flops, scores read once for every 8 columns of V. Cannot fail.
template <class S, class A>
void scores_dot(ConstMatrix<S> scores, const A* mean, ConstMatrix<A> V, Matrix<A> out, int threads);

// out = (S − 1mᵀ)ᵀ diag(w) Y                         (S - m).T @ (w[:, None] * Y)
//
//   scores  (n, p)    weights  (n,)    mean  (p,)    Y  (n, k)    out  (p, k)
//
// out overlaps nothing. 2·n·p·k flops, scores read once for every 8 columns of Y. Cannot fail.
template <class S, class A>
void scores_transpose_dot(ConstMatrix<S> scores, const A* weights, const A* mean, ConstMatrix<A> Y,
                          Matrix<A> out, int threads);

}  // namespace fastfisher
