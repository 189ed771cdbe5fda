// Dots and sums over lines: the two register-blocked loops that every streaming kernel is made of.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.hpp"
#include "types.hpp"

namespace fastfisher {

// A line is a run of scores that lie next to each other: a row in C order, a column in Fortran
// order. `count` lines of `length` entries, `stride` apart. A line is read as `vectors` whole
// registers; where `tail` is set one more register covers its last kLanes entries and overlaps the
// one before, so nothing outside the array is ever read and no lane is masked. What goes along a
// line (`spread` below) has the same form and is zero, or is ignored, in the overlap.
template <class S>
struct Lines {
  const S* data;
  Index stride;
  Index count;
  Index length;
  Index vectors;
  bool tail;
  Index ahead;  // entries from here to the block that is read next: prefetched while this one is used

  const S* last(Index line, int lanes) const { return data + line * stride + length - lanes; }
};

// Entries that a spread line takes, for a line of `length`.
template <class A>
Index spread_size(Index length) {
  return ceil_div(length, kLanes<A>) * kLanes<A>;
}

// Lays value(0 … length-1) out along a line, zero in the lanes that the tail reads twice.
template <class A, class S, class Value>
void spread(const Lines<S>& x, Index length, Value value, A* out) {
  constexpr Index L = kLanes<A>;
  const Index whole = std::min(x.vectors * L, length);
  for (Index l = 0; l < whole; ++l) out[l] = static_cast<A>(value(l));
  const Index size = (x.vectors + x.tail) * L;
  std::fill(out + whole, out + size, A(0));
  for (Index l = whole; l < length; ++l) out[size - length + l] = static_cast<A>(value(l));
}

// Where entry l of a line stands in its spread form.
template <class A, class S>
Index spread_place(const Lines<S>& x, Index length, Index l) {
  constexpr Index L = kLanes<A>;
  return l < x.vectors * L ? l : (x.vectors + 1) * L - length + l;
}

// What is subtracted from the scores: nothing, a value for each place along the line (spread, but
// with the true values in the overlap), or a value for each line.
#ifdef NOPF
#define FASTFISHER_PREFETCH(p) ((void)(ahead))
#else
#define FASTFISHER_PREFETCH(p) prefetch(p)
#endif
enum class Centre { None, Along, Across };

template <Centre M, bool Squared, class A, class S>
FASTFISHER_INLINE Vec<A> entry(const S* x, Vec<A> centre) {
  Vec<A> e = Vec<A>::load(x);
  if constexpr (M != Centre::None) e = e - centre;
  if constexpr (Squared) e = e * e;
  return e;
}

// Register blocks. `dots` holds I·J accumulators, `sums` I·J factors: half of the registers.
constexpr int kRhsBlock = 4;  // right-hand sides that share one load of the scores
template <int J>
constexpr int kDotLines = kVectorRegisters >= 32 || J <= 2 ? 4 : 2;
template <int J>
constexpr int kSumLines = (kVectorRegisters >= 32 ? 16 : 8) / (J == 1 ? (kVectorRegisters >= 32 ? 2 : 1) : J == 3 ? 4 : J);

// Lines taken together, and how far along them before the next four right-hand sides take the same
// stretch: 8 lines of it fill an L1 of 32 kB.
constexpr Index kLineGroup = 8;
constexpr Index kStretch = 4096 / kVectorBytes;

// a[i, j] += Σ_l e(i, l) y_j[l] for I lines and J right-hand sides, registers begin … end-1.
struct Dots {
  template <int J>
  static constexpr int lines = kDotLines<J>;

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static void tile(const Lines<S>& x, Index line, Index begin, Index end, bool tail, const A* centre,
                   A* y, Index ldy, A* a, Index lda) {
    constexpr Index L = kLanes<A>;
    Vec<A> acc[I][J], across[I];
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      across[i] = M == Centre::Across ? Vec<A>::broadcast(centre[line + i]) : Vec<A>::zero();
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) acc[i][j] = Vec<A>::zero();
    }
    const auto along = [&](Index v) { return M == Centre::Along ? centre + v * L : nullptr; };
    const S* first = x.data + line * x.stride;
    for (Index v = begin; v < end; ++v)
      step<I, J, M, Squared>(first + v * L, x.stride, x.ahead, across, along(v), y + v * L, ldy, acc);
    if (tail)
      step<I, J, M, Squared>(x.last(line, L), x.stride, 0, across, along(x.vectors), y + x.vectors * L,
                             ldy, acc);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) a[(line + i) * lda + j] += sum(acc[i][j]);
    }
  }

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static FASTFISHER_INLINE void step(const S* x, Index stride, Index ahead, const Vec<A> (&across)[I],
                                     const A* along, const A* y, Index ldy, Vec<A> (&acc)[I][J]) {
    Vec<A> right[J];
    FASTFISHER_UNROLL
    for (int j = 0; j < J; ++j) right[j] = Vec<A>::load(y + j * ldy);
    Vec<A> centre = Vec<A>::zero();
    if constexpr (M == Centre::Along) centre = Vec<A>::load(along);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      FASTFISHER_PREFETCH(x + i * stride + ahead);
      const Vec<A> e = entry<M, Squared>(x + i * stride, M == Centre::Across ? across[i] : centre);
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) acc[i][j] = fma(e, right[j], acc[i][j]);
    }
  }
};

// y_j[l] += Σ_i a[i, j] e(i, l) for I lines and J right-hand sides, registers begin … end-1.
struct Sums {
  template <int J>
  static constexpr int lines = kSumLines<J>;

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static void tile(const Lines<S>& x, Index line, Index begin, Index end, bool tail, const A* centre,
                   A* y, Index ldy, A* a, Index lda) {
    constexpr Index L = kLanes<A>;
    Vec<A> factor[I][J], across[I];
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      across[i] = M == Centre::Across ? Vec<A>::broadcast(centre[line + i]) : Vec<A>::zero();
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) factor[i][j] = Vec<A>::broadcast(a[(line + i) * lda + j]);
    }
    const auto along = [&](Index v) { return M == Centre::Along ? centre + v * L : nullptr; };
    const S* first = x.data + line * x.stride;
    for (Index v = begin; v < end; ++v)
      step<I, J, M, Squared>(first + v * L, x.stride, x.ahead, across, along(v), y + v * L, ldy, factor);
    if (tail)
      step<I, J, M, Squared>(x.last(line, L), x.stride, 0, across, along(x.vectors), y + x.vectors * L,
                             ldy, factor);
  }

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static FASTFISHER_INLINE void step(const S* x, Index stride, Index ahead, const Vec<A> (&across)[I],
                                     const A* along, A* y, Index ldy, const Vec<A> (&factor)[I][J]) {
    Vec<A> acc[J];
    FASTFISHER_UNROLL
    for (int j = 0; j < J; ++j) acc[j] = Vec<A>::load(y + j * ldy);
    Vec<A> centre = Vec<A>::zero();
    if constexpr (M == Centre::Along) centre = Vec<A>::load(along);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      FASTFISHER_PREFETCH(x + i * stride + ahead);
      const Vec<A> e = entry<M, Squared>(x + i * stride, M == Centre::Across ? across[i] : centre);
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) acc[j] = fma(e, factor[i][j], acc[j]);
    }
    FASTFISHER_UNROLL
    for (int j = 0; j < J; ++j) acc[j].store(y + j * ldy);
  }
};

template <class Job, int J, Centre M, bool Squared, class S, class A>
void tiles(const Lines<S>& x, Index line, Index end_line, Index begin, Index end, bool tail,
           const A* centre, A* y, Index ldy, A* a, Index lda) {
  constexpr int I = Job::template lines<J>;
  for (; line + I <= end_line; line += I)
    Job::template tile<I, J, M, Squared>(x, line, begin, end, tail, centre, y, ldy, a, lda);
  for (; line < end_line; ++line)
    Job::template tile<1, J, M, Squared>(x, line, begin, end, tail, centre, y, ldy, a, lda);
}

template <class Job, Centre M, bool Squared, class S, class A>
void over_lines(const Lines<S>& x, const A* centre, A* y, Index ldy, Index rhs, A* a, Index lda) {
  for (Index line = 0; line < x.count; line += kLineGroup) {
    const Index last = std::min(line + kLineGroup, x.count);
    Index begin = 0;
    do {
      // One right-hand side has nobody to share a stretch with.
      const bool final = rhs <= kRhsBlock || x.vectors - begin < 2 * kStretch;
      const Index end = final ? x.vectors : begin + kStretch;
      const bool tail = final && x.tail;
      for (Index j = 0; j < rhs; j += kRhsBlock) {
        A* yj = y + j * ldy;
        switch (std::min<Index>(kRhsBlock, rhs - j)) {
          case 1: tiles<Job, 1, M, Squared>(x, line, last, begin, end, tail, centre, yj, ldy, a + j, lda); break;
          case 2: tiles<Job, 2, M, Squared>(x, line, last, begin, end, tail, centre, yj, ldy, a + j, lda); break;
          case 3: tiles<Job, 3, M, Squared>(x, line, last, begin, end, tail, centre, yj, ldy, a + j, lda); break;
          default: tiles<Job, 4, M, Squared>(x, line, last, begin, end, tail, centre, yj, ldy, a + j, lda);
        }
      }
      begin = end;
    } while (begin < x.vectors);
  }
}

// a[i, j] += Σ_l e(i, l) y_j[l],   e = x − centre, or its square        A += E @ Y.T
//
//   x       count lines of length          any stride between lines
//   y       (rhs, ldy)   spread            a  (count, lda)
//   centre  spread (Along), (count,) (Across), unused (None)
//
// No argument may overlap another. One thread. 2·count·length·rhs flops; the lines are read from
// memory once, from L1 for every further four right-hand sides. Cannot fail.
template <Centre M, bool Squared, class S, class A>
void dots(const Lines<S>& x, const A* centre, const A* y, Index ldy, Index rhs, A* a, Index lda) {
  over_lines<Dots, M, Squared>(x, centre, const_cast<A*>(y), ldy, rhs, a, lda);
}

// y_j[l] += Σ_i a[i, j] e(i, l),   e = x − centre, or its square        Y += A.T @ E
//
// Shapes, aliasing, cost as in dots; a is read, y is written.
template <Centre M, bool Squared, class S, class A>
void sums(const Lines<S>& x, const A* centre, const A* a, Index lda, Index rhs, A* y, Index ldy) {
  over_lines<Sums, M, Squared>(x, centre, y, ldy, rhs, const_cast<A*>(a), lda);
}

}  // namespace fastfisher
