// The general product XᵀY on the engine.
#include "product.hpp"

#include <algorithm>

#include "schedule.hpp"

namespace fastfisher {

template <class T>
void product_panels(const Source<T>& X, const Source<T>& Y, T* R, int threads) {
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
  Buffer<T> buffer(std::min<Index>(chunks, 2) * (panels + columns) * stride);
  Rooms<T> rooms(threads, std::max(X.room(), Y.room()));

  const auto x_data = [&](Index chunk) {
    return buffer.data() + chunk % 2 * (panels + columns) * stride;
  };
  const auto y_data = [&](Index chunk) { return x_data(chunk) + panels * stride; };
  const auto chunk_rows = [&](Index chunk) { return std::min(rows, depth - chunk * rows); };
  run_chunks(
      threads, chunks, x_groups + y_groups, x_groups * y_groups,
      [&](Index chunk, Index g, int thread) {
        const bool is_x = g < x_groups;
        const Index step = is_x ? across : along, i0 = (is_x ? g : g - x_groups) * step;
        const Index some = std::min(step, (is_x ? panels : columns) - i0);
        (is_x ? X : Y)
            .pack(chunk * rows, chunk_rows(chunk), i0, some,
                  (is_x ? x_data(chunk) : y_data(chunk)) + i0 * stride, stride, rooms.of(thread));
      },
      [&](Index chunk, Index t) {
        const Index i0 = t % x_groups * across, i1 = std::min(i0 + across, panels);
        const Index c0 = t / x_groups * along * W, c1 = std::min(c0 + along * W, q);
        for (Index k = 0; k < chunk_rows(chunk); k += kDepth) {
          const Index some = std::min(kDepth, chunk_rows(chunk) - k);
          for (Index c = c0; c < c1; c += kColumns) {
            const T* y = y_data(chunk) + c / W * stride + k * W;
            // While one panel of columns is in use, the next comes from the third-level cache.
            Upcoming next{reinterpret_cast<const char*>(c + W < c1 ? y + stride : y) +
                              c % W * some * static_cast<Index>(sizeof(T)),
                          kColumns * static_cast<Index>(sizeof(T)) / (i1 - i0)};
            for (Index i = i0; i < i1; ++i)
              multiply_panel<T, W, 1>(some, x_data(chunk) + i * stride + k * W, y + c % W,
                                      R + (i * columns * W + c) * W, T(1), 0, panel_rows<T>(i, m),
                                      &next);
          }
        }
      });
}

template <class T>
void panels_to_dense(const T* R, Matrix<T> out, bool add, int threads) {
  constexpr Index W = kPanel<T>;
  const Index m = out.rows(), q = out.cols(), columns = panel_count<T>(q) * W;
  threads = useful_threads(threads, 16.0 * static_cast<double>(m * q));
  run_in_order(threads, panel_count<T>(m), [&](Index i, int) {
    for (Index r = 0; r < std::min<Index>(W, m - i * W); ++r)
      for (Index c = 0; c < q; ++c) {
        const T sum = R[(i * columns + c) * W + r];
        out(i * W + r, c) = add ? out(i * W + r, c) + sum : sum;
      }
  });
}

template <class T>
void product(const Source<T>& X, const Source<T>& Y, Matrix<T> out, int threads) {
  Buffer<T> R(product_size<T>(X.columns(), Y.columns()));
  R.zero();
  product_panels(X, Y, R.data(), threads);
  panels_to_dense(R.data(), out, false, threads);
}

template <class T>
void add_product(const Source<T>& X, const Source<T>& Y, Matrix<T> out, int threads) {
  Buffer<T> R(product_size<T>(X.columns(), Y.columns()));
  R.zero();
  product_panels(X, Y, R.data(), threads);
  panels_to_dense(R.data(), out, true, threads);
}

template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads) {
  product(OperandSource<T>({X}), OperandSource<T>({Y}), out, threads);
}

#define FASTFISHER_INSTANTIATE(T)                                                \
  template void product_panels(const Source<T>&, const Source<T>&, T*, int);     \
  template void panels_to_dense(const T*, Matrix<T>, bool, int);                 \
  template void add_product(const Source<T>&, const Source<T>&, Matrix<T>, int); \
  template void product(const Source<T>&, const Source<T>&, Matrix<T>, int);     \
  template void product(const ConstMatrix<T>&, const ConstMatrix<T>&, Matrix<T>, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
