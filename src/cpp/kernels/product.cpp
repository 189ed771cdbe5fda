// The general product XᵀY on the engine.
#include "product.hpp"

#include <algorithm>

#include "schedule.hpp"

namespace fastfisher {

template <class T, class S>
void add_product(const Operand<T, S>& X, const Operand<T, S>& Y, Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = X.depth(), m = X.columns(), q = Y.columns();
  if (m == 0 || q == 0) return;
  threads = useful_threads(
      threads, 2.0 * static_cast<double>(depth) * static_cast<double>(m) * static_cast<double>(q));
  const Index rows = std::min<Index>(2 * kDepth, std::max<Index>(depth, 1)),
              chunks = ceil_div(depth, rows);
  const Index panels = panel_count<T>(m), columns = panel_count<T>(q), stride = rows * W;
  const Index across = std::clamp<Index>(panels / 4, 1, kTilePanels),
              along = std::clamp<Index>(columns / 4, 1, kTilePanels);
  const Index x_groups = ceil_div(panels, across), y_groups = ceil_div(columns, along);
  Buffer<T> buffer(2 * (panels + columns) * stride), result(panels * columns * W * W);
  result.zero();

  const auto x_data = [&](Index chunk) {
    return buffer.data() + chunk % 2 * (panels + columns) * stride;
  };
  const auto y_data = [&](Index chunk) { return x_data(chunk) + panels * stride; };
  const auto chunk_rows = [&](Index chunk) { return std::min(rows, depth - chunk * rows); };
  run_chunks(
      threads, chunks, x_groups + y_groups, x_groups * y_groups,
      [&](Index chunk, Index g) {
        const bool is_x = g < x_groups;
        const Index step = is_x ? across : along, i0 = (is_x ? g : g - x_groups) * step;
        const Index some = std::min(step, (is_x ? panels : columns) - i0);
        pack_panels(is_x ? X : Y, chunk * rows, chunk_rows(chunk), i0, some,
                    (is_x ? x_data(chunk) : y_data(chunk)) + i0 * stride, stride);
      },
      [&](Index chunk, Index t) {
        const Index i0 = t % x_groups * across, i1 = std::min(i0 + across, panels);
        const Index c0 = t / x_groups * along * W, c1 = std::min(c0 + along * W, q);
        for (Index k = 0; k < chunk_rows(chunk); k += kDepth) {
          const Index some = std::min(kDepth, chunk_rows(chunk) - k);
          for (Index c = c0; c < c1; c += kColumns)
            for (Index i = i0; i < i1; ++i)
              multiply_panel<T, W, 1>(some, x_data(chunk) + i * stride + k * W,
                                      y_data(chunk) + c / W * stride + k * W + c % W,
                                      result.data() + (i * columns * W + c) * W, T(1), 0,
                                      panel_rows<T>(i, m));
        }
      });
  run_in_order(threads, panels, [&](Index i, int) {
    for (Index r = 0; r < std::min<Index>(W, m - i * W); ++r)
      for (Index c = 0; c < q; ++c) out(i * W + r, c) += result[(i * columns * W + c) * W + r];
  });
}

template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads) {
  out.setZero();
  add_product(Operand<T>{X}, Operand<T>{Y}, out, threads);
}

template void product(const ConstMatrix<double>&, const ConstMatrix<double>&, Matrix<double>, int);
template void product(const ConstMatrix<float>&, const ConstMatrix<float>&, Matrix<float>, int);
#define FASTFISHER_INSTANTIATE(S, T) \
  template void add_product(const Operand<T, S>&, const Operand<T, S>&, Matrix<T>, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
