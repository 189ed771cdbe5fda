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
template <class T, class S = T>
struct Operand {
  ConstMatrix<S> X;                    // (depth, columns), any strides
  const T* scale_by_depth = nullptr;   // (depth,)
  const T* shift_by_depth = nullptr;   // (depth,)
  const T* scale_by_column = nullptr;  // (columns,)
  const T* shift_by_column = nullptr;  // (columns,)

  bool affine() const {
    return scale_by_depth || shift_by_depth || scale_by_column || shift_by_column;
  }
  Index depth() const { return X.rows(); }
  Index columns() const { return X.cols(); }
};

// Packs rows [k0, k0 + depth) of panels [panel0, panel0 + panels):
//   out[(i - panel0) * stride + k * W + r] = Y[k0 + k, i * W + r]
// and zero past the last column, up to the next multiple of the register block; nothing beyond.
// `out` is 64-byte aligned, stride ≥ depth * W. Cost: one read and one write of the block.
template <class T, class S>
void pack_panels(const Operand<T, S>& Y, Index k0, Index depth, Index panel0, Index panels, T* out,
                 Index stride);

// sums[i * W + r] += Σ_k scale[k] · P[i * stride + k * W + r] over `depth` packed rows of `panels`
// panels; scale null for ones. In double from block to block.
template <class T>
void add_packed_rows(const T* packed, Index depth, Index panels, Index stride, const T* scale,
                     double* sums);

// Names the first (row-major) NaN or infinity of X, NonFinite with row, col and value; Success if
// there is none. One read of X in its memory order, in parallel; the place is searched for only on
// a hit.
template <class S>
Report find_nonfinite(const ConstMatrix<S>& X, int threads);

}  // namespace fastfisher
