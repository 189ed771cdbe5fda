// Vectors of an iteration: dot products and norms in double, in an order fixed by the length.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "simd.hpp"
#include "types.hpp"

namespace fastfisher {

// xᵀy in double, in an order fixed by the length.
template <class T>
double dot(const T* x, const T* y, Index size) {
  constexpr int L = kLanes<double>, chains = 4;
  Vec<double> acc[chains];
  for (auto& a : acc) a = Vec<double>::zero();
  Index i = 0;
  for (; i + chains * L <= size; i += chains * L) {
    FASTFISHER_UNROLL
    for (int c = 0; c < chains; ++c)
      acc[c] = fma(Vec<double>::load(x + i + c * L), Vec<double>::load(y + i + c * L), acc[c]);
  }
  double total = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  for (; i < size; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return total;
}

// ‖x‖, also where ‖x‖² is beyond the numbers; NaN or Inf only where x has one.
template <class T>
double norm(const T* x, Index size) {
  const double square = dot(x, x, size);
  if (std::isfinite(square) && square > 1e-280) return std::sqrt(square);
  double largest = 0.0;
  for (Index i = 0; i < size; ++i) {
    const double a = std::abs(static_cast<double>(x[i]));
    if (!(a <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::quiet_NaN();
    largest = std::max(largest, a);
  }
  if (largest == 0.0) return 0.0;
  double total = 0.0;
  for (Index i = 0; i < size; ++i) total += std::pow(static_cast<double>(x[i]) / largest, 2);
  return largest * std::sqrt(total);
}

template <class T>
bool all_finite(const T* x, Index size) {
  return std::all_of(x, x + size, [](T value) { return std::isfinite(value); });
}

}  // namespace fastfisher
