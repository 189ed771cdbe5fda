// The micro-kernel: one register block of a product, on which every O(n p²) and O(p³) job runs.
#pragma once

#include "pack.hpp"

namespace fastfisher {

// Rows per packed block: a panel's is kDepth × 192 bytes, 48 kB. From 160 to 384 make no difference
// that could be measured (Zen 4 and Granite Rapids, 4096 × 2048).
constexpr Index kDepth = 256;

// Memory that a later step will read, fetched into the cache while this one computes: `step` bytes
// for every k of the micro-kernel. Packing alone runs at the latency of memory, not its bandwidth.
struct Upcoming {
  const char* at;
  Index step;
};

// Where B goes on after each W terms, read across panels: `first` values on, then `more` each time.
struct Hops {
  Index first = 0, more = 0;
};

// C[r, j] += sign · Σ_k A[k, r] B[k, j] for rows [first, last) of a panel, both multiples of the
// vector length (blocks on the diagonal start below row 0, the last panel ends with the matrix),
// and kColumns columns j.
//   A[k * W + r]          aligned panel
//   B[k * BK + j * BJ]    read one value at a time: (W, 1) a packed panel, (1, W) its transpose, of
//                         which `hops` leads from each panel to the next
//   C[j * W + r]          a tile of the panel triangle, contiguous
// `next` is fetched on the way. Instantiated for float and double and these two orientations of B.
template <class T, int BK, int BJ>
void multiply_panel(Index depth, const T* A, const T* B, T* C, T sign, Index first = 0,
                    Index last = kPanel<T>, Upcoming* next = nullptr, Hops hops = {});

// The same on rows as they stand, nothing packed: A[k * ld + r] and B[k * ld + j], sign 1. Whole
// vectors and kColumns values are read, past the end of a row into the next one.
template <class T>
void multiply_rows(Index depth, const T* A, const T* B, Index ld, T* C, Index first, Index last,
                   Upcoming* next);

}  // namespace fastfisher
