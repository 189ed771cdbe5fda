// The empirical Fisher and its dual, on the product engine.
#include "fisher.hpp"

#include <algorithm>
#include <cmath>

#include "samples.hpp"
#include "strassen.hpp"
#include "stream.hpp"

namespace fastfisher {

namespace {

// The entry of a Hermitian diagonal is the sum of two, which may overflow where neither does.
template <class S, class T>
Report overflow_of_pairs(const T* triangle, Index params) {
  for (Index j = 0; kParts<S> == 2 && j < params; ++j) {
    const T sum =
        triangle[triangle_at<T>(2 * j, 2 * j)] + triangle[triangle_at<T>(2 * j + 1, 2 * j + 1)];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }
  return {};
}

// Takes what is left of the mean out of sums about `mean`. False, with nothing taken out, where
// that would cancel and this is not the last try: then `mean` has become the mean, and the sums
// should be taken again about it.
template <class T>
bool take_out_mean(double weight, const double* sums, bool last_try, T* mean, T* triangle,
                   Index params, int threads) {
  Buffer<T> rest(params);
  const auto spread = [&](Index j) { return triangle[triangle_at<T>(j, j)]; };
  const bool near = settle_mean(weight, sums, params, spread, mean, rest.data());
  if (!near && !last_try) return false;
  triangle_add_outer(triangle, params, rest.data(), -weight, threads);
  for (Index j = 0; j < params; ++j) {
    T& variance = triangle[triangle_at<T>(j, j)];
    if (variance < T(0)) variance = T(0);
  }
  return true;
}

}  // namespace

template <class T, class S>
Report accumulate(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                  bool fresh, bool check_finite, int threads) {
  auto Y = operand_of<T>(scores);
  const bool undone = fresh || works_by_slabs<T>(Y.depth(), Y.columns());
  if (check_finite && !undone) {
    const Report report = find_nonfinite(scores, threads);
    if (!report.ok()) return report;
  }
  const Buffer<T> roots = square_roots(weights, scores.rows());
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  const Report seen =
      symmetric_product(flattened(Y), triangle, nullptr, check_finite && undone, threads);
  if (seen.ok() && check_finite && fresh) return overflow_of_pairs<S>(triangle, scores.cols());
  return named(seen, scores, threads);
}

template <class T, class S>
Report accumulate_fast(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
                       Index least, bool check_finite, int threads) {
  const Buffer<T> roots = square_roots(weights, scores.rows());
  auto Y = operand_of<T>(scores);
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  return named(symmetric_product_fast(Y, triangle, least, check_finite, threads), scores, threads);
}

template <class T, class S>
Report accumulate_centred(const ConstMatrix<S>& scores, const T* weights, T* mean, T* triangle,
                          bool fresh, bool check_finite, int threads) {
  auto Y = operand_of<T>(scores);
  const Index n = Y.depth(), p = Y.columns();
  const double weight = weight_sum(weights, n);
  if (p == 0) return {};
  if (!(weight > 0)) {
    std::fill_n(mean, p, T(0));
    return {};
  }
  const bool slabs = works_by_slabs<T>(n, p);
  if (!fresh && !slabs) {  // nothing may be added before all is known to be finite
    const Report report = mean_of(flattened(Y), weights, mean, check_finite, threads);
    return report.ok() ? accumulate(scores, weights, mean, triangle, false, false, threads)
                       : named(report, scores, threads);
  }
  Buffer<T> own(fresh ? 0 : triangle_size<T>(p));
  own.zero();
  T* sums = fresh ? triangle : own.data();
  Buffer<double> column_sums(panel_count<T>(p) * kPanel<T>);
  const Buffer<T> roots = square_roots(weights, n);
  provisional_mean(Y, weights, mean);
  Y.scale_by_depth = roots.data();
  Y.shift_by_column = mean;
  for (bool done = false, last_try = false; !done; last_try = true) {
    if (last_try) std::fill_n(sums, triangle_size<T>(p), T(0));
    column_sums.zero();
    const Report seen =
        symmetric_product(flattened(Y), sums, column_sums.data(), check_finite, threads);
    if (!seen.ok()) return named(seen, scores, threads);
    done = take_out_mean(weight, column_sums.data(), last_try, mean, sums, p, threads);
  }
  if (!fresh) Vector<T>(triangle, own.size()) += ConstVector<T>(own.data(), own.size());
  return check_finite && fresh ? overflow_of_pairs<S>(triangle, scores.cols()) : Report{};
}

template <class T, class S>
Report gram(const ConstMatrix<S>& scores, const T* weights, const T* mean, T* triangle,
            bool check_finite, int threads) {
  const Buffer<T> roots = square_roots(weights, scores.rows());
  auto Y = operand_of<T>(ConstMatrix<S>(scores.data(), scores.cols(), scores.rows(),
                                        Strides(scores.colStride(), scores.rowStride())));
  Y.scale_by_column = roots.data();
  Y.shift_by_depth = mean;
  const Report seen = symmetric_product(flattened(Y), triangle, nullptr, check_finite, threads);
  if (seen.ok() && check_finite) return overflow_of_pairs<S>(triangle, scores.rows());
  return named(seen, scores, threads);
}

#define FASTFISHER_INSTANTIATE(S, T)                                                            \
  template Report accumulate(const ConstMatrix<S>&, const T*, const T*, T*, bool, bool, int);   \
  template Report accumulate_centred(const ConstMatrix<S>&, const T*, T*, T*, bool, bool, int); \
  template Report gram(const ConstMatrix<S>&, const T*, const T*, T*, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
FASTFISHER_FOR_COMPLEX(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE
#define FASTFISHER_INSTANTIATE(S, T) \
  template Report accumulate_fast(const ConstMatrix<S>&, const T*, const T*, T*, Index, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
