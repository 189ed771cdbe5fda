// What every sum over samples starts and ends with: roots of weights, a first mean, the place of
// trouble.
#pragma once

#include <cmath>
#include <limits>

#include "memory.hpp"
#include "pack.hpp"
#include "report.hpp"

namespace fastfisher {

// √w, or nothing for null.
template <class T>
Buffer<T> square_roots(const T* weights, Index samples);

// mean[j] = the mean of some 64 rows that count, evenly spread: near enough to the mean of all
// where a column is not mostly noise about a wandering level. Zero where they are not finite, which
// is found later.
template <class T, class S>
void provisional_mean(const Operand<T, S>& Y, const T* weights, T* mean);

// The mean of all, of real and imaginary parts apart where they are pairs. One read of the scores.
template <class T, class S>
Report mean_of(const Operand<T, S>& Y, const T* weights, T* mean, bool check_finite, int threads);

// Brings `mean` to the mean m of the samples from Σ w (s − mean) in `sums`: mean += d, rest = d.
// Sums of squares about the old mean then lack one term,
//   Σ w (s − m)(s − m)ᵀ = Σ w (s − mean)(s − mean)ᵀ − (Σ w) d dᵀ,
// and false says that taking it out would cancel more than two bits of some spread(j), the j-th
// sum of squares.
template <class T, class Spread>
bool settle_mean(double weight, const double* sums, Index params, Spread&& spread, T* mean,
                 T* rest) {
  bool near = true;
  for (Index j = 0; j < params; ++j) {
    const double d = sums[j] / weight, size = std::abs(static_cast<double>(mean[j]));
    const double rounding = 4 * std::numeric_limits<T>::epsilon() * size;
    near = near &&
           (std::abs(d) <= rounding || weight * d * d <= 0.75 * static_cast<double>(spread(j)));
    rest[j] = static_cast<T>(d);
    mean[j] = static_cast<T>(static_cast<double>(mean[j]) + d);
  }
  return near;
}

// The place of what spoilt a sum; where every score is finite the sum itself overflowed.
template <class S>
Report named(Report seen, const ConstMatrix<S>& scores, int threads) {
  if (seen.ok()) return seen;
  const Report place = find_nonfinite(scores, threads);
  seen.col /= kParts<S>;
  return place.ok() ? seen : place;
}

}  // namespace fastfisher
