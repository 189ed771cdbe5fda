// Dots and sums over lines: the two register-blocked loops that every streaming kernel is made of.
#pragma once

#include <algorithm>
#include <type_traits>

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
constexpr int kSumLines = kVectorRegisters >= 32 || J <= 2 ? 4 : 2;

// One right-hand side takes the lines one by one while they are shorter than this: memory then sees
// a single ascending stream, which the hardware prefetcher follows at 90 % of the bandwidth. Four
// short lines at once restart four streams every few kB: 55 % (one core of Zen 4, lines of 4 kB).
constexpr Index kShortLine = 1 << 16;  // bytes

template <class S>
bool is_short(const Lines<S>& x) {
  return x.length * static_cast<Index>(sizeof(S)) <= kShortLine;
}

// Lines taken together, and how far along them before the next four right-hand sides take the same
// stretch: 8 lines of it fill an L1 of 32 kB.
constexpr Index kLineGroup = 8;
constexpr Index kStretch = 4096 / kVectorBytes;

// a[i, j] += Σ_l e(i, l) y_j[l] for I lines and J right-hand sides, registers begin … end-1.
struct Dots {
  template <int J>
  static constexpr int lines = kDotLines<J>;

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static void tile(const Lines<S>& x, Index line, Index begin, Index end, bool tail,
                   const A* centre, A* y, Index ldy, A* a, Index lda) {
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
    Index v = begin;
    if constexpr (I * J == 1) {  // four chains along the line hide the latency of the additions
      Vec<A> more[3][1][1] = {{{acc[0][0]}}, {{acc[0][0]}}, {{acc[0][0]}}};
      for (; v + 4 <= end; v += 4) {
        step<1, 1, M, Squared>(first + v * L, x.stride, across, along(v), y + v * L, ldy, acc);
        FASTFISHER_UNROLL
        for (int c = 0; c < 3; ++c) {
          const Index u = v + 1 + c;
          step<1, 1, M, Squared>(first + u * L, x.stride, across, along(u), y + u * L, ldy,
                                 more[c]);
        }
      }
      acc[0][0] = (acc[0][0] + more[0][0][0]) + (more[1][0][0] + more[2][0][0]);
    }
    for (; v < end; ++v)
      step<I, J, M, Squared>(first + v * L, x.stride, across, along(v), y + v * L, ldy, acc);
    if (tail)
      step<I, J, M, Squared>(x.last(line, L), x.stride, across, along(x.vectors), y + x.vectors * L,
                             ldy, acc);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
      FASTFISHER_UNROLL
      for (int j = 0; j < J; ++j) a[(line + i) * lda + j] += sum(acc[i][j]);
    }
  }

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static FASTFISHER_INLINE void step(const S* x, Index stride, const Vec<A> (&across)[I],
                                     const A* along, const A* y, Index ldy, Vec<A> (&acc)[I][J]) {
    Vec<A> right[J];
    FASTFISHER_UNROLL
    for (int j = 0; j < J; ++j) right[j] = Vec<A>::load(y + j * ldy);
    Vec<A> centre = Vec<A>::zero();
    if constexpr (M == Centre::Along) centre = Vec<A>::load(along);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
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
  static void tile(const Lines<S>& x, Index line, Index begin, Index end, bool tail,
                   const A* centre, A* y, Index ldy, A* a, Index lda) {
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
      step<I, J, M, Squared>(first + v * L, x.stride, across, along(v), y + v * L, ldy, factor);
    if (tail)
      step<I, J, M, Squared>(x.last(line, L), x.stride, across, along(x.vectors), y + x.vectors * L,
                             ldy, factor);
  }

  template <int I, int J, Centre M, bool Squared, class S, class A>
  static FASTFISHER_INLINE void step(const S* x, Index stride, const Vec<A> (&across)[I],
                                     const A* along, A* y, Index ldy,
                                     const Vec<A> (&factor)[I][J]) {
    Vec<A> acc[J];
    FASTFISHER_UNROLL
    for (int j = 0; j < J; ++j) acc[j] = Vec<A>::load(y + j * ldy);
    Vec<A> centre = Vec<A>::zero();
    if constexpr (M == Centre::Along) centre = Vec<A>::load(along);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i) {
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
  const bool together = J > 1 || !is_short(x);
  for (; together && line + I <= end_line; line += I)
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
        const auto take = [&](auto right_sides) {
          tiles<Job, decltype(right_sides)::value, M, Squared>(
              x, line, last, begin, end, tail, centre, y + j * ldy, ldy, a + j, lda);
        };
        switch (std::min<Index>(kRhsBlock, rhs - j)) {
          case 1:
            take(std::integral_constant<int, 1>());
            break;
          case 2:
            take(std::integral_constant<int, 2>());
            break;
          case 3:
            take(std::integral_constant<int, 3>());
            break;
          default:
            take(std::integral_constant<int, kRhsBlock>());
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

// y += Σ_i w_i t_i e_i,   t_i = e_i · v,   e = x − centre        y += E.T @ (w * (E @ v))
//
//   x  count lines of length      v, centre  spread      y  spread, read and written
//   factor(i) is w_i
//
// No argument may overlap another. One thread. While line i comes from memory for its dot product,
// line i−1 is added from L1: one stream of memory, its latency in part hidden behind the sum.
// (Prefetching 0.5–4 kB ahead by hand was measured and made it slower.)
// 4·count·length flops. Cannot fail.
template <Centre M, class S, class A, class Factor>
void dots_then_sums(const Lines<S>& x, const A* centre, const A* v, Factor factor, A* y) {
  constexpr Index L = kLanes<A>;
  constexpr int U = 4;
  if (x.count == 0) return;
  A t[1] = {A(0)};
  Dots::tile<1, 1, M, false>(x, 0, 0, x.vectors, x.tail, centre, const_cast<A*>(v), 0, t, 1);
  for (Index i = 1; i < x.count; ++i) {
    const S* now = x.data + i * x.stride;
    const S* before = now - x.stride;
    const Vec<A> a = Vec<A>::broadcast(t[0] * factor(i - 1));
    Vec<A> acc[U];
    FASTFISHER_UNROLL
    for (int u = 0; u < U; ++u) acc[u] = Vec<A>::zero();
    const auto step = [&](Index from, Index at, Vec<A>& sum) {
      Vec<A> c = Vec<A>::zero();
      if constexpr (M == Centre::Along) c = Vec<A>::load(centre + at);
      const Vec<A> e = entry<M, false>(now + from, c);
      sum = fma(e, Vec<A>::load(v + at), sum);
      fma(entry<M, false>(before + from, c), a, Vec<A>::load(y + at)).store(y + at);
    };
    Index r = 0;
    for (; r + U <= x.vectors; r += U) {
      FASTFISHER_UNROLL
      for (int u = 0; u < U; ++u) step((r + u) * L, (r + u) * L, acc[u]);
    }
    for (; r < x.vectors; ++r) step(r * L, r * L, acc[0]);
    if (x.tail) step(x.length - L, x.vectors * L, acc[1]);
    t[0] = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  }
  t[0] *= factor(x.count - 1);
  Lines<S> end = x;
  end.data += (x.count - 1) * x.stride;
  Sums::tile<1, 1, M, false>(end, 0, 0, end.vectors, end.tail, centre, y, 0, t, 1);
}

}  // namespace fastfisher
