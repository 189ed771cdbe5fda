// Lanes: how a group of kLanes matrices becomes one structure of arrays, and comes back.
#pragma once

#include "simd.hpp"
#include "types.hpp"

namespace fastfisher {

// `count` matrices (rows, cols) at any element strides, also zero or negative.
template <class T>
struct ConstBatch {
  const T* data;
  Index count, rows, cols;
  Index item, row, col;  // strides

  const T* at(Index i) const { return data + i * item; }
};

// Rows and columns of a register tile: 16 accumulators and 8 operands in 32 registers, 9 and 6
// in 16.
constexpr int kTile = kVectorRegisters >= 32 ? 4 : 3;
// What a task reads: 32 KiB amortise the ticket that it costs (30 ns).
constexpr Index kTaskBytes = 32 * 1024;
// Below so many flops a call stays on one thread: waking another takes about 5 microseconds.
constexpr double kSerialFlops = 5e4;

// Calls f(integral_constant<int, rows>) for rows in 1 … kTile.
template <class F>
FASTFISHER_INLINE void with_tile_rows(Index rows, F&& f) {
  if constexpr (kTile >= 4)
    if (rows == 4) return f(std::integral_constant<int, 4>());
  if (rows == 3) return f(std::integral_constant<int, 3>());
  if (rows == 2) return f(std::integral_constant<int, 2>());
  return f(std::integral_constant<int, 1>());
}

// Entry (i, j) of a packed lower triangle.
constexpr Index packed(Index i, Index j) { return i * (i + 1) / 2 + j; }

// The addresses of items first … first + V - 1; past the end, of the last item once more.
template <class T>
struct Group {
  static constexpr int V = kLanes<T>;
  const T* at[V];
  Index next;  // from an item to the one in its lane of the next group: prefetched meanwhile
  int used;

  Group(const ConstBatch<T>& batch, Index first_item) : next(V * batch.item) {
    used = static_cast<int>(batch.count - first_item < V ? batch.count - first_item : V);
    for (int l = 0; l < V; ++l) at[l] = batch.at(first_item + (l < used ? l : used - 1));
  }
};

// Element e of every lane's row of n contiguous numbers goes to to[place(e)]; elements from
// `wanted` on may be skipped.
template <class T, class Place>
FASTFISHER_INLINE void gather_row(const Group<T>& group, Index offset, Index n, Index wanted, T* to,
                                  Place&& place) {
  constexpr int V = kLanes<T>;
  if (n < V) {
    for (Index e = 0; e < wanted; ++e) {
      T* lanes = to + place(e) * V;
      for (int l = 0; l < V; ++l) lanes[l] = group.at[l][offset + e];
    }
    return;
  }
  for (Index e = 0; e < wanted; e += V) {
    const Index from = e + V <= n ? e : n - V;
    Vec<T> a[V];
    FASTFISHER_UNROLL
    for (int l = 0; l < V; ++l) {
      prefetch(group.at[l] + group.next + offset + from);
      a[l] = Vec<T>::load(group.at[l] + offset + from);
    }
    transpose(a);
    FASTFISHER_UNROLL
    for (int t = 0; t < V; ++t)
      if (from + t >= e && from + t < wanted) a[t].store(to + place(from + t) * V);
  }
}

// The lower triangle of a (p, p) batch, packed.
template <class T>
FASTFISHER_INLINE void gather_triangle(const ConstBatch<T>& F, const Group<T>& group, Index p,
                                       T* to) {
  constexpr int V = kLanes<T>;
  if (F.col == 1 && p >= V) {
    for (Index i = 0; i < p; ++i)
      gather_row(group, i * F.row, p, i + 1, to + packed(i, 0) * V, [](Index e) { return e; });
    return;
  }
  if (F.col == 1 && F.row == p && p * p >= V) {  // rows are shorter than a register: read across
    Index i = 0, j = 0;
    for (Index e = 0; e < p * p; e += V) {
      const Index from = e + V <= p * p ? e : p * p - V;
      Vec<T> a[V];
      FASTFISHER_UNROLL
      for (int l = 0; l < V; ++l) {
        prefetch(group.at[l] + group.next + from);
        a[l] = Vec<T>::load(group.at[l] + from);
      }
      transpose(a);
      FASTFISHER_UNROLL
      for (int t = 0; t < V; ++t) {
        if (from + t < e) continue;
        if (j <= i) a[t].store(to + packed(i, j) * V);
        if (++j == p) j = 0, ++i;
      }
    }
    return;
  }
  for (Index i = 0; i < p; ++i)
    for (Index j = 0; j <= i; ++j)
      for (int l = 0; l < V; ++l) to[packed(i, j) * V + l] = group.at[l][i * F.row + j * F.col];
}

// Columns from … from + cols - 1 of a (p, k) batch: entry (i, c) goes to to[i·pitch + c].
template <class T>
void gather_columns(const ConstBatch<T>& B, const Group<T>& group, Index from, Index cols,
                    Index pitch, T* to) {
  constexpr int V = kLanes<T>;
  const Index p = B.rows;
  if (B.cols == 1 && B.row == 1) {
    gather_row(group, 0, p, p, to, [pitch](Index e) { return e * pitch; });
  } else if (B.col == 1 && cols >= V) {
    for (Index i = 0; i < p; ++i)
      gather_row(group, i * B.row + from, cols, cols, to + i * pitch * V,
                 [](Index e) { return e; });
  } else {
    for (Index i = 0; i < p; ++i)
      for (Index c = 0; c < cols; ++c)
        for (int l = 0; l < V; ++l)
          to[(i * pitch + c) * V + l] = group.at[l][i * B.row + (from + c) * B.col];
  }
}

// Rows from … from + rows - 1 of a (n, k) batch, one after the other.
template <class T>
void gather_rows(const ConstBatch<T>& S, const Group<T>& group, Index from, Index rows, T* to) {
  constexpr int V = kLanes<T>;
  const Index k = S.cols;
  const auto here = [](Index e) { return e; };
  if (S.row == k && (S.col == 1 || k == 1)) {
    gather_row(group, from * k, rows * k, rows * k, to, here);
  } else if (S.col == 1 && k >= V) {
    for (Index t = 0; t < rows; ++t)
      gather_row(group, (from + t) * S.row, k, k, to + t * k * V, here);
  } else {
    for (Index t = 0; t < rows; ++t)
      for (Index c = 0; c < k; ++c)
        for (int l = 0; l < V; ++l)
          to[(t * k + c) * V + l] = group.at[l][(from + t) * S.row + c * S.col];
  }
}

// Element e of every lane, from[place(e)], goes to out + lane·item + e, for e = 0 … n - 1.
template <class T, class Place>
FASTFISHER_INLINE void scatter_row(const T* from, T* out, Index item, int used, Index n,
                                   Place&& place) {
  constexpr int V = kLanes<T>;
  Index e = 0;
  for (; e + V <= n; e += V) {
    Vec<T> a[V];
    FASTFISHER_UNROLL
    for (int t = 0; t < V; ++t) a[t] = Vec<T>::load(from + place(e + t) * V);
    transpose(a);
    FASTFISHER_UNROLL
    for (int l = 0; l < V; ++l)
      if (l < used) a[l].store(out + l * item + e);
  }
  for (; e < n; ++e) {
    const T* lanes = from + place(e) * V;
    for (int l = 0; l < used; ++l) out[l * item + e] = lanes[l];
  }
}

// A packed lower triangle as full symmetric (p, p) matrices.
template <class T>
void scatter_symmetric(const T* from, T* out, int used, Index p) {
  for (Index i = 0; i < p; ++i)
    scatter_row(from, out + i * p, p * p, used, p,
                [i](Index j) { return j <= i ? packed(i, j) : packed(j, i); });
}

}  // namespace fastfisher
