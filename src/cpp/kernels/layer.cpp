// Scores of a layer: products contracted in cache, squares by tiles, Gram matrices by the cheaper
// of two ways.
#include "layer.hpp"

#include <algorithm>
#include <cmath>

#include "product.hpp"
#include "schedule.hpp"

namespace fastfisher {

namespace {

// Numbers of an intermediate result: 16 MB of float, 32 of double.
constexpr Index kBlockSize = Index{1} << 22;
// Rows of a block, at least and at most: a matrix is packed anew for each; but many rows are
// themselves packed outside the cache, 2 times slower for 8192 of them in one block (64 × 576,
// float64, one thread of Granite Rapids).
constexpr Index kLeastRows = 256, kMostRows = 1024;
// Rows of the tiles whose elementwise products are summed over positions: two of them take 16 MB.
constexpr Index kTileRows = 1024;

// f(at, some) for pieces of [0, size) of a page each or more.
template <class F>
void in_pieces(Index size, int threads, F f) {
  constexpr Index piece = 4096;
  run_in_order(useful_threads(threads, 16.0 * static_cast<double>(size)), ceil_div(size, piece),
               [&](Index task, int) { f(task * piece, std::min(piece, size - task * piece)); });
}

// out[row] = Σ_k R[k, row] y_row[k] for the rows of one panel: R has W of them side by side.
template <class T>
void contract(const Patches<T>& y, Index first, Index count, Index panel, const T* R, T* packed,
              T* out) {
  constexpr Index W = kPanel<T>, L = kLanes<T>;
  const Index rows = panel_rows<T>(panel, count);
  T total[W] = {};
  for (Index k0 = 0; k0 < y.width(); k0 += kDepth) {
    const Index some = std::min(kDepth, y.width() - k0);
    y.pack_columns(first, count, k0, some, panel, 1, packed, some * W);
    for (Index r = 0; r < rows; r += L) {
      Vec<T> even = Vec<T>::zero(), odd = Vec<T>::zero();
      const T *x = packed + r, *z = R + k0 * W + r;
      Index k = 0;
      for (; k + 1 < some; k += 2, x += 2 * W, z += 2 * W) {
        even = fma(Vec<T>::load(x), Vec<T>::load(z), even);
        odd = fma(Vec<T>::load(x + W), Vec<T>::load(z + W), odd);
      }
      if (k < some) even = fma(Vec<T>::load(x), Vec<T>::load(z), even);
      (Vec<T>::load(total + r) + (even + odd)).store(total + r);
    }
  }
  std::copy_n(total, std::min<Index>(W, count - panel * W), out);
}

// R += w (Σ_t g aᵀ)² by tiles, which every sample passes through; slabs of samples where there are
// too few tiles to share out.
template <class T>
void add_squares_by_tiles(const Patches<T>& a, const Patches<T>& g, const T* weights, T* R,
                          int threads) {
  constexpr Index W = kPanel<T>, L = kLanes<T>;
  const Index m = g.width(), q = a.width(), panels = panel_count<T>(m), columns = panel_count<T>(q);
  const Index samples = g.samples(), positions = g.positions(), size = product_size<T>(m, q);
  const Index across = std::min(panels, kTilePanels), along = std::min(columns, kTilePanels);
  const Index x_groups = ceil_div(panels, across), tiles = x_groups * ceil_div(columns, along);
  const Index wanted = std::min({Index{16} / tiles, samples, 4 * kBlockSize / size});
  const Index slab = ceil_div(samples, std::max<Index>(wanted, 1)), slabs = ceil_div(samples, slab);
  // What fits one block of rows is squared register block by register block, from the first-level
  // cache; 1.1 times faster than tile by tile (49 positions, 512 × 512).
  const bool whole = positions <= kDepth;
  const Index stride = std::min(kDepth, positions) * W,
              tile = whole ? kColumns * W : across * along * W * W;
  threads = useful_threads(threads, 2.0 * static_cast<double>(samples * positions) *
                                        static_cast<double>(m) * static_cast<double>(q));
  Buffer<T> partial((slabs - 1) * size), scratch(threads * ((across + along) * stride + tile));
  partial.zero();
  Rooms<T> rooms(threads, std::max(a.room(), g.room()));

  run_in_order(threads, slabs * tiles, [&](Index task, int thread) {
    T* const g_data = scratch.data() + thread * ((across + along) * stride + tile);
    T* const a_data = g_data + across * stride;
    T* const Z = a_data + along * stride;
    T* const sums = task < tiles ? R : partial.data() + (task / tiles - 1) * size;
    const Index i0 = task % tiles % x_groups * across, rows = std::min(across, panels - i0);
    const Index j0 = task % tiles / x_groups * along, wide = std::min(along, columns - j0) * W;
    const Index used = std::min(wide, q - j0 * W), begin = task / tiles * slab;
    for (Index i = begin; i < std::min(begin + slab, samples); ++i) {
      const Vec<T> w = Vec<T>::broadcast(weights ? weights[i] : T(1));
      for (Index t = 0; t < positions; t += kDepth) {
        const Index some = std::min(kDepth, positions - t), k = i * positions + t;
        g.pack_rows(nullptr, k, some, i0, rows, g_data, stride, rooms.of(thread));
        a.pack_rows(nullptr, k, some, j0, wide / W, a_data, stride, rooms.of(thread));
        for (Index c = 0; c < used; c += kColumns)
          for (Index p = 0; p < rows; ++p) {
            T* const z = whole ? Z : Z + (p * wide + c) * W;
            if (t == 0) std::fill_n(z, kColumns * W, T(0));
            multiply_panel<T, W, 1>(some, g_data + p * stride, a_data + c / W * stride + c % W, z,
                                    T(1), 0, panel_rows<T>(i0 + p, m));
            if (t + some < positions) continue;
            T* const to = sums + (((i0 + p) * columns + j0) * W + c) * W;
            for (Index e = 0; e < kColumns * W; e += L) {
              const Vec<T> value = Vec<T>::load(z + e);
              fma(w * value, value, Vec<T>::load(to + e)).store(to + e);
            }
          }
      }
    }
  });
  in_pieces(slabs > 1 ? size : 0, threads, [&](Index at, Index some) {
    Vector<T> total(R + at, some);
    for (Index s = 1; s < slabs; ++s)
      total += ConstVector<T>(partial.data() + (s - 1) * size + at, some);
  });
}

template <class T>
void add_squares(const Patches<T>& a, const Patches<T>& g, const T* weights, T* R, int threads) {
  if (a.samples() == 0) return;
  if (a.positions() > 1) return add_squares_by_tiles(a, g, weights, R, threads);
  const PatchRows<T> left(g), right(a);
  product_panels(Squares<T>(left, weights), Squares<T>(right, nullptr), R, threads);
}

// rows (count, width) = some of the rows of y, times U.
template <class T>
void rotate(const Patches<T>& y, Index first, Index count, const ConstMatrix<T>& U, T* rows,
            int threads) {
  product(PatchColumns<T>(y, first, count), OperandSource<T>({U}),
          Matrix<T>(rows, count, U.cols(), Strides(U.cols(), 1)), threads);
}

template <class T>
std::unique_ptr<Patches<T>> patches_of_rows(const T* rows, Index samples, Index positions,
                                            Index width) {
  const Geometry geometry{samples, width, {1, positions}, {1, 1}, {1, 1}, {0, 0}, {1, 1}, false};
  const Index line = positions * width;
  return make_patches<T, T>(rows, {line, 1, line, width}, geometry);
}

// K_ij += Σ_tt' (a_it · a_jt') (g_it · g_jt') for samples i of one block and j ≤ i of another. Rows
// of tiles lie side by side in panels: sums over t' are taken for W of them at once.
template <class T>
void add_tile(const T* A, const T* G, Index i0, Index i1, Index j0, Index j1, Index positions,
              T* part, T* triangle, int threads) {
  constexpr Index W = kPanel<T>, L = kLanes<T>;
  const Index m = (i1 - i0) * positions, q = (j1 - j0) * positions, Q = panel_count<T>(q) * W;
  run_in_order(threads, panel_count<T>(m), [&](Index i, int) {
    for (Index r = 0; r < panel_rows<T>(i, m); r += L)
      for (Index j = 0; j < j1 - j0; ++j) {
        Vec<T> sum = Vec<T>::zero();
        for (Index c = j * positions; c < (j + 1) * positions; ++c) {
          const Index at = (i * Q + c) * W + r;
          sum = fma(Vec<T>::load(A + at), Vec<T>::load(G + at), sum);
        }
        sum.store(part + (i * (j1 - j0) + j) * W + r);
      }
  });
  for (Index row = 0; row < m; ++row) {
    const Index i = i0 + row / positions;
    for (Index j = j0; j < std::min(j1, i + 1); ++j)
      triangle[triangle_at<T>(i, j)] += part[(row / W * (j1 - j0) + j - j0) * W + row % W];
  }
}

template <class T>
void gram_by_tiles(const Patches<T>& a, const Patches<T>& g, T* triangle, int threads) {
  const Index n = a.samples(), positions = a.positions();
  const Index block = std::max<Index>(1, kTileRows / positions);
  const Index size = product_size<T>(block * positions, block * positions);
  Buffer<T> A(size), G(size), part((block * positions + kPanel<T>)*block);
  const int workers = team_size(threads);
  for (Index i = 0; i < n; i += block)
    for (Index j = 0; j <= i; j += block) {
      const Index rows = std::min(block, n - i) * positions,
                  columns = std::min(block, n - j) * positions;
      A.zero();
      G.zero();
      product_panels(PatchColumns<T>(a, i * positions, rows),
                     PatchColumns<T>(a, j * positions, columns), A.data(), threads);
      product_panels(PatchColumns<T>(g, i * positions, rows),
                     PatchColumns<T>(g, j * positions, columns), G.data(), threads);
      add_tile(A.data(), G.data(), i, std::min(i + block, n), j, std::min(j + block, n), positions,
               part.data(), triangle, workers);
    }
}

// The scores of all samples, a block of columns at a time, in whatever order the engine leaves
// them: row i is panels of the wider side × columns of the other.
template <class T>
void gram_by_columns(const Patches<T>& a, const Patches<T>& g, T* triangle, int threads) {
  constexpr Index W = kPanel<T>;
  const Patches<T>&wide = a.width() >= g.width() ? a : g, &narrow = &wide == &a ? g : a;
  const Index n = a.samples(), positions = a.positions();
  const Index panels = panel_count<T>(wide.width());
  const Index fit = std::max<Index>(2 * kBlockSize / std::max<Index>(n, 1), 1);
  const Index side = ceil_div(static_cast<Index>(std::sqrt(static_cast<double>(fit))), W) * W;
  const Index along = std::min(side, panel_count<T>(narrow.width()) * W);
  const Index across = std::clamp<Index>(fit / (along * W), 1, panels);
  const Index stride = std::min(kDepth, positions) * W;
  const int workers =
      useful_threads(threads, 2.0 * static_cast<double>(n * positions) *
                                  static_cast<double>(wide.width() * narrow.width()));
  // A register block may write zeros past the last column, into the next panel.
  const Index length = (across * along + kColumns) * W;
  Buffer<T> rows(n * length), scratch(workers * (across + along / W) * stride);
  Rooms<T> rooms(workers, std::max(a.room(), g.room()));
  for (Index p0 = 0; p0 < panels; p0 += across)
    for (Index c0 = 0; c0 < narrow.width(); c0 += along) {
      const Index some = std::min(across, panels - p0), used = std::min(along, narrow.width() - c0);
      run_in_order(workers, n, [&](Index i, int thread) {
        T* const left = scratch.data() + thread * (across + along / W) * stride;
        T* const right = left + across * stride;
        T* const row = rows.data() + i * length;
        std::fill_n(row, (some * used + kColumns) * W, T(0));
        for (Index t = 0; t < positions; t += kDepth) {
          const Index depth = std::min(kDepth, positions - t), k = i * positions + t;
          wide.pack_rows(nullptr, k, depth, p0, some, left, stride, rooms.of(thread));
          narrow.pack_rows(nullptr, k, depth, c0 / W, ceil_div(used, W), right, stride,
                           rooms.of(thread));
          for (Index c = 0; c < used; c += kColumns)
            for (Index p = 0; p < some; ++p)
              multiply_panel<T, W, 1>(depth, left + p * stride, right + c / W * stride + c % W,
                                      row + (p * used + c) * W, T(1), 0,
                                      panel_rows<T>(p0 + p, wide.width()));
        }
      });
      const Operand<T> Y{ConstMatrix<T>(rows.data(), some * used * W, n, Strides(1, length))};
      symmetric_product(Y, triangle, nullptr, false, threads);
    }
}

}  // namespace

template <class T>
void layer_dot(const Patches<T>& a, const Patches<T>& g, const ConstMatrix<T>& V, T* out,
               Index step, int threads) {
  constexpr Index W = kPanel<T>;
  const bool inwards = a.width() <= g.width();
  const Patches<T>&left = inwards ? g : a, &right = inwards ? a : g;
  const Index depth = left.width(), width = right.width(), rows = a.geometry().rows();
  const Operand<T> Y{ConstMatrix<T>(
      V.data(), depth, width,
      inwards ? Strides(V.rowStride(), V.colStride()) : Strides(V.colStride(), V.rowStride()))};
  const Index block =
      ceil_div(std::min(rows, std::clamp(kBlockSize / width, kLeastRows, kMostRows)), W) * W;
  const Index columns = panel_count<T>(width) * W;
  const int workers =
      useful_threads(threads, 8.0 * static_cast<double>(block) * static_cast<double>(width));
  Buffer<T> R(product_size<T>(block, width)), packed(workers * kDepth * W), dots(block);
  for (Index i = 0; i < a.samples(); ++i) out[i * step] = T(0);
  for (Index first = 0; first < rows; first += block) {
    const Index count = std::min(block, rows - first);
    std::fill_n(R.data(), product_size<T>(count, width), T(0));
    product_panels(PatchColumns<T>(left, first, count), OperandSource<T>(Y), R.data(), threads);
    run_in_order(workers, panel_count<T>(count), [&](Index i, int thread) {
      contract(right, first, count, i, R.data() + i * columns * W,
               packed.data() + thread * kDepth * W, dots.data() + i * W);
    });
    for (Index k = 0; k < count; ++k) out[(first + k) / a.positions() * step] += dots[k];
  }
}

template <class T>
void layer_squares(const Patches<T>& a, const Patches<T>& g, const T* weights, Matrix<T> out,
                   int threads) {
  Buffer<T> R(product_size<T>(g.width(), a.width()));
  R.zero();
  add_squares(a, g, weights, R.data(), threads);
  panels_to_dense(R.data(), out, false, threads);
}

template <class T>
void layer_squares_rotated(const Patches<T>& a, const Patches<T>& g, const T* weights,
                           const ConstMatrix<T>& U_a, const ConstMatrix<T>& U_g, Matrix<T> out,
                           int threads) {
  const Index n = a.samples(), positions = a.positions();
  const Index rows = std::clamp(kBlockSize / (a.width() + g.width()), kMostRows, 4 * kMostRows);
  const Index block = std::clamp<Index>(rows / positions, 1, std::max<Index>(n, 1));
  Buffer<T> R(product_size<T>(g.width(), a.width())), A(block * positions * a.width()),
      G(block * positions * g.width());
  R.zero();
  for (Index i = 0; i < n; i += block) {
    const Index some = std::min(block, n - i);
    rotate(a, i * positions, some * positions, U_a, A.data(), threads);
    rotate(g, i * positions, some * positions, U_g, G.data(), threads);
    add_squares(*patches_of_rows<T>(A.data(), some, positions, a.width()),
                *patches_of_rows<T>(G.data(), some, positions, g.width()),
                weights ? weights + i : nullptr, R.data(), threads);
  }
  panels_to_dense(R.data(), out, false, threads);
}

template <class T>
void layer_gram(const Patches<T>& a, const Patches<T>& g, T* triangle, int threads) {
  const Index n = a.samples(), positions = a.positions();
  if (n == 0) return;
  if (positions == 1) {
    const Index size = triangle_size<T>(n);
    Buffer<T> A(size), G(size);
    A.zero();
    G.zero();
    symmetric_product(PatchColumns<T>(a), A.data(), false, threads);
    symmetric_product(PatchColumns<T>(g), G.data(), false, threads);
    in_pieces(size, threads, [&](Index at, Index some) {
      Vector<T>(triangle + at, some).array() +=
          ConstVector<T>(A.data() + at, some).array() * ConstVector<T>(G.data() + at, some).array();
    });
    return;
  }
  const double samples = static_cast<double>(n), shared = static_cast<double>(positions),
               d_in = static_cast<double>(a.width()), d_out = static_cast<double>(g.width());
  const bool tiles = positions <= kTileRows && samples * shared * shared * (d_in + d_out) <=
                                                   (2 * shared + samples) * d_in * d_out;
  (tiles ? gram_by_tiles<T> : gram_by_columns<T>)(a, g, triangle, threads);
}

#define FASTFISHER_INSTANTIATE(T)                                                                 \
  template void layer_dot(const Patches<T>&, const Patches<T>&, const ConstMatrix<T>&, T*, Index, \
                          int);                                                                   \
  template void layer_squares(const Patches<T>&, const Patches<T>&, const T*, Matrix<T>, int);    \
  template void layer_squares_rotated(const Patches<T>&, const Patches<T>&, const T*,             \
                                      const ConstMatrix<T>&, const ConstMatrix<T>&, Matrix<T>,    \
                                      int);                                                       \
  template void layer_gram(const Patches<T>&, const Patches<T>&, T*, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
