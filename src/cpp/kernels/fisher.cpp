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
Report overflow(const T* triangle, Index params) {
  for (Index j = 0; j < params; ++j) {
    const T sum = triangle[triangle_at<T>(j, j)];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }
  return {};
}

}  // namespace

template <class T, class S>
Report accumulate(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                  bool fresh, bool check_finite, int threads) {
  if (check_finite && !fresh && !works_by_slabs<T>(scores.rows(), scores.cols())) {
    const Report report = find_nonfinite(scores, threads);
    if (!report.ok()) return report;
  }
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Operand<T, S> Y{scores};
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  const Report seen = symmetric_product(Y, triangle, check_finite, threads);
  if (seen.ok() && check_finite && fresh) return overflow(triangle, scores.cols());
  return named(seen, scores, threads);
}

template <class T, class S>
Report gram(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
            bool check_finite, int threads) {
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Operand<T, S> Y{ConstMatrix<S>(scores.data(), scores.cols(), scores.rows(),
                                 Strides(scores.colStride(), scores.rowStride()))};
  Y.scale_by_column = roots.data();
  Y.shift_by_depth = mean;
  const Report seen = symmetric_product(Y, triangle, check_finite, threads);
  if (seen.ok() && check_finite) return overflow(triangle, scores.rows());
  return named(seen, scores, threads);
}

template Report accumulate(const ConstMatrix<double>&, const double*, const double*, double*, bool,
                           bool, int);
template Report accumulate(const ConstMatrix<float>&, const double*, const double*, double*, bool,
                           bool, int);
template Report accumulate(const ConstMatrix<float>&, const float*, const float*, float*, bool,
                           bool, int);
template Report gram(const ConstMatrix<double>&, const double*, const double*, double*, bool, int);
template Report gram(const ConstMatrix<float>&, const double*, const double*, double*, bool, int);
template Report gram(const ConstMatrix<float>&, const float*, const float*, float*, bool, int);

}  // namespace fastfisher
