// The product engine's schedules: who packs what, who multiplies what, in which order.
#include "product.hpp"

#include <algorithm>
#include <atomic>
#include <vector>

#include "parallel.hpp"

namespace fastfisher {

namespace {

// The micro-kernel for V vectors of rows: V × kColumns accumulators stay in registers.
template <class T, int V, int BK, int BJ>
FASTFISHER_INLINE void multiply_block(Index depth, const T* FASTFISHER_RESTRICT A,
                                      const T* FASTFISHER_RESTRICT B, T* FASTFISHER_RESTRICT C,
                                      T sign, Upcoming& next) {
  constexpr int lanes = kLanes<T>;
  constexpr int W = kPanel<T>;
  Vec<T> sum[V][kColumns];
  FASTFISHER_UNROLL
  for (int v = 0; v < V; ++v) {
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[v][j] = Vec<T>::zero();
  }
  FASTFISHER_UNROLL
  for (int j = 0; j < kColumns; ++j) {
    FASTFISHER_UNROLL
    for (int v = 0; v < V; ++v) prefetch_for_write(C + j * W + v * lanes);
  }
  const char* at = next.at;
  const Index step = next.step;
  for (Index k = 0; k < depth; ++k) {
    prefetch(at);
    at += step;
    Vec<T> a[V];
    FASTFISHER_UNROLL
    for (int v = 0; v < V; ++v) a[v] = Vec<T>::load(A + v * lanes);
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      const Vec<T> b = Vec<T>::broadcast(B[j * BJ]);
      FASTFISHER_UNROLL
      for (int v = 0; v < V; ++v) sum[v][j] = fma(a[v], b, sum[v][j]);
    }
    A += W;
    B += BK;
  }
  next.at = at;
  const Vec<T> s = Vec<T>::broadcast(sign);
  FASTFISHER_UNROLL
  for (int j = 0; j < kColumns; ++j) {
    FASTFISHER_UNROLL
    for (int v = 0; v < V; ++v) {
      T* c = C + j * W + v * lanes;
      fma(s, sum[v][j], Vec<T>::load(c)).store(c);
    }
  }
}

}  // namespace

template <class T, int BK, int BJ>
void multiply_panel(Index depth, const T* A, const T* B, T* C, T sign, Index first, Index last,
                    Upcoming* next) {
  constexpr Index lanes = kLanes<T>;
  Upcoming nothing{reinterpret_cast<const char*>(C), 0};
  Upcoming& ahead = next ? *next : nothing;
  static_assert(kRowVectors == 3, "the cases below are the block heights");
  for (Index r = first; r < last; r += kRowVectors * lanes) {
    switch ((last - r) / lanes) {
      case 1:
        multiply_block<T, 1, BK, BJ>(depth, A + r, B, C + r, sign, ahead);
        break;
      case 2:
        multiply_block<T, 2, BK, BJ>(depth, A + r, B, C + r, sign, ahead);
        break;
      default:
        multiply_block<T, 3, BK, BJ>(depth, A + r, B, C + r, sign, ahead);
    }
  }
}

namespace {

// A tile of kTilePanels blocks (0.4 MB) stays in the second-level cache while columns stream past
// it.
constexpr Index kTilePanels = 8;
// Below this many flops a second thread costs more than it brings.
constexpr double kFlopsPerThread = 4e6;

int useful_threads(int requested, double flops) {
  const double most = std::max(1.0, flops / kFlopsPerThread);
  return static_cast<int>(std::min<double>(team_size(requested), most));
}

// One block of packed rows: panel i at data + i * stride.
template <class T>
struct Packed {
  const T* data;
  Index stride;
  const T* panel(Index i) const { return data + i * stride; }
};

// C(panels [i0, i1) × columns [c0, c1)) += YᵀY over `depth` rows, for the tiles on or below the
// diagonal.
template <class T>
void multiply_triangle(Index depth, Packed<T> Y, Index i0, Index i1, Index c0, Index c1,
                       Index params, T* triangle, Upcoming* next = nullptr) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  c1 = std::min(c1, params);
  for (Index c = c0; c < c1; c += kColumns) {
    const Index diagonal = c / W;
    const T* B = Y.panel(diagonal) + c % W;
    for (Index i = std::max(i0, diagonal); i < i1; ++i) {
      const Index first = i == diagonal ? c % W / lanes * lanes : 0;
      multiply_panel<T, W, 1>(depth, Y.panel(i), B, triangle + panel_offset<T>(i) + c * W, T(1),
                              first, panel_rows<T>(i, params), next);
    }
  }
}

// Chunks of rows, packed once and used by every output tile, without a barrier: all tasks stand in
// one order (run_in_order) and wait only for earlier ones. Chunk c+1 is packed in the middle of the
// tiles of chunk c, into the buffer that the tiles of chunk c-1 have left by then. An output tile
// takes its chunks one after the other, which fixes the order of the sum.
//   pack(chunk, item), tile(chunk, item)
template <class Pack, class Tile>
void run_chunks(int threads, Index chunks, Index packs, Index tiles, Pack&& pack, Tile&& tile) {
  // Tasks finished: packs of each chunk, tiles of each chunk, chunks of each tile.
  std::vector<Finished> packed(static_cast<std::size_t>(chunks)),
      tiled(static_cast<std::size_t>(chunks)), taken(static_cast<std::size_t>(tiles));
  const Index half = tiles / 2, period = packs + tiles;
  const auto run_pack = [&](Index chunk, Index item) {
    if (chunk >= chunks) return;
    if (chunk >= 2) tiled[static_cast<std::size_t>(chunk - 2)].wait(tiles);
    pack(chunk, item);
    packed[static_cast<std::size_t>(chunk)].add();
  };
  const auto run_tile = [&](Index chunk, Index item) {
    packed[static_cast<std::size_t>(chunk)].wait(packs);
    taken[static_cast<std::size_t>(item)].wait(chunk);
    tile(chunk, item);
    taken[static_cast<std::size_t>(item)].add();
    tiled[static_cast<std::size_t>(chunk)].add();
  };
  run_in_order(threads, packs + chunks * period, [&](Index task, int) {
    if (task < packs) return run_pack(0, task);
    const Index chunk = (task - packs) / period, at = (task - packs) % period;
    if (at < half) return run_tile(chunk, at);
    if (at < half + packs) return run_pack(chunk + 1, at - half);
    run_tile(chunk, at - packs);
  });
}

// Tiles: for Y that is not much taller than wide.
template <class T, class S>
bool symmetric_by_tiles(const Operand<T, S>& Y, T* triangle, bool check_finite, int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = Y.depth(), columns = Y.columns(), panels = panel_count<T>(columns);
  // Two buffers of p/8 rows (but at least one block): half of the p²/2 that the triangle saves.
  // With p/4 it was no faster.
  const Index rows = std::min(std::clamp(columns / 8 / kDepth * kDepth, kDepth, 4 * kDepth), depth);
  const Index chunks = ceil_div(depth, rows), stride = rows * W;
  const Index group = std::clamp<Index>(panels / 6, 1, kTilePanels),
              groups = ceil_div(panels, group);
  Buffer<T> buffer(2 * panels * stride);
  std::vector<std::pair<Index, Index>> tiles;
  for (Index J = 0; J < groups; ++J)
    for (Index I = J; I < groups; ++I) tiles.emplace_back(I, J);

  std::atomic<bool> finite{true};
  const auto chunk_data = [&](Index chunk) { return buffer.data() + chunk % 2 * panels * stride; };
  const auto chunk_rows = [&](Index chunk) { return std::min(rows, depth - chunk * rows); };
  run_chunks(
      threads, chunks, groups, static_cast<Index>(tiles.size()),
      [&](Index chunk, Index g) {
        const Index i0 = g * group, i1 = std::min(i0 + group, panels);
        if (!pack_panels(Y, chunk * rows, chunk_rows(chunk), i0, i1 - i0,
                         chunk_data(chunk) + i0 * stride, stride))
          finite.store(false, std::memory_order_relaxed);
      },
      [&](Index chunk, Index t) {
        const auto [I, J] = tiles[static_cast<std::size_t>(t)];
        const Index i1 = std::min((I + 1) * group, panels);
        for (Index k = 0; k < chunk_rows(chunk); k += kDepth)
          multiply_triangle<T>(std::min(kDepth, chunk_rows(chunk) - k),
                               {chunk_data(chunk) + k * W, stride}, I * group, i1, J * group * W,
                               (J + 1) * group * W, columns, triangle);
      });
  return finite.load() || !check_finite;
}

// The rows that the next block of a slab packs, spread over the micro-kernels of this one; nothing
// where they do not lie in one run.
template <class T, class S>
Upcoming next_rows(const Operand<T, S>& Y, Index k, Index end) {
  const Index columns = Y.columns(), panels = panel_count<T>(columns);
  if (k >= end || Y.X.colStride() != 1 || Y.X.rowStride() != columns)
    return {reinterpret_cast<const char*>(Y.X.data()), 0};
  const Index blocks =
      panels * (panels + 1) / 2 * (kPanel<T> / kColumns) * (kPanel<T> / kLanes<T> / kRowVectors);
  return {reinterpret_cast<const char*>(Y.X.data() + k * columns),
          ceil_div(columns * static_cast<Index>(sizeof(S)), blocks)};
}

// Slabs: for tall Y. Each slab of rows has its own triangle and packs for itself, so threads meet
// only to add the triangles up, in the order of the slabs.
template <class T, class S>
bool symmetric_by_slabs(const Operand<T, S>& Y, T* triangle, bool check_finite, int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = Y.depth(), columns = Y.columns(), panels = panel_count<T>(columns);
  const Index size = triangle_size<T>(columns), stride = kDepth * W;
  const Index wanted = std::clamp<Index>(depth / (16 * columns), 8, 64);
  const Index rows = ceil_div(ceil_div(depth, wanted), kDepth) * kDepth,
              slabs = ceil_div(depth, rows);
  threads = static_cast<int>(std::min<Index>(threads, slabs));
  Buffer<T> partial(slabs * size), buffer(threads * panels * stride);

  std::atomic<bool> finite{true};
  run_in_order(threads, slabs, [&](Index slab, int thread) {
    T* own = partial.data() + slab * size;
    T* packed = buffer.data() + thread * panels * stride;
    std::fill_n(own, size, T(0));
    const Index end = std::min(depth, (slab + 1) * rows);
    for (Index k = slab * rows; k < end; k += kDepth) {
      const Index some = std::min(kDepth, end - k);
      if (!pack_panels(Y, k, some, 0, panels, packed, stride))
        finite.store(false, std::memory_order_relaxed);
      Upcoming next = next_rows<T>(Y, k + kDepth, end);
      for (Index i = 0; i < panels; i += kTilePanels) {
        const Index i1 = std::min(i + kTilePanels, panels);
        multiply_triangle<T>(some, {packed, stride}, i, i1, 0, i1 * W, columns, own, &next);
      }
    }
  });
  if (check_finite && !finite.load()) return false;

  constexpr Index run = 4096;
  run_in_order(size * slabs < (Index{1} << 18) ? 1 : threads, ceil_div(size, run),
               [&](Index task, int) {
                 const Index at = task * run, some = std::min(run, size - at);
                 Vector<T> total(triangle + at, some);
                 for (Index slab = 0; slab < slabs; ++slab)
                   total += ConstVector<T>(partial.data() + slab * size + at, some);
               });
  return true;
}

}  // namespace

template <class T>
bool works_by_slabs(Index depth, Index columns) {
  return depth >= 8 * columns && panel_count<T>(columns) <= 48;
}

template <class T, class S>
Report symmetric_product(const Operand<T, S>& Y, T* triangle, bool check_finite, int threads) {
  const Index depth = Y.depth(), columns = Y.columns();
  if (depth == 0 || columns == 0) return {};
  threads = useful_threads(
      threads, static_cast<double>(depth) * static_cast<double>(columns * (columns + 1)));
  const bool finite = works_by_slabs<T>(depth, columns)
                          ? symmetric_by_slabs(Y, triangle, check_finite, threads)
                          : symmetric_by_tiles(Y, triangle, check_finite, threads);
  return finite ? Report{} : Report{Status::NonFinite};
}

template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = X.rows(), m = X.cols(), q = Y.cols();
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

  const Operand<T> left{X}, right{Y};
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
        pack_panels(is_x ? left : right, chunk * rows, chunk_rows(chunk), i0, some,
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
      for (Index c = 0; c < q; ++c) out(i * W + r, c) = result[(i * columns * W + c) * W + r];
  });
}

template void multiply_panel<double, kPanel<double>, 1>(Index, const double*, const double*,
                                                        double*, double, Index, Index, Upcoming*);
template void multiply_panel<double, 1, kPanel<double>>(Index, const double*, const double*,
                                                        double*, double, Index, Index, Upcoming*);
template void multiply_panel<float, kPanel<float>, 1>(Index, const float*, const float*, float*,
                                                      float, Index, Index, Upcoming*);
template void multiply_panel<float, 1, kPanel<float>>(Index, const float*, const float*, float*,
                                                      float, Index, Index, Upcoming*);
template bool works_by_slabs<double>(Index, Index);
template bool works_by_slabs<float>(Index, Index);
template Report symmetric_product(const Operand<double, double>&, double*, bool, int);
template Report symmetric_product(const Operand<double, float>&, double*, bool, int);
template Report symmetric_product(const Operand<float, float>&, float*, bool, int);
template void product(const ConstMatrix<double>&, const ConstMatrix<double>&, Matrix<double>, int);
template void product(const ConstMatrix<float>&, const ConstMatrix<float>&, Matrix<float>, int);

}  // namespace fastfisher
