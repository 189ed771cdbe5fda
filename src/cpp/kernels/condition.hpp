// An estimate of a condition number from solves alone.
#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "types.hpp"

namespace fastfisher {

// Columns that a norm estimate works on: a substitution takes as long for eight as for one.
constexpr Index kProbes = 8;

// Unit 1-norm: the centre of the ball, Higham's alternating and growing vector (safe against
// cancellation), then signs from a generator, the same each time.
template <class T>
void fill_probes(Eigen::Ref<Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>> X) {
  const double size = static_cast<double>(X.rows()), last = std::max(1.0, size - 1.0);
  std::minstd_rand signs;
  for (Index j = 0; j < X.rows(); ++j)
    for (Index q = 0; q < X.cols(); ++q) {
      double x = 1.0;
      if (q == 1) x = (j % 2 ? -1.0 : 1.0) * (1.0 + static_cast<double>(j) / last) / 1.5;
      if (q > 1) x = signs() < std::minstd_rand::max() / 2 ? -1.0 : 1.0;
      X(j, q) = static_cast<T>(x / size);
    }
}

// 1 / (norm1 · estimate of ‖A⁻¹‖₁), by the block method of Higham and Tisseur (SIAM J. Matrix Anal.
// 21 (2000) 1185) with eight columns: three calls of solve(X), X = A⁻¹X for a row-major (params,
// k). The estimate is never above ‖A⁻¹‖₁ but for rounding. norm1 = ‖A‖₁; NaN where it is not known,
// which is then the answer.
template <class T, class Solve>
double reciprocal_condition(Index params, double norm1, Solve&& solve_in_place) {
  using Block = Eigen::Array<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  if (params == 0 || std::isnan(norm1)) return params == 0 ? 1.0 : norm1;
  Block X(params, std::min(kProbes, params));
  const auto solve = [&] {
    solve_in_place(Matrix<T>(X.data(), params, X.cols(), Strides(X.cols(), 1)));
  };
  const auto norm = [&] {
    return static_cast<double>(X.abs().template cast<double>().colwise().sum().maxCoeff());
  };
  // Maximise ‖A⁻¹x‖₁ over the unit 1-norm ball: from within it, then at its best vertices.
  fill_probes<T>(X);
  solve();
  double best = norm();
  X = (X < T(0)).select(Block::Constant(params, X.cols(), T(-1)),
                        Block::Constant(params, X.cols(), T(1)));
  solve();
  Eigen::Array<T, Eigen::Dynamic, 1> promise = X.abs().rowwise().maxCoeff();
  promise = promise.isNaN().select(T(0), promise);
  std::vector<Index> vertices(static_cast<std::size_t>(params));
  std::iota(vertices.begin(), vertices.end(), Index{0});
  std::partial_sort(
      vertices.begin(), vertices.begin() + X.cols(), vertices.end(),
      [&](Index a, Index b) { return promise[a] != promise[b] ? promise[a] > promise[b] : a < b; });
  X.setZero();
  for (Index q = 0; q < X.cols(); ++q) X(vertices[static_cast<std::size_t>(q)], q) = T(1);
  solve();
  best = std::max(best, norm());
  const double rcond = 1.0 / best / norm1;
  return std::isfinite(rcond) ? std::min(rcond, 1.0) : 0.0;
}

}  // namespace fastfisher
