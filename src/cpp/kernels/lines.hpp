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

template <Centre M, class A, class S>
FASTFISHER_INLINE Vec<A> entry(const S* x, Vec<A> centre) {
  Vec<A> e = Vec<A>::load(x);
  if constexpr (M != Centre::None) e = e - centre;
  return e;
}

// sum + e a, or sum + e² a. A square that would overflow is taken after its factor, so that one of
// zero, the weight of a sample that does not count, leaves nothing of it.
template <bool Squared, class A>
FASTFISHER_INLINE Vec<A> added(Vec<A> e, Vec<A> a, Vec<A> sum) {
  if constexpr (!Squared) return fma(e, a, sum);
  e = in_register(e);
  return fma(e * a, e, sum);
}

// t w, and nothing where the weight is: of a sample that does not count, t may have overflowed.
template <class A>
A weighed(A t, A weight) {
  return weight == A(0) ? A(0) : t * weight;
}

// Long lines are taken four at a time: they share the loads of what goes along them.
constexpr int kLinesTogether = 4;

// Lines shorter than this are taken one by one: memory then sees one ascending stream instead of
// four that restart every few kB (1.6 to 2 times faster on one core of Zen 4, lines of 4 kB).
constexpr Index kShortLine = 1 << 16;  // bytes

template <class S>
bool is_short(const Lines<S>& x) {
  return x.length * static_cast<Index>(sizeof(S)) <= kShortLine;
}

// a[i] += Σ_l e(i, l) y[l] for I lines from `line` on.
template <int I, Centre M, bool Squared, class S, class A>
void dot_tile(const Lines<S>& x, Index line, const A* centre, const A* y, A* a) {
  constexpr Index L = kLanes<A>;
  // One line has four chains of additions, to hide their latency; four lines have one each.
  constexpr int C = I == 1 ? 4 : 1;
  const Index stride = x.stride, vectors = x.vectors;
  Vec<A> acc[C][I], across[I];
  FASTFISHER_UNROLL
  for (int i = 0; i < I; ++i) {
    across[i] = M == Centre::Across ? Vec<A>::broadcast(centre[line + i]) : Vec<A>::zero();
    FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c) acc[c][i] = Vec<A>::zero();
  }
  const S* first = x.data + line * x.stride;
  const auto step = [&](const S* from, Index v, Vec<A>(&sum)[I]) {
    const Vec<A> right = Vec<A>::load(y + v * L);
    Vec<A> along = Vec<A>::zero();
    if constexpr (M == Centre::Along) along = Vec<A>::load(centre + v * L);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i)
      sum[i] = added<Squared>(entry<M>(from + i * stride, M == Centre::Across ? across[i] : along),
                              right, sum[i]);
  };
  Index v = 0;
  for (; v + C <= vectors; v += C) {
    FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c) step(first + (v + c) * L, v + c, acc[c]);
  }
  for (; v < vectors; ++v) step(first + v * L, v, acc[0]);
  if (x.tail) step(x.last(line, L), vectors, acc[0]);
  FASTFISHER_UNROLL
  for (int i = 0; i < I; ++i) {
    if constexpr (C == 4)
      a[line + i] += sum((acc[0][i] + acc[1][i]) + (acc[2][i] + acc[3][i]));
    else
      a[line + i] += sum(acc[0][i]);
  }
}

// y[l] += Σ_i a[i] e(i, l) for I lines from `line` on.
template <int I, Centre M, bool Squared, class S, class A>
void sum_tile(const Lines<S>& x, Index line, const A* centre, const A* a, A* y) {
  constexpr Index L = kLanes<A>;
  // What a store could change, as far as a compiler knows, is read once.
  const Index stride = x.stride, vectors = x.vectors;
  Vec<A> factor[I], across[I];
  FASTFISHER_UNROLL
  for (int i = 0; i < I; ++i) {
    across[i] = M == Centre::Across ? Vec<A>::broadcast(centre[line + i]) : Vec<A>::zero();
    factor[i] = Vec<A>::broadcast(a[line + i]);
  }
  const S* first = x.data + line * x.stride;
  const auto step = [&](const S* from, Index v) {
    Vec<A> total = Vec<A>::load(y + v * L), along = Vec<A>::zero();
    if constexpr (M == Centre::Along) along = Vec<A>::load(centre + v * L);
    FASTFISHER_UNROLL
    for (int i = 0; i < I; ++i)
      total = added<Squared>(entry<M>(from + i * stride, M == Centre::Across ? across[i] : along),
                             factor[i], total);
    total.store(y + v * L);
  };
  for (Index v = 0; v < vectors; ++v) step(first + v * L, v);
  if (x.tail) step(x.last(line, L), vectors);
}

// a[i] += Σ_l e(i, l) y[l],   e = x − centre, or its square        a += E @ y
//
//   x       count lines of length          any stride between lines
//   y       spread                         a  (count,)
//   centre  spread (Along), (count,) (Across), unused (None)
//
// No argument may overlap another. One thread. 2·count·length flops, one read of the lines. Cannot
// fail.
template <Centre M, bool Squared, class S, class A>
void dots(const Lines<S>& x, const A* centre, const A* y, A* a) {
  Index line = 0;
  for (; !is_short(x) && line + kLinesTogether <= x.count; line += kLinesTogether)
    dot_tile<kLinesTogether, M, Squared>(x, line, centre, y, a);
  for (; line < x.count; ++line) dot_tile<1, M, Squared>(x, line, centre, y, a);
}

// y[l] += Σ_i a[i] e(i, l),   e = x − centre, or its square        y += a @ E
//
// Shapes, aliasing, cost as in dots; a is read, y is written.
template <Centre M, bool Squared, class S, class A>
void sums(const Lines<S>& x, const A* centre, const A* a, A* y) {
  Index line = 0;
  for (; !is_short(x) && line + kLinesTogether <= x.count; line += kLinesTogether)
    sum_tile<kLinesTogether, M, Squared>(x, line, centre, a, y);
  for (; line < x.count; ++line) sum_tile<1, M, Squared>(x, line, centre, a, y);
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
  const Index stride = x.stride, vectors = x.vectors, count = x.count;
  A t[1] = {A(0)};
  dot_tile<1, M, false>(x, 0, centre, v, t);
  for (Index i = 1; i < count; ++i) {
    const S* now = x.data + i * stride;
    const S* before = now - stride;
    const Vec<A> a = Vec<A>::broadcast(weighed(t[0], factor(i - 1)));
    Vec<A> acc[U];
    FASTFISHER_UNROLL
    for (int u = 0; u < U; ++u) acc[u] = Vec<A>::zero();
    const auto step = [&](Index from, Index at, Vec<A>& sum) {
      Vec<A> c = Vec<A>::zero();
      if constexpr (M == Centre::Along) c = Vec<A>::load(centre + at);
      sum = fma(entry<M>(now + from, c), Vec<A>::load(v + at), sum);
      fma(entry<M>(before + from, c), a, Vec<A>::load(y + at)).store(y + at);
    };
    Index r = 0;
    for (; r + U <= vectors; r += U) {
      FASTFISHER_UNROLL
      for (int u = 0; u < U; ++u) step((r + u) * L, (r + u) * L, acc[u]);
    }
    for (; r < vectors; ++r) step(r * L, r * L, acc[0]);
    if (x.tail) step(x.length - L, vectors * L, acc[1]);
    t[0] = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  }
  t[0] = weighed(t[0], factor(count - 1));
  Lines<S> end = x;
  end.data += (count - 1) * stride;
  sum_tile<1, M, false>(end, 0, centre, t, y);
}

}  // namespace fastfisher
