// bfloat16 by dot products of pairs: packing two rows into one, and the two register blocks.
#include "pairs.hpp"

#if defined(__AVX512BF16__) || defined(__AMX_BF16__)

#include <algorithm>

namespace fastfisher {

namespace {

constexpr Index W = kPanel<float>, kSide = 16;

Pair pair_of(const ConstMatrix<BFloat16>& X, Index k, Index last, Index j) {
  if (j >= X.cols()) return 0;
  const auto bits = [&](Index row) {
    return row < last ? Pair{X.data()[row * X.rowStride() + j * X.colStride()].bits} : Pair{0};
  };
  return bits(k) | bits(k + 1) << 16;
}

// One row of pairs of a panel.
void pack_row(const ConstMatrix<BFloat16>& X, Index k, Index last, Index column0, Pair* out) {
  const bool whole = X.colStride() == 1 && k + 1 < last && column0 + W <= X.cols();
  if (!whole) {
    for (Index r = 0; r < W; ++r) out[r] = pair_of(X, k, last, column0 + r);
    return;
  }
  const BFloat16* row = X.data() + k * X.rowStride() + column0;
  for (Index r = 0; r < W; r += kSide) interleave<kSide>(row + r, row + X.rowStride() + r, out + r);
}

}  // namespace

void pack_pairs(const ConstMatrix<BFloat16>& X, Index k0, Index depth, Index panel0, Index panels,
                Pair* out, Index stride) {
  const Index last = k0 + depth;
  for (Index i = 0; i < panels; ++i) {
    Pair* to = out + i * stride;
    const Index column0 = (panel0 + i) * W;
    if constexpr (kHasTiles) {
      for (Index k = k0; k < last; k += 2 * kSide, to += 2 * kSide * W) {
        for (Index q = 0; q < kSide; ++q) pack_row(X, k + 2 * q, last, column0, to + q * W);
        Pair* turned = to + kSide * W;
        for (Index r = 0; r < W; r += kSide, turned += kSide * kSide)
          transpose_words(to + r, W, turned);
      }
    } else {
      for (Index k = k0; k < last; k += 2, to += W) pack_row(X, k, last, column0, to);
    }
  }
}

#if defined(__AMX_BF16__)

namespace {

// C (V × 16 rows of a panel, 16 columns) += over groups of 16 pairs: tiles 0–2 hold C, which lies
// column by column, so its tile rows are columns; 3–5 the panel's rows, 6 the columns, transposed.
template <int V>
void multiply_tile(Index groups, const Pair* panel, const Pair* turned, float* C) {
  constexpr Index step = 2 * kSide * W, line = W * static_cast<Index>(sizeof(float));
  tile_load<0>(C, line);
  if constexpr (V > 1) tile_load<1>(C + kSide, line);
  if constexpr (V > 2) tile_load<2>(C + 2 * kSide, line);
  for (Index g = 0; g < groups; ++g, panel += step, turned += step) {
    tile_load<6>(turned, kSide * static_cast<Index>(sizeof(Pair)));
    tile_load<3>(panel, line);
    tile_dot<0, 6, 3>();
    if constexpr (V > 1) {
      tile_load<4>(panel + kSide, line);
      tile_dot<1, 6, 4>();
    }
    if constexpr (V > 2) {
      tile_load<5>(panel + 2 * kSide, line);
      tile_dot<2, 6, 5>();
    }
  }
  tile_store<0>(C, line);
  if constexpr (V > 1) tile_store<1>(C + kSide, line);
  if constexpr (V > 2) tile_store<2>(C + 2 * kSide, line);
}

}  // namespace

void multiply_pairs(Index depth, const Pair* packed, Index stride, Index i0, Index i1, Index c0,
                    Index c1, Index params, float* triangle) {
  const Index groups = ceil_div(depth, 2 * kSide);
  tiles_on();
  for (Index i = i0; i < i1; ++i)  // a panel stays in the first-level cache for all its columns
    for (Index c = c0; c < std::min({c1, params, (i + 1) * W}); c += kSide) {
      const Index j = c / W, first = i == j ? c % W : 0;
      const Pair* panel = packed + i * stride + first;
      const Pair* turned = packed + j * stride + kSide * W + c % W * kSide;
      float* C = triangle + panel_offset<float>(i) + c * W + first;
      if (first == 0)
        multiply_tile<3>(groups, panel, turned, C);
      else if (first == kSide)
        multiply_tile<2>(groups, panel, turned, C);
      else
        multiply_tile<1>(groups, panel, turned, C);
    }
  tiles_off();
}

#else

namespace {

// C (V vectors of rows, kColumns columns) += over `pairs` pairs of rows.
template <int V>
void multiply_block(Index pairs, const Pair* A, const Pair* B, float* C) {
  constexpr Index lanes = kLanes<float>;
  Vec<float> sum[V][kColumns];
  FASTFISHER_UNROLL
  for (int v = 0; v < V; ++v) {
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[v][j] = Vec<float>::load(C + j * W + v * lanes);
  }
  for (Index k = 0; k < pairs; ++k, A += W, B += W) {
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      FASTFISHER_UNROLL
      for (int v = 0; v < V; ++v) sum[v][j] = dot_pairs(A + v * lanes, B[j], sum[v][j]);
    }
  }
  FASTFISHER_UNROLL
  for (int v = 0; v < V; ++v) {
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[v][j].store(C + j * W + v * lanes);
  }
}

}  // namespace

void multiply_pairs(Index depth, const Pair* packed, Index stride, Index i0, Index i1, Index c0,
                    Index c1, Index params, float* triangle) {
  const Index pairs = ceil_div(depth, 2);
  c1 = std::min(c1, params);
  for (Index c = c0; c < c1; c += kColumns) {
    const Index j = c / W;
    const Pair* B = packed + j * stride + c % W;
    for (Index i = std::max(i0, j); i < i1; ++i) {
      const Index first = i == j ? c % W / kSide * kSide : 0;
      const Pair* A = packed + i * stride + first;
      float* C = triangle + panel_offset<float>(i) + c * W + first;
      if (first == 0)
        multiply_block<3>(pairs, A, B, C);
      else if (first == kSide)
        multiply_block<2>(pairs, A, B, C);
      else
        multiply_block<1>(pairs, A, B, C);
    }
  }
}

#endif

}  // namespace fastfisher

#endif
