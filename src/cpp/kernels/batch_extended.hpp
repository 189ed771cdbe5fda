// Small positive definite systems in double-double arithmetic, with proven error bounds.
#pragma once

#include <cstdint>

#include "lanes.hpp"

namespace fastfisher {

// For each b, with A = F_b + diag(damping_b) and F_b = hi_b + lo_b, or Σ_i s_bi s_biᵀ · scale of
// scores summed in double-double (scale = 1/n if `mean`):
//   rhs.data given:  X_b = A⁻¹ B_b    (count, p, k)
//   else             X_b = A⁻¹        (count, p, p)
// rounded to double at the end.
//
// matrix  (count, p, p) hi, of which the lower triangles are read, or the scores (count, n, p)
// lo      (count, p, p), data null for zeros
// bound   (count,)  of a solve: max_i |x_i − x̂_i| / max_i |x_i| of the worst column; of an inverse:
//                   ‖I − X A‖_∞ + 2⁻⁵³ of the equilibrated A, which bounds the relative error of X;
//                   infinity where nothing could be proven
// rcond   (count,)  1 / (‖A‖_∞ ‖A⁻¹‖_∞) of the equilibrated A
//
// Algorithm, on V matrices at a time: equilibrate by powers of two (exact); L D Lᵀ; X = L⁻ᵀ D⁻¹
// L⁻¹; y = X b and two steps of refinement y += X (b − A y); all in double-double (u² = 2⁻¹⁰⁶).
// Proof. Let G = I − X A, r = b − A ŷ and e = y − ŷ. From e = X r + G e:
//   ‖e‖_∞ ≤ ‖X r‖_∞ / (1 − ‖G‖_∞)  and  |e_i| ≤ |X r|_i + Σ_j |G_ij| ‖e‖_∞,  if ‖G‖_∞ < 1.
// Every computed entry of G and r is off by at most (8 m + 16) u² times the sum of the absolute
// values of its m terms (a product errs by 7 u², a sum by 3 u²: Joldes, Muller and Popescu 2017,
// doi 10.1145/3121432), and sums of bounds are raised by more than their own rounding.
//
// A pivot ≤ p·2⁻¹⁰⁴·A_jj is NotPositiveDefinite. Bits depend on the item alone. Cost: about 2 p³
// double-double operations of some 25 flops each.
void batch_extended(const ConstBatch<double>& matrix, bool scores, bool mean,
                    const ConstBatch<double>& lo, const ConstBatch<double>& damping,
                    const ConstBatch<double>& rhs, double* out, std::int8_t* status, double* rcond,
                    double* bound, int threads);

}  // namespace fastfisher
