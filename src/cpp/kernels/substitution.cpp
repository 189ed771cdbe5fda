// Forward and backward substitution, tile by tile on the product engine.
#include "substitution.hpp"

#include <vector>

#include "parallel.hpp"

namespace fastfisher {

namespace {

// Panels of right-hand sides that share a tile of L in one task: as many of them stay in the caches
// beside it. With one at a time a solve with p sides took 1.07 to 1.12 of the time (p = 512, 1024,
// 2048, one thread of Granite Rapids; faster copies and diagonal blocks are part of that).
constexpr Index kTogether = 4;

// One step of a substitution with kColumns columns of a diagonal block, or the `count` of them that
// there are, for V vectors of rows: downwards X D⁻ᵀ, upwards X D⁻¹. Each column is taken out of all
// that follow as soon as it is known, so that only two operations of each wait for one another.
template <class T, int V, bool kUp>
FASTFISHER_INLINE void divide_block(const T* diagonal, Index c0, Index count, const T* inverse,
                                    T* X) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<T>;
  const T* D = diagonal + c0 * W + c0;
  X += c0 * W;
  Vec<T> x[kColumns][V];
  FASTFISHER_UNROLL
  for (int c = 0; c < kColumns; ++c) {
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) x[c][u] = Vec<T>::load(X + c * W + u * lanes);
  }
  FASTFISHER_UNROLL
  for (int step = 0; step < kColumns; ++step) {
    const int c = kUp ? kColumns - 1 - step : step;
    if (c >= count) continue;
    const Vec<T> scale = Vec<T>::broadcast(inverse[c0 + c]);
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) (x[c][u] = x[c][u] * scale).store(X + c * W + u * lanes);
    FASTFISHER_UNROLL
    for (int later = step + 1; later < kColumns; ++later) {
      const int k = kUp ? kColumns - 1 - later : later;
      const Vec<T> l = Vec<T>::broadcast(kUp ? -D[k * W + c] : -D[c * W + k]);
      FASTFISHER_UNROLL
      for (int u = 0; u < V; ++u) x[k][u] = fma(x[c][u], l, x[k][u]);
    }
  }
}

template <class T, bool kUp>
void divide_rows(const T* diagonal, Index c, Index count, const T* inverse, T* X, Index rows) {
  constexpr Index lanes = kLanes<T>;
  Index r = 0;
  for (; r + 3 * lanes <= rows; r += 3 * lanes)
    divide_block<T, 3, kUp>(diagonal, c, count, inverse, X + r);
  for (; r < rows; r += lanes) divide_block<T, 1, kUp>(diagonal, c, count, inverse, X + r);
}

}  // namespace

// Columns of one W×W diagonal block, in steps of the register block: engine first, then the small
// rest.
template <class T>
void divide_panel(const T* diagonal, Index columns, const T* inverse, T* X, Index rows) {
  constexpr Index W = kPanel<T>;
  for (Index c = 0; c < columns; c += kColumns) {
    if (c > 0) multiply_panel<T, W, 1>(c, X, diagonal + c, X + c * W, T(-1), 0, rows);
    divide_rows<T, false>(diagonal, c, std::min<Index>(kColumns, columns - c), inverse, X, rows);
  }
}

template <class T>
void take_rows(const ConstMatrix<T>& B, Index k0, Index k1, const Sides<T>& R) {
  constexpr Index W = kPanel<T>;
  for (Index k = k0; k < k1; ++k)
    for (Index g = 0; g < R.groups; ++g) {
      const Index some = k < B.rows() ? std::min(W, B.cols() - g * W) : 0;
      T* to = R.at(g, k);
      for (Index q = 0; q < some; ++q) to[q] = B(k, g * W + q);
      for (Index q = some; q < W; ++q) to[q] = T(0);
    }
}

template <class T>
void give_rows(const Sides<T>& R, Index k0, Index k1, Matrix<T> out) {
  constexpr Index W = kPanel<T>;
  for (Index k = k0; k < k1; ++k)
    for (Index g = 0; g < R.groups; ++g) {
      const T* from = R.at(g, k);
      for (Index q = 0; q < std::min(W, out.cols() - g * W); ++q) out(k, g * W + q) = from[q];
    }
}

template <class T>
void inverse_pivots(const T* diagonal, Index columns, T* inverse) {
  for (Index c = 0; c < columns; ++c) inverse[c] = T(1) / diagonal[c * kPanel<T> + c];
}

namespace {

// X D⁻¹, the other way up.
template <class T>
void divide_panel_up(const T* diagonal, Index columns, const T* inverse, T* X, Index rows) {
  constexpr Index W = kPanel<T>;
  for (Index c = (columns - 1) / kColumns * kColumns; c >= 0; c -= kColumns) {
    const Index next = c + kColumns;
    if (next < columns)
      multiply_panel<T, 1, W>(columns - next, X + next * W, diagonal + c * W + next, X + c * W,
                              T(-1), 0, rows);
    divide_rows<T, true>(diagonal, c, std::min<Index>(kColumns, columns - c), inverse, X, rows);
  }
}

// Panels [begin, end) of tile I.
template <class T>
struct Tile {
  Index begin, end;
  Tile(const Factor<T>& L, Index I)
      : begin(I * kTile<T>), end(std::min(begin + kTile<T>, L.panels())) {}
};

// Rows of panel i lose what columns j0 … j1-1 (panels) explain: R[i] -= L[i, j0:j1] R[j0:j1]. Each
// kColumns columns of L serve all right-hand sides while they are in the first-level cache.
template <class T>
void eliminate_down(const Factor<T>& L, Index i, Index j0, Index j1, Index first,
                    const Sides<T>& R) {
  constexpr Index W = kPanel<T>;
  if (j0 == j1) return;
  // The next panel's columns come from memory meanwhile: kColumns of W columns take a turn each.
  const bool more = i + 1 < L.panels();
  Upcoming next{reinterpret_cast<const char*>(L.column(more ? i + 1 : i, j0 * W)),
                more ? static_cast<Index>(kColumns * sizeof(T)) / R.groups : 0};
  for (Index c = 0; c < L.columns(i); c += kColumns)
    for (Index g = 0; g < R.groups; ++g)
      multiply_panel<T, W, 1>((j1 - j0) * W, R.at(g, (j0 - first) * W), L.column(i, j0 * W) + c,
                              R.at(g, (i - first) * W + c), T(-1), 0, R.rows(g), &next);
}

// One step of L⁻¹R: tile (I, J), J ≤ I; the diagonal tile last. R starts at panel `first`.
template <class T>
void step_down(const Factor<T>& L, Index I, Index J, Index first, const Sides<T>& R) {
  constexpr Index W = kPanel<T>;
  const Tile<T> to(L, I), from(L, J);
  const Index j0 = std::max(from.begin, first);
  for (Index i = std::max(to.begin, first); i < to.end; ++i) {
    eliminate_down(L, i, j0, I == J ? i : from.end, first, R);
    if (I != J) continue;
    T inverse[kPanel<T>];
    const T* diagonal = L.column(i, i * W);
    inverse_pivots(diagonal, L.columns(i), inverse);
    for (Index g = 0; g < R.groups; ++g)
      divide_panel(diagonal, L.columns(i), inverse, R.at(g, (i - first) * W), R.rows(g));
  }
}

// R[j] -= L[i0:i1, j]ᵀ R[i0:i1], the sum running down the rows of each panel.
template <class T>
void eliminate_up(const Factor<T>& L, Index j, Index i0, Index i1, const Sides<T>& R) {
  constexpr Index W = kPanel<T>;
  if (i0 == i1) return;
  const Index depth = std::min(i1 * W, L.params) - i0 * W;
  const Hops hops{panel_offset<T>(i0 + 1) - panel_offset<T>(i0), W * W};
  for (Index c = 0; c < W; c += kColumns)
    for (Index g = 0; g < R.groups; ++g)
      multiply_panel<T, 1, W>(depth, R.at(g, i0 * W), L.column(i0, j * W + c), R.at(g, j * W + c),
                              T(-1), 0, R.rows(g), nullptr, hops);
}

// One step of L⁻ᵀR: tile (I, J), I ≥ J, gives x[I] to the rows of J; the diagonal tile last.
template <class T>
void step_up(const Factor<T>& L, Index I, Index J, const Sides<T>& R) {
  constexpr Index W = kPanel<T>;
  const Tile<T> from(L, I), to(L, J);
  for (Index j = to.end - 1; j >= to.begin; --j) {
    eliminate_up(L, j, I == J ? j + 1 : from.begin, from.end, R);
    if (I != J) continue;
    T inverse[kPanel<T>];
    const T* diagonal = L.column(j, j * W);
    inverse_pivots(diagonal, L.columns(j), inverse);
    for (Index g = 0; g < R.groups; ++g)
      divide_panel_up(diagonal, L.columns(j), inverse, R.at(g, j * W), R.rows(g));
  }
}

// Runs step(to, from, sides) over all tiles, `to` receiving from the tiles before it and then
// solving its own; tiles and bundles of sides are numbered in the order of the substitution.
template <class T, class Step>
void run_tiles(int threads, Index tiles, const Sides<T>& R, Step&& step) {
  // Panels of sides that one task takes together: most of what it reads is then in the first-level
  // cache. Fewer where threads would go without.
  const Index together = std::clamp<Index>(R.groups / threads, 1, kTogether);
  const Index bundles = ceil_div(R.groups, together);
  std::vector<std::pair<Index, Index>> order;
  for (Index from = 0; from < tiles; ++from)
    for (Index to = from; to < tiles; ++to) order.emplace_back(to, from);
  std::vector<Finished> received(static_cast<std::size_t>(tiles * bundles));
  run_in_order(threads, static_cast<Index>(order.size()) * bundles, [&](Index task, int) {
    const auto [to, from] = order[static_cast<std::size_t>(task / bundles)];
    const Index bundle = task % bundles, g = bundle * together;
    Finished* mine = received.data() + bundle * tiles;
    if (to != from) mine[from].wait(from + 1);
    mine[to].wait(from);
    step(to, from, R.some(g, std::min(g + together, R.groups)));
    mine[to].add();
  });
}

}  // namespace

template <class T>
void forward(const Factor<T>& L, Index first, const Sides<T>& R) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  for (Index J = first / kTile<T>; J < tiles; ++J)
    for (Index I = J; I < tiles; ++I) step_down(L, I, J, first, R);
}

template <class T>
void backward(const Factor<T>& L, const Sides<T>& R) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  for (Index I = tiles - 1; I >= 0; --I)
    for (Index J = I; J >= 0; --J) step_up(L, I, J, R);
}

template <class T>
void substitute(const Factor<T>& L, bool down, bool up, const Sides<T>& R, int threads) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  if (down)
    run_tiles(threads, tiles, R,
              [&](Index I, Index J, const Sides<T>& some) { step_down(L, I, J, 0, some); });
  if (up)
    run_tiles(threads, tiles, R, [&](Index J, Index I, const Sides<T>& some) {
      step_up(L, tiles - 1 - I, tiles - 1 - J, some);
    });
}

#define FASTFISHER_INSTANTIATE(T)                                                \
  template void divide_panel(const T*, Index, const T*, T*, Index);              \
  template void inverse_pivots(const T*, Index, T*);                             \
  template void take_rows(const ConstMatrix<T>&, Index, Index, const Sides<T>&); \
  template void give_rows(const Sides<T>&, Index, Index, Matrix<T>);             \
  template void forward(const Factor<T>&, Index, const Sides<T>&);               \
  template void backward(const Factor<T>&, const Sides<T>&);                     \
  template void substitute(const Factor<T>&, bool, bool, const Sides<T>&, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
