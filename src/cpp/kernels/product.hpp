// The product engine: packed, register-blocked XᵀX and XᵀY, on which every O(n p²) and O(p³) job
// runs.
#pragma once

#include "pack.hpp"
#include "report.hpp"
#include "triangle.hpp"

namespace fastfisher {

// Rows per packed block: a panel's is kDepth × 192 bytes, 48 kB. From 192 to 384 make no difference
// that could be measured (Zen 4, 4096 × 2048).
constexpr Index kDepth = 256;

// Memory that a later step will read, fetched into the cache while this one computes: `step` bytes
// for every k of the micro-kernel. Packing alone runs at the latency of memory, not its bandwidth.
struct Upcoming {
  const char* at;
  Index step;
};

// THE micro-kernel. C[r, j] += sign · Σ_k A[k, r] B[k, j] for rows [first, last) of a panel, both
// multiples of the vector length (blocks on the diagonal start below row 0, the last panel ends
// with the matrix), and kColumns columns j.
//   A[k * W + r]          aligned panel
//   B[k * BK + j * BJ]    read one value at a time: (W, 1) a packed panel, (1, W) its transpose
//   C[j * W + r]          a tile of the panel triangle, contiguous
// `next` is fetched on the way. Instantiated in product.cpp for float and double and these two
// orientations of B.
template <class T, int BK, int BJ>
void multiply_panel(Index depth, const T* A, const T* B, T* C, T sign, Index first = 0,
                    Index last = kPanel<T>, Upcoming* next = nullptr);

// Rows of panel i that exist, rounded up to whole vectors.
template <class T>
constexpr Index panel_rows(Index i, Index params) {
  const Index rows = params - i * kPanel<T>;
  return rows >= kPanel<T> ? kPanel<T> : ceil_div(rows, kLanes<T>) * kLanes<T>;
}

// triangle += YᵀY for an operand Y (depth, columns): np.tril(Y.T @ Y).
// Two schedules, chosen by the shape alone: row slabs with a partial triangle each (tall Y) or
// output tiles over shared packed chunks. With `check_finite`, NonFinite reports a NaN or infinity
// in Y; the triangle is then unchanged after slabs and undefined after tiles. Same bits for any
// thread count. depth·columns·(columns+1) flops.
template <class T, class S>
Report symmetric_product(const Operand<T, S>& Y, T* triangle, bool check_finite, int threads);

// True where symmetric_product works by slabs, so leaves the triangle alone when it reports
// NonFinite.
template <class T>
bool works_by_slabs(Index depth, Index columns);

// out = XᵀY for X (depth, m), Y (depth, q), out (m, q) with any strides: X.T @ Y.
template <class T>
void product(const ConstMatrix<T>& X, const ConstMatrix<T>& Y, Matrix<T> out, int threads);

}  // namespace fastfisher
