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

template <class S>
Report nonfinite_report(const ConstMatrix<S>& scores) {
  Report report;
  if (find_nonfinite(scores, report.row, report.col)) report.status = Status::NonFinite;
  return report;
}

}  // namespace

template <class T, class S>
Report accumulate(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                  bool fresh, bool check_finite, int threads) {
  if (check_finite && !fresh && !works_by_slabs<T>(scores.rows(), scores.cols())) {
    const Report report = nonfinite_report(scores);
    if (!report.ok()) return report;
  }
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Operand<T, S> Y{scores};
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  const Report report = symmetric_product(Y, triangle, check_finite, threads);
  return report.ok() ? report : nonfinite_report(scores);
}

template <class T, class S>
Report gram(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
            bool check_finite, int threads) {
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Operand<T, S> Y{ConstMatrix<S>(scores.data(), scores.cols(), scores.rows(),
                                 Strides(scores.colStride(), scores.rowStride()))};
  Y.scale_by_column = roots.data();
  Y.shift_by_depth = mean;
  const Report report = symmetric_product(Y, triangle, check_finite, threads);
  return report.ok() ? report : nonfinite_report(scores);
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
