// Forward and backward substitution, tile by tile on the product engine.
#include "substitution.hpp"

#include <vector>

#include "parallel.hpp"

namespace fastfisher {

namespace {

// divide_panel for V vectors of rows and up to kColumns columns.
template <class T, int V>
FASTFISHER_INLINE void divide_block(const T* diagonal, Index c0, Index count, const T* inverse,
                                    T* X) {
  constexpr Index W = kPanel<T>;
  constexpr int lanes = kLanes<T>;
  for (Index c = c0; c < c0 + count; ++c) {
    Vec<T> x[V];
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) x[u] = Vec<T>::load(X + c * W + u * lanes);
    for (Index k = c0; k < c; ++k) {
      const Vec<T> l = Vec<T>::broadcast(-diagonal[k * W + c]);
      FASTFISHER_UNROLL
      for (int u = 0; u < V; ++u) x[u] = fma(Vec<T>::load(X + k * W + u * lanes), l, x[u]);
    }
    const Vec<T> scale = Vec<T>::broadcast(inverse[c]);
    FASTFISHER_UNROLL
    for (int u = 0; u < V; ++u) (x[u] * scale).store(X + c * W + u * lanes);
  }
}

}  // namespace

// Columns of one W×W diagonal block, in steps of the register block: engine first, then the small
// rest.
template <class T>
void divide_panel(const T* diagonal, Index columns, const T* inverse, T* X, Index rows) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  for (Index c = 0; c < columns; c += kColumns) {
    if (c > 0) multiply_panel<T, W, 1>(c, X, diagonal + c, X + c * W, T(-1), 0, rows);
    const Index count = std::min<Index>(kColumns, columns - c);
    Index r = 0;
    for (; r + 3 * lanes <= rows; r += 3 * lanes)
      divide_block<T, 3>(diagonal, c, count, inverse, X + r);
    for (; r < rows; r += lanes) divide_block<T, 1>(diagonal, c, count, inverse, X + r);
  }
}

template <class T>
void inverse_pivots(const T* diagonal, Index columns, T* inverse) {
  for (Index c = 0; c < columns; ++c) inverse[c] = T(1) / diagonal[c * kPanel<T> + c];
}

namespace {

// Panels [begin, end) of tile I.
template <class T>
struct Tile {
  Index begin, end;
  Tile(const Factor<T>& L, Index I)
      : begin(I * kTile<T>), end(std::min(begin + kTile<T>, L.panels())) {}
};

// Rows of tile I lose what columns j0 … j1-1 (panels) explain: R[I] -= L[I, j0:j1] R[j0:j1].
template <class T>
void eliminate_down(const Factor<T>& L, Index i, Index j0, Index j1, Index first, T* R,
                    Index rows) {
  constexpr Index W = kPanel<T>;
  if (j0 == j1) return;
  // The next panel's columns come from memory meanwhile: kColumns of W columns take a turn each.
  const bool more = i + 1 < L.panels();
  Upcoming next{reinterpret_cast<const char*>(L.column(more ? i + 1 : i, j0 * W)),
                more ? static_cast<Index>(kColumns * sizeof(T)) : 0};
  for (Index c = 0; c < L.columns(i); c += kColumns)
    multiply_panel<T, W, 1>((j1 - j0) * W, R + (j0 - first) * W * W, L.column(i, j0 * W) + c,
                            R + ((i - first) * W + c) * W, T(-1), 0, rows, &next);
}

// One step of L⁻¹R: tile (I, J), J ≤ I; the diagonal tile last. R starts at panel `first`.
template <class T>
void step_down(const Factor<T>& L, Index I, Index J, Index first, T* R, Index rows) {
  constexpr Index W = kPanel<T>;
  const Tile<T> to(L, I), from(L, J);
  const Index j0 = std::max(from.begin, first);
  for (Index i = std::max(to.begin, first); i < to.end; ++i) {
    eliminate_down(L, i, j0, I == J ? i : from.end, first, R, rows);
    if (I != J) continue;
    T inverse[kPanel<T>];
    const T* diagonal = L.column(i, i * W);
    inverse_pivots(diagonal, L.columns(i), inverse);
    divide_panel(diagonal, L.columns(i), inverse, R + (i - first) * W * W, rows);
  }
}

// R[j] -= L[i0:i1, j]ᵀ R[i0:i1], the sum running down the rows of each panel.
template <class T>
void eliminate_up(const Factor<T>& L, Index j, Index i0, Index i1, T* R, Index rows) {
  constexpr Index W = kPanel<T>;
  for (Index i = i0; i < i1; ++i) {
    const bool more = i + 1 < i1;
    Upcoming next{reinterpret_cast<const char*>(L.column(more ? i + 1 : i, j * W)),
                  more ? static_cast<Index>(kColumns * sizeof(T)) : 0};
    for (Index c = 0; c < W; c += kColumns)
      multiply_panel<T, 1, W>(L.columns(i), R + i * W * W, L.column(i, j * W + c),
                              R + (j * W + c) * W, T(-1), 0, rows, &next);
  }
}

// One step of L⁻ᵀR: tile (I, J), I ≥ J, gives x[I] to the rows of J; the diagonal tile last.
template <class T>
void step_up(const Factor<T>& L, Index I, Index J, T* R, Index rows) {
  constexpr Index W = kPanel<T>;
  constexpr Index lanes = kLanes<T>;
  const Tile<T> from(L, I), to(L, J);
  for (Index j = to.end - 1; j >= to.begin; --j) {
    eliminate_up(L, j, I == J ? j + 1 : from.begin, from.end, R, rows);
    if (I != J) continue;
    const T* diagonal = L.column(j, j * W);
    T* X = R + j * W * W;
    for (Index c = L.columns(j) - 1; c >= 0; --c) {
      const Vec<T> inverse = Vec<T>::broadcast(T(1) / diagonal[c * W + c]);
      for (Index r = 0; r < rows; r += lanes) {
        Vec<T> x = Vec<T>::load(X + c * W + r);
        for (Index k = c + 1; k < L.columns(j); ++k)
          x = fma(Vec<T>::load(X + k * W + r), Vec<T>::broadcast(-diagonal[c * W + k]), x);
        (x * inverse).store(X + c * W + r);
      }
    }
  }
}

// Runs step(to, from, group) over all tiles, `to` receiving from the tiles before it and then
// solving its own; tiles and groups are numbered in the order of the substitution.
template <class Step>
void run_tiles(int threads, Index tiles, Index groups, Step&& step) {
  std::vector<std::pair<Index, Index>> order;
  for (Index from = 0; from < tiles; ++from)
    for (Index to = from; to < tiles; ++to) order.emplace_back(to, from);
  std::vector<Finished> received(static_cast<std::size_t>(tiles * groups));
  run_in_order(threads, static_cast<Index>(order.size()) * groups, [&](Index task, int) {
    const auto [to, from] = order[static_cast<std::size_t>(task / groups)];
    Finished* mine = received.data() + task % groups * tiles;
    if (to != from) mine[from].wait(from + 1);
    mine[to].wait(from);
    step(to, from, task % groups);
    mine[to].add();
  });
}

}  // namespace

template <class T>
void forward(const Factor<T>& L, Index first, T* data, Index rows) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  for (Index J = first / kTile<T>; J < tiles; ++J)
    for (Index I = J; I < tiles; ++I) step_down(L, I, J, first, data, rows);
}

template <class T>
void backward(const Factor<T>& L, T* data, Index rows) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  for (Index I = tiles - 1; I >= 0; --I)
    for (Index J = I; J >= 0; --J) step_up(L, I, J, data, rows);
}

template <class T>
void substitute(const Factor<T>& L, bool down, bool up, T* data, Index size, Index groups,
                Index last_rows, int threads) {
  const Index tiles = ceil_div(L.panels(), kTile<T>);
  const auto rows = [&](Index g) { return g + 1 == groups ? last_rows : Index{kPanel<T>}; };
  if (down)
    run_tiles(threads, tiles, groups,
              [&](Index I, Index J, Index g) { step_down(L, I, J, 0, data + g * size, rows(g)); });
  if (up)
    run_tiles(threads, tiles, groups, [&](Index J, Index I, Index g) {
      step_up(L, tiles - 1 - I, tiles - 1 - J, data + g * size, rows(g));
    });
}

template void divide_panel(const double*, Index, const double*, double*, Index);
template void inverse_pivots(const double*, Index, double*);
template void forward(const Factor<double>&, Index, double*, Index);
template void backward(const Factor<double>&, double*, Index);
template void substitute(const Factor<double>&, bool, bool, double*, Index, Index, Index, int);
template void divide_panel(const float*, Index, const float*, float*, Index);
template void inverse_pivots(const float*, Index, float*);
template void forward(const Factor<float>&, Index, float*, Index);
template void backward(const Factor<float>&, float*, Index);
template void substitute(const Factor<float>&, bool, bool, float*, Index, Index, Index, int);

}  // namespace fastfisher
