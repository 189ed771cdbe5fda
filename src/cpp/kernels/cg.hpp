// Preconditioned conjugate gradients on blocks of right-hand sides, each with its own steps.
#pragma once

#include <algorithm>
#include <functional>

#include "report.hpp"
#include "types.hpp"

namespace fastfisher {

// out = A V for a symmetric positive definite A, or out = M⁻¹ V; V and out (p, m) with row stride
// 1, for whatever number m of columns is still at work. V and out never overlap.
template <class T>
using BlockOperator = std::function<void(ConstMatrix<T> V, Matrix<T> out)>;

struct CgLimits {
  double rtol;
  double atol;
  Index max_iterations;
};

// How one column ended. residual is ‖b − Ax‖ / ‖b‖ of the x returned, computed afresh from A.
//   Success            ‖b − Ax‖ ≤ max(rtol ‖b‖, atol), by the true residual
//   MaxIterations      that many steps were taken before
//   NegativeCurvature  a direction with dᵀAd ≤ 0 beyond rounding: A is not positive definite (or
//                      rᵀM⁻¹r ≤ 0: M is not). x is the iterate before that direction
//   Stagnated          the true residual no longer follows: the tolerance is below what A's
//                      conditioning allows, or A is singular to working precision
//   NonFinite          NaN or Inf appeared in b or in a product. x is the last finite iterate
struct CgOutcome {
  Status status = Status::Success;
  Index iterations = 0;
  double residual = 0.0;
};

// Solves A X = B column by column, all columns in one operator call per iteration.
//
//   x ← x + α d,  r ← r − α A d,  α = rᵀz / dᵀAd,      z = M⁻¹ r,      d ← z + β d,  β = r₊ᵀz₊ /
//   rᵀz
//
// Equivalent to scipy.sparse.linalg.cg(A, b, x0, rtol, atol, maxiter, M) for each column.
//
//   apply         (p, m) → (p, m)      precondition  the same, or empty: M = I
//   B, X0         (p, k)               X0 nullptr: start from zero
//   out           (p, k)               outcome  (k,)
//
// Departures from the textbook:
//   1. When the recurrence claims convergence the residual is computed afresh, as a column of the
//      next operator call. Where it does not agree CG starts again from it, at most 3 times.
//   2. A column that has ended leaves the block: later calls are cheaper, and no column waits.
//   3. Dot products are summed in double, in a fixed order.
//   4. b = 0 gives x = 0 whatever X0 is.
//
// With `shifts` (k,) column j solves (A + shifts[j] I) x = b; the products stay those of A.
// out may be B or X0. One call of apply per iteration and two or so besides; 10·p·k flops of its
// own in one thread. The callbacks may throw; out is then undefined.
template <class T>
void conjugate_gradients(const BlockOperator<T>& apply, const BlockOperator<T>& precondition,
                         ConstMatrix<T> B, const ConstMatrix<T>* X0, const CgLimits& limits,
                         Matrix<T> out, CgOutcome* outcome, const double* shifts = nullptr);

// Steps without halving the residual after which a column has stagnated: exact arithmetic ends in
// p.
inline Index patience(Index params) { return std::max<Index>(100, 2 * params); }

// A = scale Σ w (s − m)(s − m)ᵀ + diag(damping), never formed: a product is one pass over the
// scores for every 8 columns. The operator refers to its arrays.
//
//   scores  (n, p)    weights  (n,)    mean  (p,)    damping  (p,), nullptr for zero
//
// The bits do not depend on the number of threads.
template <class S, class A>
BlockOperator<A> scores_operator(ConstMatrix<S> scores, const A* weights, const A* mean,
                                 double scale, const A* damping, int threads);

// A = scale T + diag(damping), T the panel triangle; else as scores_operator.
template <class T>
BlockOperator<T> triangle_operator(const T* triangle, Index params, double scale, const T* damping,
                                   int threads);

// M⁻¹ = diag(diagonal)⁻¹, the Jacobi preconditioner; empty for nullptr.
template <class T>
BlockOperator<T> jacobi_operator(const T* diagonal);

}  // namespace fastfisher
