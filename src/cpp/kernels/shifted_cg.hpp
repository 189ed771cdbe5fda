// Conjugate gradients for a path of dampings: all shifted systems share one Krylov space.
#pragma once

#include "cg.hpp"

namespace fastfisher {

// Solves (A + λᵢ I) xᵢⱼ = bⱼ for every damping λᵢ ≥ 0 and every right-hand side bⱼ.
//
//   β₊ v₊ = A v − α v − β v₋,  α = vᵀAv              Lanczos from v = b/‖b‖, the same for every λ
//   δ = α + λ − β²/δ₋,  x ← x + d/δ                  the pivots and steps of each λ
//   σ ← −β₊σ/δ,  d ← σ v₊ + (β₊/δ)² d                its residual σ v₊ and its next direction
//
// Equivalent to [np.linalg.solve(A + l * I, B) for l in dampings].
//
//   apply     (p, m) → (p, m), A alone    dampings  (m,)    B  (p, k)
//   out       (p, m·k): column i·k + j is xᵢⱼ               outcome  (m·k,), in that order
//
// Each iteration calls apply once, for all right-hand sides at work, so the whole path takes as
// many products as its hardest system. At the end one block product gives the true residual of
// every xᵢⱼ; where it disagrees with the recurrence, conjugate_gradients goes on from xᵢⱼ alone. A
// system that fails stops by itself: its outcome is named as in cg.hpp and harms no other.
// The preconditioner is the identity: any other would need a space of its own for every λ.
//
// ‖bⱼ‖ is the unit of all vectors, so no scale of B is special. 8·p flops per system and iteration
// beside the product, parallel over systems: same bits for any thread count. 2·p·m·k words of
// memory. The callback may throw; out is then undefined.
//
// A. Frommer and P. Maass, "Fast CG-based methods for Tikhonov–Phillips regularization", SIAM J.
// Sci. Comput. 20 (1999) 1831; B. Jegerlehner, arXiv:hep-lat/9612014.
template <class T>
void shifted_conjugate_gradients(const BlockOperator<T>& apply, const double* dampings, Index count,
                                 ConstMatrix<T> B, const CgLimits& limits, Matrix<T> out,
                                 CgOutcome* outcome, int threads);

}  // namespace fastfisher
