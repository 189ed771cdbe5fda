// Roots of weights and means of samples.
#include "samples.hpp"

#include <algorithm>

#include "stream.hpp"

namespace fastfisher {

namespace {

// Rows of a provisional mean.
constexpr Index kProvisionalRows = 64;

}  // namespace

template <class T>
Buffer<T> square_roots(const T* weights, Index samples) {
  if (!weights) return {};
  Buffer<T> roots(samples);
  Vector<T>(roots.data(), samples) = ConstVector<T>(weights, samples).cwiseSqrt();
  return roots;
}

template <class T, class S>
void provisional_mean(const Operand<T, S>& Y, const T* weights, T* mean) {
  const Index n = Y.depth(), p = Y.columns(), step = std::max<Index>(1, n / kProvisionalRows);
  Buffer<double> sums(p);
  sums.zero();
  double rows = 0;
  for (Index k = 0; k < n; k += step) {
    if (weights && !(weights[k] > T(0))) continue;
    const S* row = Y.X.data() + k * Y.X.rowStride();
    for (Index j = 0; j < p; ++j)
      sums[j] += static_cast<double>(row[j / Y.parts * Y.X.colStride() + j % Y.parts]);
    ++rows;
  }
  for (Index j = 0; j < p; ++j) {
    mean[j] = static_cast<T>(sums[j] / std::max(rows, 1.0));
    if (!std::isfinite(mean[j])) mean[j] = T(0);
  }
}

template <class T, class S>
Report mean_of(const Operand<T, S>& Y, const T* weights, T* mean, bool check_finite, int threads) {
  const Index params = Y.X.cols();
  if (Y.parts == 1) return column_mean<S, T>(Y.X, weights, mean, check_finite, threads);
  Buffer<T> part(params);
  for (Index c = 0; c < 2; ++c) {
    const Strides strides(Y.X.rowStride(), Y.X.colStride());
    const ConstMatrix<S> X(Y.X.data() + c, Y.depth(), params, strides);
    const Report report = column_mean<S, T>(X, weights, part.data(), check_finite, threads);
    if (!report.ok()) return {report.status, -1, 2 * report.col, report.value};
    for (Index j = 0; j < params; ++j) mean[2 * j + c] = part[j];
  }
  return {};
}

#define FASTFISHER_INSTANTIATE(S, T)                                  \
  template void provisional_mean(const Operand<T, S>&, const T*, T*); \
  template Report mean_of(const Operand<T, S>&, const T*, T*, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE
template Buffer<double> square_roots(const double*, Index);
template Buffer<float> square_roots(const float*, Index);

}  // namespace fastfisher
