// The micro-kernel: V × kColumns accumulators that stay in registers while the sum runs.
#include "block.hpp"

#include <type_traits>

namespace fastfisher {

namespace {

// Terms of the sum per turn of the loop: pointer arithmetic competes with the multiply-adds for the
// two ports that take 512 bits. With 1 the kernel reaches 87 % of the FMA peak, with 4 91 %
// (Granite Rapids, operands in the second-level cache).
constexpr Index kTerms = 4;

// A stride that is known when compiling, as those of panels are, or else an Index.
template <Index N>
using Known = std::integral_constant<Index, N>;

// C += sign · AᵀB for V vectors of rows; a_step and b_step lead from one k to the next. C's lines
// are fetched one by one while the sum runs: all at once they would hold up the lines of A.
template <class T, int V, int BJ, class AStep, class BStep>
FASTFISHER_INLINE void multiply_block(Index depth, const T* FASTFISHER_RESTRICT A, AStep a_step,
                                      const T* FASTFISHER_RESTRICT B, BStep b_step,
                                      T* FASTFISHER_RESTRICT C, T sign, Upcoming& next, Hops hops) {
  constexpr int lanes = kLanes<T>;
  constexpr int W = kPanel<T>;
  Vec<T> sum[V][kColumns];
  FASTFISHER_UNROLL
  for (int v = 0; v < V; ++v) {
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) sum[v][j] = Vec<T>::zero();
  }
  const auto multiply = [&](const T* FASTFISHER_RESTRICT a_k, const T* FASTFISHER_RESTRICT b_k) {
    Vec<T> a[V];
    FASTFISHER_UNROLL
    for (int v = 0; v < V; ++v) a[v] = Vec<T>::load(a_k + v * lanes);
    FASTFISHER_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      const Vec<T> b = Vec<T>::broadcast(b_k[j * BJ]);
      FASTFISHER_UNROLL
      for (int v = 0; v < V; ++v) sum[v][j] = fma(a[v], b, sum[v][j]);
    }
  };
  constexpr Index tile = kColumns * W * static_cast<Index>(sizeof(T)), turns = kDepth / kTerms;
  constexpr Index c_step = ceil_div(tile, turns);
  const char* at = next.at;
  const char* c_at = reinterpret_cast<const char*>(C);
  const Index step = 2 * next.step;
  const auto accumulate = [&](Index terms, const T* FASTFISHER_RESTRICT b) {
    for (; terms >= kTerms; terms -= kTerms, A += kTerms * a_step, b += kTerms * b_step) {
      prefetch_for_write(c_at), c_at += c_step;
      FASTFISHER_UNROLL
      for (Index k = 0; k < kTerms; ++k) {
        if (k % 2 == 0) prefetch(at), at += step;
        multiply(A + k * a_step, b + k * b_step);
      }
    }
    for (; terms > 0; --terms, A += a_step, b += b_step) multiply(A, b);
  };
  if constexpr (BJ == 1) {
    accumulate(depth, B);
  } else {  // one panel of B after the other
    for (; depth > W; depth -= W, B += hops.first, hops.first += hops.more) accumulate(W, B);
    accumulate(depth, B);
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

// Rows [first, last) in blocks of kRowVectors vectors, the last block of what is left.
template <class T, int BJ, class AStep, class BStep>
FASTFISHER_INLINE void multiply_column(Index depth, const T* A, AStep a_step, const T* B,
                                       BStep b_step, T* C, T sign, Index first, Index last,
                                       Upcoming* next, Hops hops = {}) {
  constexpr Index lanes = kLanes<T>;
  Upcoming nothing{reinterpret_cast<const char*>(C), 0};
  Upcoming& ahead = next ? *next : nothing;
  static_assert(kRowVectors == 3, "the cases below are the block heights");
  for (Index r = first; r < last; r += kRowVectors * lanes) {
    switch ((last - r) / lanes) {
      case 1:
        multiply_block<T, 1, BJ>(depth, A + r, a_step, B, b_step, C + r, sign, ahead, hops);
        break;
      case 2:
        multiply_block<T, 2, BJ>(depth, A + r, a_step, B, b_step, C + r, sign, ahead, hops);
        break;
      default:
        multiply_block<T, 3, BJ>(depth, A + r, a_step, B, b_step, C + r, sign, ahead, hops);
    }
  }
}

}  // namespace

template <class T, int BK, int BJ>
void multiply_panel(Index depth, const T* A, const T* B, T* C, T sign, Index first, Index last,
                    Upcoming* next, Hops hops) {
  multiply_column<T, BJ>(depth, A, Known<kPanel<T>>(), B, Known<BK>(), C, sign, first, last, next,
                         hops);
}

template <class T>
void multiply_rows(Index depth, const T* A, const T* B, Index ld, T* C, Index first, Index last,
                   Upcoming* next) {
  multiply_column<T, 1>(depth, A, ld, B, ld, C, T(1), first, last, next);
}

#define FASTFISHER_INSTANTIATE(T)                                                               \
  template void multiply_panel<T, kPanel<T>, 1>(Index, const T*, const T*, T*, T, Index, Index, \
                                                Upcoming*, Hops);                               \
  template void multiply_panel<T, 1, kPanel<T>>(Index, const T*, const T*, T*, T, Index, Index, \
                                                Upcoming*, Hops);                               \
  template void multiply_rows(Index, const T*, const T*, Index, T*, Index, Index, Upcoming*);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
