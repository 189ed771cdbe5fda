// Solves with a block-diagonal matrix: every block is a substitution of its own.
#include "blocks.hpp"

#include <algorithm>
#include <vector>

#include "parallel.hpp"
#include "substitution.hpp"

namespace fastfisher {

template <class T>
void blocks_solve(const T* L, const Index* sizes, Index count, const ConstMatrix<T>& B,
                  Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>;
  std::vector<Index> row(static_cast<std::size_t>(count)), at(static_cast<std::size_t>(count));
  Index rows = 0, entries = 0, largest = 0;
  for (Index i = 0; i < count; ++i) {
    row[static_cast<std::size_t>(i)] = rows;
    at[static_cast<std::size_t>(i)] = entries;
    rows += sizes[i];
    entries += triangle_size<T>(sizes[i]);
    largest = std::max(largest, panel_count<T>(sizes[i]) * W * W);
  }
  // A few right-hand sides of a few blocks are done before a second thread is awake.
  threads = 2 * entries * B.cols() < (Index{1} << 21) ? 1 : team_size(threads);
  Buffer<T> scratch(threads * largest);
  run_in_order(threads, count, [&](Index i, int thread) {
    const Index first = row[static_cast<std::size_t>(i)], size = sizes[i];
    const Factor<T> factor{const_cast<T*>(L + at[static_cast<std::size_t>(i)]), size};
    T* R = scratch.data() + thread * largest;
    for (Index q0 = 0; q0 < B.cols(); q0 += W) {
      const Index columns = std::min(W, B.cols() - q0), lanes = panel_rows<T>(0, columns);
      std::fill_n(R, factor.panels() * W * W, T(0));
      for (Index k = 0; k < size; ++k)
        for (Index q = 0; q < columns; ++q) R[k * W + q] = B(first + k, q0 + q);
      forward(factor, 0, R, lanes);
      backward(factor, R, lanes);
      for (Index k = 0; k < size; ++k)
        for (Index q = 0; q < columns; ++q) out(first + k, q0 + q) = R[k * W + q];
    }
  });
}

template void blocks_solve(const double*, const Index*, Index, const ConstMatrix<double>&,
                           Matrix<double>, int);
template void blocks_solve(const float*, const Index*, Index, const ConstMatrix<float>&,
                           Matrix<float>, int);

}  // namespace fastfisher
