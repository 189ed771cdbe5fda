// Sums of small blocks: groups of units take rows in turn; sums of large ones: the engine's.
#include "block_sums.hpp"

#include <algorithm>
#include <cmath>

#include "product.hpp"
#include "samples.hpp"
#include "schedule.hpp"
#include "stream.hpp"

namespace fastfisher {

namespace {

// Rows of a block from which the engine takes it alone: its tile of Cholesky, whose triangle still
// fits in the second-level cache beside the rows.
constexpr Index kLarge = 192;
// Columns of a group, at least: a run of 2 kB of float64 per row.
constexpr Index kGroupColumns = 256;
// Rows that a group packs at a time: 256 to 450 kB.
constexpr Index kGroupRows = 128;
// Tasks that are enough for any machine: where groups are fewer, rows are cut too.
constexpr Index kTasks = 64;
// Rows of a slab, at least.
constexpr Index kSlabRows = 1024;

// Sums of a unit: a panel triangle, and what couples it to the unit below, in panels of the rows of
// the block there.
template <class T>
struct Place {
  Unit unit;
  Index triangle, beside;  // in the scratch of the group
  Index below, across;     // rows and columns of the coupling, 0 where there is none
};

template <class T>
struct Group {
  std::vector<Place<T>> places;
  Index column, width, ahead, scratch;  // ahead: columns of the next group that are read too
  Index ld() const {  // whole vectors are read past the last column; odd, so that rows do not alias
    const Index unit = static_cast<Index>(kCacheLine / sizeof(T));
    return (ceil_div(width + ahead + 2 * unit, unit) | 1) * unit;
  }
};

template <class T>
constexpr Index beside_size(Index below, Index across) {
  return panel_count<T>(below) * kPanel<T> * ceil_div(across, kColumns) * kColumns;
}

// Units that are not large, in groups of neighbours.
template <class T>
std::vector<Group<T>> groups_of(const Blocks<T>& blocks, const std::vector<Unit>& units) {
  std::vector<Group<T>> groups;
  bool open = false;
  for (std::size_t u = 0; u < units.size(); ++u) {
    const Unit& unit = units[u];
    if (unit.size > kLarge) {
      open = false;
      continue;
    }
    if (!open) groups.push_back({{}, unit.row, 0, 0, 0});
    Group<T>& group = groups.back();
    Place<T> place{unit, group.scratch, 0, 0, 0};
    group.scratch += triangle_size<T>(unit.size);
    if (blocks.has_neighbour(unit.last - 1) && blocks.size_of(unit.last) <= kLarge) {
      place.below = blocks.size_of(unit.last);
      place.across = blocks.size_of(unit.last - 1);
      place.beside = group.scratch;
      group.scratch += beside_size<T>(place.below, place.across);
    }
    group.ahead = place.below;
    group.width += unit.size;
    group.places.push_back(place);
    open = group.width < kGroupColumns;
  }
  return groups;
}

// sums += Σ_k scale[k] · tile[k, :columns].
template <class T>
void add_rows(const T* tile, Index ld, Index depth, Index columns, const T* scale, double* sums) {
  constexpr Index lanes = kLanes<T>;
  for (Index j = 0; j < columns; j += lanes) {
    Vec<T> total = Vec<T>::zero();
    for (Index k = 0; k < depth; ++k)
      total =
          fma(Vec<T>::broadcast(scale ? scale[k] : T(1)), Vec<T>::load(tile + k * ld + j), total);
    T lane[lanes];
    total.store(lane);
    for (Index r = 0; r < std::min(lanes, columns - j); ++r)
      sums[j + r] += static_cast<double>(lane[r]);
  }
}

// C += the sums of the group over `depth` rows of its tile.
template <class T>
void multiply_group(const Group<T>& group, const T* tile, Index ld, Index depth, T* C) {
  constexpr Index W = kPanel<T>, lanes = kLanes<T>;
  for (const Place<T>& place : group.places) {
    const T* X = tile + place.unit.row - group.column;
    const Index size = place.unit.size;
    for (Index c = 0; c < size; c += kColumns)
      for (Index i = c / W; i < panel_count<T>(size); ++i)
        multiply_rows(depth, X + i * W, X + c, ld, C + place.triangle + panel_offset<T>(i) + c * W,
                      i == c / W ? c % W / lanes * lanes : 0, panel_rows<T>(i, size), nullptr);
    const T *below = X + size, *own = below - place.across;
    const Index stride = ceil_div(place.across, kColumns) * kColumns * W;
    for (Index c = 0; c < place.across; c += kColumns)
      for (Index i = 0; i < panel_count<T>(place.below); ++i)
        multiply_rows(depth, below + i * W, own + c, ld, C + place.beside + i * stride + c * W, 0,
                      panel_rows<T>(i, place.below), nullptr);
  }
}

// F += C.
template <class T>
void add_group(const Blocks<T>& blocks, const Group<T>& group, const T* C, T* F) {
  constexpr Index W = kPanel<T>;
  for (const Place<T>& place : group.places) {
    add_unit(blocks, place.unit, C + place.triangle, F);
    if (place.below == 0) continue;
    T* to = F + blocks.beside_of(place.unit.last - 1);
    const Index stride = ceil_div(place.across, kColumns) * kColumns * W;
    for (Index r = 0; r < place.below; ++r)
      for (Index c = 0; c < place.across; ++c)
        to[r * place.across + c] += C[place.beside + r / W * stride + c * W + r % W];
  }
}

template <class T, class S>
void add_groups(const Operand<T, S>& Y, const Blocks<T>& blocks,
                const std::vector<Group<T>>& groups, T* F, double* column_sums, int threads) {
  const Index depth = Y.depth(), count = static_cast<Index>(groups.size());
  if (count == 0 || depth == 0) return;
  const Index wanted = std::clamp<Index>(kTasks / count, 1, std::max<Index>(1, depth / kSlabRows));
  const Index rows = ceil_div(ceil_div(depth, wanted), kGroupRows) * kGroupRows,
              slabs = ceil_div(depth, rows);
  Index most_scratch = 0, most_tile = 0;
  for (const Group<T>& group : groups) {
    most_scratch = std::max(most_scratch, group.scratch);
    most_tile = std::max(most_tile, group.ld() * kGroupRows);
  }
  threads =
      useful_threads(threads, 4.0 * static_cast<double>(depth) *
                                  static_cast<double>(Y.columns() * (1 + blocks.tridiagonal)));
  threads = static_cast<int>(std::min<Index>(threads, slabs * count));
  most_scratch = ceil_div(most_scratch, kPanel<T>) * kPanel<T>;
  Buffer<T> scratch(threads * (most_scratch + most_tile));
  Buffer<T> partial(slabs > 1 ? slabs * blocks.entries : 0);
  Buffer<double> sums(column_sums ? slabs * Y.columns() : 0);
  partial.zero(), sums.zero();

  run_in_order(threads, slabs * count, [&](Index task, int thread) {
    const Index slab = task / count, end = std::min(depth, (slab + 1) * rows);
    const Group<T>& group = groups[static_cast<std::size_t>(task % count)];
    T *C = scratch.data() + thread * (most_scratch + most_tile), *tile = C + most_scratch;
    const Index ld = group.ld();
    std::fill_n(C, group.scratch, T(0));
    for (Index k = slab * rows; k < end; k += kGroupRows) {
      const Index some = std::min(kGroupRows, end - k);
      pack_rows(Y, k, some, group.column, group.width + group.ahead, tile, ld);
      if (column_sums)
        add_rows(tile, ld, some, group.width, Y.scale_by_depth ? Y.scale_by_depth + k : nullptr,
                 sums.data() + slab * Y.columns() + group.column);
      multiply_group(group, tile, ld, some, C);
    }
    add_group(blocks, group, C, slabs > 1 ? partial.data() + slab * blocks.entries : F);
  });
  for (Index slab = 0; slab < slabs; ++slab) {
    if (slabs > 1)
      Vector<T>(F, blocks.entries) +=
          ConstVector<T>(partial.data() + slab * blocks.entries, blocks.entries);
    for (Index j = 0; column_sums && j < Y.columns(); ++j)
      column_sums[j] += sums[slab * Y.columns() + j];
  }
}

// Columns [first, first + size) of an operand.
template <class T, class S>
Operand<T, S> slice(const Operand<T, S>& Y, Index first, Index size) {
  Operand<T, S> part{ConstMatrix<S>(Y.X.data() + first / Y.parts * Y.X.colStride(), Y.depth(),
                                    size / Y.parts, Strides(Y.X.rowStride(), Y.X.colStride()))};
  part.scale_by_depth = Y.scale_by_depth;
  part.shift_by_column = Y.shift_by_column ? Y.shift_by_column + first : nullptr;
  part.parts = Y.parts;
  return part;
}

template <class T, class S>
void add_blocks(const Operand<T, S>& Y, const Blocks<T>& blocks,
                const std::vector<Group<T>>& groups, T* F, double* column_sums, int threads) {
  add_groups(Y, blocks, groups, F, column_sums, threads);
  const auto part = [&](Index b) { return slice(Y, blocks.row_of(b), blocks.size_of(b)); };
  for (Index b = 0; b < blocks.count; ++b) {
    const Index size = blocks.size_of(b);
    const bool large = size > kLarge;
    if (large) {
      Buffer<double> sums(column_sums ? panel_count<T>(size) * kPanel<T> : 0);
      sums.zero();
      symmetric_product(part(b), F + blocks.at_of(b), column_sums ? sums.data() : nullptr, false,
                        threads);
      for (Index j = 0; column_sums && j < size; ++j) column_sums[blocks.row_of(b) + j] += sums[j];
    }
    if (blocks.has_neighbour(b) && (large || blocks.size_of(b + 1) > kLarge)) {
      Matrix<T> below(F + blocks.beside_of(b), blocks.size_of(b + 1), size, Strides(size, 1));
      add_product(OperandSource<T, S>(part(b + 1)), OperandSource<T, S>(part(b)), below, threads);
    }
  }
}

// Row -1 and the first column whose sum of squares is not finite; of pairs, the sum of both.
template <class T>
Report diagonal_report(const Blocks<T>& blocks, const T* F, Index parts) {
  Buffer<T> diagonal(blocks.rows);
  blocks_diagonal(blocks, F, diagonal.data());
  for (Index j = 0; j < blocks.rows; j += parts) {
    const T sum = parts == 2 ? diagonal[j] + diagonal[j + 1] : diagonal[j];
    if (!std::isfinite(sum)) return {Status::NonFinite, -1, j, static_cast<double>(sum)};
  }
  return {};
}

// Takes what is left of the mean out of sums about `mean`; false as settle_mean says, unless this
// is the last try.
template <class T>
bool take_out_mean(double weight, const double* sums, bool last_try, const Blocks<T>& blocks,
                   T* mean, T* F, int threads) {
  Buffer<T> rest(blocks.rows), diagonal(blocks.rows);
  blocks_diagonal(blocks, F, diagonal.data());
  const auto spread = [&](Index j) { return diagonal[j]; };
  if (!settle_mean(weight, sums, blocks.rows, spread, mean, rest.data()) && !last_try) return false;
  blocks_add_outer(blocks, F, rest.data(), -weight, threads);
  for (Index b = 0; b < blocks.count; ++b)
    for (Index j = 0; j < blocks.size_of(b); ++j) {
      T& variance = F[blocks.at_of(b) +
                      (blocks.is_square(b) ? j * (blocks.size_of(b) + 1) : triangle_at<T>(j, j))];
      if (variance < T(0)) variance = T(0);
    }
  return true;
}

}  // namespace

template <class T, class S>
Report accumulate_blocks(const ConstMatrix<S>& scores, const T* weights, T* mean, bool centred,
                         const Blocks<T>& blocks, T* F, bool fresh, bool check_finite,
                         int threads) {
  auto Y = operand_of<T>(scores);
  const Index n = Y.depth(), p = Y.columns();
  const double weight = centred ? weight_sum(weights, n) : 1.0;
  if (!(weight > 0)) std::fill_n(mean, p, T(0));
  if (n == 0 || p == 0 || !(weight > 0)) return {};
  const std::vector<Group<T>> groups = groups_of(blocks, units_of(blocks));
  const Buffer<T> roots = square_roots(weights, n);
  Y.scale_by_depth = roots.data();

  const bool apart = !fresh && blocks.entries <= n * p;
  if (!fresh && !apart) {  // nothing may be added before all is known to be finite
    Report report;
    if (centred)
      report = mean_of(flattened(Y), weights, mean, check_finite, threads);
    else if (check_finite)
      report = find_nonfinite(scores, threads);
    if (!report.ok()) return named(report, scores, threads);
    Y.shift_by_column = mean;
    add_blocks(flattened(Y), blocks, groups, F, nullptr, threads);
    return {};
  }
  Buffer<T> own(apart ? blocks.entries : 0);
  own.zero();
  T* to = apart ? own.data() : F;
  Buffer<double> column_sums(centred ? p : 0);
  if (centred) provisional_mean(Y, weights, mean);
  Y.shift_by_column = mean;
  for (bool done = false, last_try = false; !done; last_try = true) {
    if (last_try) std::fill_n(to, blocks.entries, T(0));
    column_sums.zero();
    add_blocks(flattened(Y), blocks, groups, to, centred ? column_sums.data() : nullptr, threads);
    if (check_finite) {
      const Report seen = diagonal_report(blocks, to, Y.parts);
      if (!seen.ok()) return named(seen, scores, threads);
    }
    done =
        !centred || take_out_mean(weight, column_sums.data(), last_try, blocks, mean, to, threads);
  }
  if (apart) Vector<T>(F, blocks.entries) += ConstVector<T>(own.data(), blocks.entries);
  return {};
}

#define FASTFISHER_INSTANTIATE(S, T)                                                             \
  template Report accumulate_blocks(const ConstMatrix<S>&, const T*, T*, bool, const Blocks<T>&, \
                                    T*, bool, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
FASTFISHER_FOR_COMPLEX(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
