// The empirical Fisher and its dual, on the product engine.
#include "fisher.hpp"

#include <cmath>

namespace fastfisher {

namespace {

template <class T>
Buffer<T> square_roots(const T* weights, Index samples) {
  if (!weights) return {};
  Buffer<T> roots(samples);
  Vector<T>(roots.data(), samples) = ConstVector<T>(weights, samples).cwiseSqrt();
  return roots;
}

// The place of what packing saw; a search that finds nothing does not undo the failure.
template <class S>
Report named(const Report& seen, const ConstMatrix<S>& scores, int threads) {
  if (seen.ok()) return seen;
  const Report place = find_nonfinite(scores, threads);
  return place.ok() ? seen : place;
}

// Row -1 and the first column where a sum of finite scores overflowed; a bad sum spoils its
// diagonal.
template <class T>
Report overflow(const T* triangle, Index params, Index parts) {
  for (Index j = 0; j < params; ++j) {
    T sum = 0;
    for (Index k = j * parts; k < (j + 1) * parts; ++k) sum += triangle[triangle_at<T>(k, k)];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }
  return {};
}

}  // namespace

template <class T, class S>
Report accumulate(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                  bool fresh, bool check_finite, int threads) {
  auto Y = operand_of<T>(scores);
  if (check_finite && !fresh && !works_by_slabs<T>(Y.depth(), Y.columns())) {
    const Report report = find_nonfinite(scores, threads);
    if (!report.ok()) return report;
  }
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  const Report seen = symmetric_product(flattened(Y), triangle, check_finite, threads);
  if (seen.ok() && check_finite && fresh) return overflow(triangle, scores.cols(), kParts<S>);
  return named(seen, scores, threads);
}

template <class T, class S>
Report gram(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
            bool check_finite, int threads) {
  const Buffer<T> roots = square_roots(weights, scores.rows());
  auto Y = operand_of<T>(ConstMatrix<S>(scores.data(), scores.cols(), scores.rows(),
                                        Strides(scores.colStride(), scores.rowStride())));
  Y.scale_by_column = roots.data();
  Y.shift_by_depth = mean;
  const Report seen = symmetric_product(flattened(Y), triangle, check_finite, threads);
  if (seen.ok() && check_finite) return overflow(triangle, scores.rows(), kParts<S>);
  return named(seen, scores, threads);
}

#define FASTFISHER_INSTANTIATE(S, T)                                                          \
  template Report accumulate(const ConstMatrix<S>&, const T*, const T*, T*, bool, bool, int); \
  template Report gram(const ConstMatrix<S>&, const T*, const T*, T*, bool, int);
FASTFISHER_INSTANTIATE(double, double)
FASTFISHER_INSTANTIATE(float, double)
FASTFISHER_INSTANTIATE(float, float)
FASTFISHER_INSTANTIATE(std::complex<double>, double)
FASTFISHER_INSTANTIATE(std::complex<float>, double)
FASTFISHER_INSTANTIATE(std::complex<float>, float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
