// Panels and packing: how the rows of a matrix enter the product engine.
#pragma once

#include "memory.hpp"
#include "report.hpp"
#include "simd.hpp"
#include "types.hpp"

namespace fastfisher {

// The register block: kRowVectors vectors of rows by kColumns broadcast columns. With 32 registers
// 24 accumulators + 3 rows + 1 broadcast, with 16 registers 12 + 3 + 1.
constexpr int kRowVectors = 3;
constexpr int kColumns = kVectorRegisters >= 32 ? 8 : 4;

// A panel is kPanel<T> columns wide: 192 bytes, three AVX-512 registers, whatever the instruction
// set, so what is stored in panels (triangle.hpp) can travel between machines.
template <class T>
constexpr int kPanel = 192 / static_cast<int>(sizeof(T));

// An operand of the engine: Y[k, j] = (X[k, j] - shift) · scale, k the index that is summed over.
// Weights, centring and widening happen here, while packing, so no kernel ever sees them and no
// (n, p) temporary exists. Null pointers mean "none".
//   scores of a Fisher   k = sample, j = parameter:  scale √w by k, shift mean by j
//   scores of a Gram     k = parameter, j = sample:  scale √w by j, shift mean by k
// Complex numbers enter as twice as many columns, real and imaginary parts in turn: column j of X
// is the pair 2j, 2j + 1 (parts = 2; X then views the real parts, and the imaginary ones follow
// them in memory). A scale is one number for the pair, a shift two.
template <class T, class S = T>
struct Operand {
  ConstMatrix<S> X;                    // (depth, columns / parts), any strides
  const T* scale_by_depth = nullptr;   // (depth,)
  const T* shift_by_depth = nullptr;   // (depth · parts,)
  const T* scale_by_column = nullptr;  // (columns / parts,)
  const T* shift_by_column = nullptr;  // (columns,)
  Index parts = 1;

  bool affine() const {
    return scale_by_depth || shift_by_depth || scale_by_column || shift_by_column;
  }
  Index depth() const { return X.rows(); }
  Index columns() const { return parts * X.cols(); }
};

// How many real numbers a score is.
template <class S>
constexpr Index kParts = 1;
template <class S>
constexpr Index kParts<std::complex<S>> = 2;

template <class T, class S>
Operand<T, S> operand_of(const ConstMatrix<S>& X) {
  return {X};
}
template <class T, class S>
Operand<T, S> operand_of(const ConstMatrix<std::complex<S>>& X) {
  Operand<T, S> Y{ConstMatrix<S>(reinterpret_cast<const S*>(X.data()), X.rows(), X.cols(),
                                 Strides(2 * X.rowStride(), 2 * X.colStride()))};
  Y.parts = 2;
  return Y;
}

// Pairs that lie side by side are real rows of twice the length, which are packed in runs.
template <class T, class S>
Operand<T, S> flattened(const Operand<T, S>& Y) {
  if (Y.parts != 2 || Y.X.colStride() != 2 || Y.scale_by_column || Y.shift_by_depth) return Y;
  return {ConstMatrix<S>(Y.X.data(), Y.depth(), Y.columns(), Strides(Y.X.rowStride(), 1)),
          Y.scale_by_depth, nullptr, nullptr, Y.shift_by_column};
}

// Packs rows [k0, k0 + depth) of panels [panel0, panel0 + panels):
//   out[(i - panel0) * stride + k * W + r] = Y[k0 + k, i * W + r]
// and zero past the last column, up to the next multiple of the register block; nothing beyond.
// `out` is 64-byte aligned, stride ≥ depth * W. Cost: one read and one write of the block.
template <class T, class S>
void pack_panels(const Operand<T, S>& Y, Index k0, Index depth, Index panel0, Index panels, T* out,
                 Index stride);

// Rows stay rows, for multiply_rows:
//   out[k * ld + j] = Y[k0 + k, column0 + j],  j < columns ≤ ld
// and zero from there to ld. With pairs, column0 is even. Cost: one read and one write of the
// block.
template <class T, class S>
void pack_rows(const Operand<T, S>& Y, Index k0, Index depth, Index column0, Index columns, T* out,
               Index ld);

// sums[i * W + r] += Σ_k scale[k] · P[i * stride + k * W + r] over `depth` packed rows of `panels`
// panels; scale null for ones. In double from block to block.
template <class T>
void add_packed_rows(const T* packed, Index depth, Index panels, Index stride, const T* scale,
                     double* sums);

// Names the first (row-major) NaN or infinity of X, NonFinite with row, col and value; Success if
// there is none. One read of X in its memory order, in parallel; the place is searched for only on
// a hit. A complex X is read as its real and its imaginary parts.
template <class S>
Report find_nonfinite(const ConstMatrix<S>& X, int threads);
template <class S>
Report find_nonfinite(const ConstMatrix<std::complex<S>>& X, int threads);

}  // namespace fastfisher
