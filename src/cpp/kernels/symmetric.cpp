// The symmetric product XᵀX: by output tiles over shared packed chunks, or by slabs of rows.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "pairs.hpp"
#include "product.hpp"
#include "schedule.hpp"

namespace fastfisher {

namespace {

// Operands of the micro-kernel: panels, each a stride after the one before, ...
template <class T>
struct Packed {
  const T* data;
  Index stride;

  const T* panel(Index i) const { return data + i * stride; }
  void multiply(Index depth, Index i, Index c, T* C, Index first, Index last,
                Upcoming* next) const {
    multiply_panel<T, kPanel<T>, 1>(depth, panel(i), panel(c / kPanel<T>) + c % kPanel<T>, C, T(1),
                                    first, last, next);
  }
};

// ... or rows as they stand.
template <class T>
struct Rows {
  const T* data;
  Index ld;

  void multiply(Index depth, Index i, Index c, T* C, Index first, Index last,
                Upcoming* next) const {
    multiply_rows(depth, data + i * kPanel<T>, data + c, ld, C, first, last, next);
  }
};

// C(panels [i0, i1) × columns [c0, c1)) += YᵀY over `depth` rows, for the tiles on or below the
// diagonal.
template <class T, class Source>
void multiply_triangle(Index depth, const Source& Y, Index i0, Index i1, Index c0, Index c1,
                       Index params, T* triangle, Upcoming* next) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  c1 = std::min(c1, params);
  for (Index c = c0; c < c1; c += kColumns) {
    const Index diagonal = c / W;
    for (Index i = std::max(i0, diagonal); i < i1; ++i)
      Y.multiply(depth, i, c, triangle + panel_offset<T>(i) + c * W,
                 i == diagonal ? c % W / lanes * lanes : 0, panel_rows<T>(i, params), next);
  }
}

// Rows of panels [i0, i1) × panels of columns [j0, j1). While one panel of columns is in use, the
// next comes from the third-level cache.
template <class T>
void multiply_packed(Index depth, const T* packed, Index stride, Index i0, Index i1, Index j0,
                     Index j1, Index columns, T* triangle) {
  constexpr Index W = kPanel<T>;
  const Packed<T> block{packed, stride};
  const Index panels = panel_count<T>(columns);
  for (Index j = j0; j < j1; ++j) {
    Upcoming next{reinterpret_cast<const char*>(block.panel(j + 1 < panels ? j + 1 : j)),
                  kColumns * static_cast<Index>(sizeof(T)) / (i1 - std::max(i0, j))};
    multiply_triangle<T>(depth, block, i0, i1, j * W, (j + 1) * W, columns, triangle, &next);
  }
}

// What a schedule asks of a way to multiply: a panel of `rows` rows is words(rows) numbers once
// packed, and whole blocks of kDepth rows of a packed chunk are multiplied one after the other.
// Here: widened to T, weighed and centred while packing, by multiply-adds.
template <class T, class S>
struct Widening {
  using Word = T;
  const Operand<T, S>& Y;

  static constexpr Index words(Index rows) { return rows * kPanel<T>; }
  // Rows of a chunk for all panels: p/8, so that two chunks take half of the p²/2 that the triangle
  // saves. With p/4 it was no faster.
  static Index chunk_rows(Index columns) {
    return std::clamp(columns / 8 / kDepth * kDepth, kDepth, 4 * kDepth);
  }
  void pack(Index k0, Index depth, Index panel0, Index panels, Word* out, Index stride, int) const {
    pack_panels(Y, k0, depth, panel0, panels, out, stride);
  }
  const T* scale(Index k0) const { return Y.scale_by_depth ? Y.scale_by_depth + k0 : nullptr; }
  void multiply(Index depth, const Word* packed, Index stride, Index i0, Index i1, Index j0,
                Index j1, T* triangle) const {
    multiply_packed(depth, packed, stride, i0, i1, j0, j1, Y.columns(), triangle);
  }
};

// The same for rows that pack themselves, each thread with scratch of its own.
template <class T>
struct Gathering {
  using Word = T;
  const Source<T>& Y;
  mutable Rooms<T> rooms;

  static constexpr Index words(Index rows) { return rows * kPanel<T>; }
  static Index chunk_rows(Index columns) { return Widening<T, T>::chunk_rows(columns); }
  void pack(Index k0, Index depth, Index panel0, Index panels, Word* out, Index stride,
            int thread) const {
    Y.pack(k0, depth, panel0, panels, out, stride, rooms.of(thread));
  }
  const T* scale(Index) const { return nullptr; }
  void multiply(Index depth, const Word* packed, Index stride, Index i0, Index i1, Index j0,
                Index j1, T* triangle) const {
    multiply_packed(depth, packed, stride, i0, i1, j0, j1, Y.columns(), triangle);
  }
};

// The same for bfloat16 as it stands, by dot products of pairs.
struct Pairing {
  using Word = Pair;
  const Operand<float, BFloat16>& Y;

  static constexpr Index words(Index rows) { return pair_count(rows); }
  // So fast a product waits for the triangle to come and go: it does once for each chunk.
  static Index chunk_rows(Index) { return 4 * kDepth; }
  void pack(Index k0, Index depth, Index panel0, Index panels, Word* out, Index stride, int) const {
    pack_pairs(Y.X, k0, depth, panel0, panels, out, stride);
  }
  void multiply(Index depth, const Word* packed, Index stride, Index i0, Index i1, Index j0,
                Index j1, float* triangle) const {
    constexpr Index W = kPanel<float>;
    multiply_pairs(depth, packed, stride, i0, i1, j0 * W, j1 * W, Y.columns(), triangle);
  }
};

// Row -1 and the first column whose sum of squares is not finite.
template <class T>
Report diagonal_report(const T* triangle, Index columns) {
  for (Index j = 0; j < columns; ++j) {
    const T sum = triangle[triangle_at<T>(j, j)];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }
  return {};
}

// Tiles: for Y that is not much taller than wide. The column sums of chunk c stand in row c of
// their buffer until all are known.
template <class T, class Engine>
void symmetric_by_tiles(const Engine& engine, T* triangle, double* column_sums, int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = engine.Y.depth(), columns = engine.Y.columns(),
              panels = panel_count<T>(columns);
  const Index rows = std::min(engine.chunk_rows(columns), depth);
  const Index chunks = ceil_div(depth, rows), stride = engine.words(rows);
  const Index group = std::clamp<Index>(panels / 6, 1, kTilePanels),
              groups = ceil_div(panels, group);
  Buffer<typename Engine::Word> buffer(2 * panels * stride);
  Buffer<double> sums(column_sums ? chunks * panels * W : 0);
  sums.zero();
  // Down the rows of tiles, so that a thread keeps its rows in cache while the columns change; the
  // longest row first.
  std::vector<std::pair<Index, Index>> tiles;
  for (Index I = groups - 1; I >= 0; --I)
    for (Index J = 0; J <= I; ++J) tiles.emplace_back(I, J);

  const auto chunk_data = [&](Index chunk) { return buffer.data() + chunk % 2 * panels * stride; };
  const auto chunk_rows = [&](Index chunk) { return std::min(rows, depth - chunk * rows); };
  run_chunks(
      threads, chunks, groups, static_cast<Index>(tiles.size()),
      [&](Index chunk, Index g, int thread) {
        const Index i0 = g * group, some = std::min(i0 + group, panels) - i0, k0 = chunk * rows;
        auto* packed = chunk_data(chunk) + i0 * stride;
        engine.pack(k0, chunk_rows(chunk), i0, some, packed, stride, thread);
        if constexpr (std::is_same_v<typename Engine::Word, T>) {
          if (column_sums)
            add_packed_rows(packed, chunk_rows(chunk), some, stride, engine.scale(k0),
                            sums.data() + (chunk * panels + i0) * W);
        }
      },
      [&](Index chunk, Index t) {
        const auto [I, J] = tiles[static_cast<std::size_t>(t)];
        for (Index k = 0; k < chunk_rows(chunk); k += kDepth)
          engine.multiply(std::min(kDepth, chunk_rows(chunk) - k),
                          chunk_data(chunk) + engine.words(k), stride, I * group,
                          std::min((I + 1) * group, panels), J * group,
                          std::min((J + 1) * group, panels), triangle);
      });
  for (Index chunk = 0; column_sums && chunk < chunks; ++chunk)
    for (Index j = 0; j < panels * W; ++j) column_sums[j] += sums[chunk * panels * W + j];
}

// How a slab reads rows [begin, end): in blocks of `rows`, those before row `bare` as they stand.
struct Reading {
  Index rows;
  Index bare;
};

// Rows up to this many bytes are read as they stand: below, packing costs more than unaligned
// loads. 1.7× at p = 32, 1.04× at 96, even at 128 (float64, Granite Rapids, two threads).
constexpr Index kBareBytes = 768;
// Bytes of bare rows in a block: the next one is fetched meanwhile, so both should fit in the
// first-level cache. 91 Gflop/s at p = 32 (54 packed), 76 with 32 kB, 61 with 128 kB.
constexpr Index kBareBlock = Index{1} << 14;

template <class T>
Reading reading_of(const Source<T>&, bool) {
  return {kDepth, 0};
}

template <class T, class S>
Reading reading_of(const Operand<T, S>& Y, bool column_sums) {
  const Index ld = Y.X.rowStride(), columns = Y.columns(),
              unit = std::max<Index>(kLanes<T>, kColumns);
  const bool bare = std::is_same_v<T, S> && Y.X.colStride() == 1 && ld >= columns && !Y.affine() &&
                    !column_sums && columns * static_cast<Index>(sizeof(T)) <= kBareBytes;
  if (!bare) return {kDepth, 0};
  // The last rows would be read past the end of the matrix.
  const Index past = ceil_div(columns, unit) * unit - columns;
  const Index fit = kBareBlock / (ld * static_cast<Index>(sizeof(T)));
  return {std::clamp<Index>(fit / 4 * 4, 32, kDepth), Y.depth() - ceil_div(past, ld)};
}

// The rows that the next block reads, fetched by the micro-kernels of this one; nothing where they
// do not lie in one run.
template <class T, class S>
Upcoming next_rows(const Operand<T, S>& Y, Index k, Index rows, Index end) {
  const Index columns = Y.columns(), panels = panel_count<T>(columns);
  if (k + rows > end || Y.X.colStride() != 1 || Y.X.rowStride() != columns)
    return {reinterpret_cast<const char*>(Y.X.data()), 0};
  const Index blocks = (panels * (panels + 1) / 2 - 1) * (kPanel<T> / kColumns) +
                       ceil_div(columns - (panels - 1) * kPanel<T>, kColumns);
  return {reinterpret_cast<const char*>(Y.X.data() + k * columns),
          ceil_div(columns * static_cast<Index>(sizeof(S)), blocks)};
}

// Rows and columns past the last one, into which bare rows have spilled, become zero again.
template <class T>
void clear_margin(T* triangle, Index columns) {
  constexpr Index W = kPanel<T>;
  const Index i = panel_count<T>(columns) - 1, rows = columns - i * W;
  T* panel = triangle + panel_offset<T>(i);
  for (Index c = 0; c < columns; ++c) std::fill(panel + c * W + rows, panel + (c + 1) * W, T(0));
  std::fill(panel + columns * W, panel + (i + 1) * W * W, T(0));
}

// own += YᵀY over `depth` packed rows, by tiles.
template <class T>
void multiply_slab(Index depth, const T* packed, Index stride, Index columns, T* own,
                   Upcoming* next) {
  const Index panels = panel_count<T>(columns);
  for (Index i = 0; i < panels; i += kTilePanels) {
    const Index i1 = std::min(i + kTilePanels, panels);
    multiply_triangle<T>(depth, Packed<T>{packed, stride}, i, i1, 0, i1 * kPanel<T>, columns, own,
                         next);
  }
}

// Adds one slab of Widening: rows [begin, end) to `own`, Σ scale y to `sums`.
template <class T, class S>
void add_slab(const Widening<T, S>& engine, const Reading& reading, Index begin, Index end,
              T* packed, T* own, double* sums, int thread) {
  const Operand<T, S>& Y = engine.Y;
  const Index columns = Y.columns(), panels = panel_count<T>(columns);
  const Index stride = engine.words(kDepth);
  for (Index k = begin, some; k < end; k += some) {
    some = std::min(reading.rows, (k < reading.bare ? std::min(reading.bare, end) : end) - k);
    Upcoming next = next_rows<T>(Y, k + some, some, end);
    if constexpr (std::is_same_v<T, S>) {
      if (k < reading.bare) {
        const Rows<T> block{Y.X.data() + k * Y.X.rowStride(), Y.X.rowStride()};
        multiply_triangle<T>(some, block, 0, panels, 0, columns, columns, own, &next);
        continue;
      }
    }
    engine.pack(k, some, 0, panels, packed, stride, thread);
    if (sums) add_packed_rows(packed, some, panels, stride, engine.scale(k), sums);
    multiply_slab(some, packed, stride, columns, own, &next);
  }
  if (reading.bare > 0) clear_margin(own, columns);
}

template <class T>
void add_slab(const Gathering<T>& engine, const Reading&, Index begin, Index end, T* packed, T* own,
              double*, int thread) {
  const Index columns = engine.Y.columns(), panels = panel_count<T>(columns);
  const Index stride = engine.words(kDepth);
  Upcoming nothing{reinterpret_cast<const char*>(packed), 0};
  for (Index k = begin; k < end; k += kDepth) {
    const Index some = std::min(kDepth, end - k);
    engine.pack(k, some, 0, panels, packed, stride, thread);
    multiply_slab(some, packed, stride, columns, own, &nothing);
  }
}

// A template, for levels without pairs: what it calls is not there, and unoptimised builds keep an
// unused function that is none.
template <class T>
void add_slab(const Pairing& engine, const Reading&, Index begin, Index end, Pair* packed, T* own,
              double*, int thread) {
  const Index panels = panel_count<float>(engine.Y.columns()), stride = engine.words(kDepth);
  for (Index k = begin; k < end; k += kDepth) {
    const Index some = std::min(kDepth, end - k);
    engine.pack(k, some, 0, panels, packed, stride, thread);
    engine.multiply(some, packed, stride, 0, panels, 0, panels, own);
  }
}

// Slabs: for tall Y. Each slab of rows has its own triangle and packs for itself, so threads meet
// only to add the triangles up, in the order of the slabs.
template <class T, class Engine>
Report symmetric_by_slabs(const Engine& engine, T* triangle, double* column_sums, bool check_finite,
                          int threads) {
  constexpr Index W = kPanel<T>;
  const Index depth = engine.Y.depth(), columns = engine.Y.columns(),
              panels = panel_count<T>(columns);
  const Index size = triangle_size<T>(columns), stride = engine.words(kDepth);
  const Index wanted = std::clamp<Index>(depth / (16 * columns), 8, 64);
  const Index rows = ceil_div(ceil_div(depth, wanted), kDepth) * kDepth,
              slabs = ceil_div(depth, rows);
  const Reading reading = reading_of(engine.Y, column_sums != nullptr);
  threads = static_cast<int>(std::min<Index>(threads, slabs));
  Buffer<T> partial(slabs * size);
  Buffer<typename Engine::Word> buffer(threads * panels * stride);
  Buffer<double> sums(column_sums ? slabs * panels * W : 0);
  sums.zero();

  run_in_order(threads, slabs, [&](Index slab, int thread) {
    T* own = partial.data() + slab * size;
    std::fill_n(own, size, T(0));
    add_slab(engine, reading, slab * rows, std::min(depth, (slab + 1) * rows),
             buffer.data() + thread * panels * stride, own,
             column_sums ? sums.data() + slab * panels * W : nullptr, thread);
  });
  for (Index j = 0; check_finite && j < columns; ++j) {
    const Index at = triangle_at<T>(j, j);
    T sum = triangle[at];
    for (Index slab = 0; slab < slabs; ++slab) sum += partial[slab * size + at];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }

  constexpr Index run = 4096;
  run_in_order(size * slabs < (Index{1} << 18) ? 1 : threads, ceil_div(size, run),
               [&](Index task, int) {
                 const Index at = task * run, some = std::min(run, size - at);
                 Vector<T> total(triangle + at, some);
                 for (Index slab = 0; slab < slabs; ++slab)
                   total += ConstVector<T>(partial.data() + slab * size + at, some);
               });
  for (Index slab = 0; column_sums && slab < slabs; ++slab)
    for (Index j = 0; j < panels * W; ++j) column_sums[j] += sums[slab * panels * W + j];
  return {};
}

// Below kColumns parameters several rows that lie in one run are one row of a narrower job: with f
// rows of p columns as one of f·p, F is the sum of the f diagonal blocks.
template <class T>
Report symmetric_folded(const Operand<T, T>& Y, Index fold, T* triangle, bool check_finite,
                        int threads) {
  const Index columns = Y.columns(), wide = fold * columns, deep = Y.depth() / fold;
  Buffer<T> folded(triangle_size<T>(wide));
  folded.zero();
  const Operand<T, T> Z{ConstMatrix<T>(Y.X.data(), deep, wide, Strides(wide, 1))};
  const Report report =
      symmetric_by_slabs(Widening<T, T>{Z}, folded.data(), nullptr, check_finite, threads);
  if (!report.ok()) return {report.status, -1, report.col % columns, report.value};
  for (Index f = 0; f < fold; ++f)
    for (Index r = 0; r < columns; ++r)
      for (Index c = 0; c <= r; ++c)
        triangle[triangle_at<T>(r, c)] += folded[triangle_at<T>(f * columns + r, f * columns + c)];
  for (Index k = deep * fold; k < Y.depth(); ++k)
    for (Index r = 0; r < columns; ++r)
      for (Index c = 0; c <= r; ++c) triangle[triangle_at<T>(r, c)] += Y.X(k, r) * Y.X(k, c);
  return check_finite ? diagonal_report(triangle, columns) : Report{};
}

template <class T, class Engine>
Report symmetric_by(const Engine& engine, T* triangle, double* column_sums, bool check_finite,
                    int threads) {
  const Index depth = engine.Y.depth(), columns = engine.Y.columns();
  if (works_by_slabs<T>(depth, columns))
    return symmetric_by_slabs(engine, triangle, column_sums, check_finite, threads);
  symmetric_by_tiles(engine, triangle, column_sums, threads);
  return check_finite ? diagonal_report(triangle, columns) : Report{};
}

}  // namespace

template <class T>
bool works_by_slabs(Index depth, Index columns) {
  return depth >= 8 * columns && panel_count<T>(columns) <= 48;
}

template <class T, class S>
Report symmetric_product(const Operand<T, S>& Y, T* triangle, double* column_sums,
                         bool check_finite, int threads) {
  const Index depth = Y.depth(), columns = Y.columns();
  if (depth == 0 || columns == 0) return {};
  // Reading a value counts as four flops.
  threads = useful_threads(
      threads, static_cast<double>(depth) * static_cast<double>(columns * (columns + 5)));
  if constexpr (std::is_same_v<T, S>) {
    const Index fold = kColumns / columns;
    if (fold > 1 && depth >= 8 * kColumns && Y.X.rowStride() == columns &&
        reading_of(Y, column_sums != nullptr).bare > 0)
      return symmetric_folded(Y, fold, triangle, check_finite, threads);
  }
  if constexpr (kHasPairs && std::is_same_v<T, float> && std::is_same_v<S, BFloat16>) {
    if (!Y.affine() && !column_sums)
      return symmetric_by(Pairing{Y}, triangle, nullptr, check_finite, threads);
  }
  return symmetric_by(Widening<T, S>{Y}, triangle, column_sums, check_finite, threads);
}

template <class T>
Report symmetric_product(const Source<T>& Y, T* triangle, bool check_finite, int threads) {
  const Index depth = Y.depth(), columns = Y.columns();
  if (depth == 0 || columns == 0) return {};
  threads = useful_threads(
      threads, static_cast<double>(depth) * static_cast<double>(columns * (columns + 5)));
  return symmetric_by(Gathering<T>{Y, Rooms<T>(threads, Y.room())}, triangle, nullptr, check_finite,
                      threads);
}

template Report symmetric_product(const Source<double>&, double*, bool, int);
template Report symmetric_product(const Source<float>&, float*, bool, int);
template bool works_by_slabs<double>(Index, Index);
template bool works_by_slabs<float>(Index, Index);
#define FASTFISHER_INSTANTIATE(S, T) \
  template Report symmetric_product(const Operand<T, S>&, T*, double*, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
