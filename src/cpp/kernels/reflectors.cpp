// Reflectors on the product engine: a panel of them is an operand as it stands, like one of L.
#include "reflectors.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "substitution.hpp"

namespace fastfisher {

namespace {

// Squares from here on have all their digits: what underflows beside them is below their rounding.
template <class T>
constexpr T kLeastSquare = std::numeric_limits<T>::min() / std::numeric_limits<T>::epsilon();

// The power of two that brings the largest of `first` and a column of X to about 1; zero for a
// column of zeros.
template <class T>
T unit_scale(T first, Index rows, const T* x) {
  T largest = std::abs(first);
  for (Index k = 0; k < rows; ++k) largest = std::max(largest, std::abs(x[k * kPanel<T>]));
  if (!(largest > T(0))) return T(0);
  const int most = std::numeric_limits<T>::max_exponent - 2;
  return std::ldexp(T(1), std::min(most, -std::ilogb(largest)));
}

// Reflects kInner columns of [R; X] one by one: R[j * W + c], X[k * W + c]. Each pass over the rows
// applies one reflector and sums the products that the next one needs.
template <class T>
void reflect_columns(Index rows, T* R, T* X) {
  constexpr Index W = kPanel<T>, L = kLanes<T>, count = kInner<T>;
  constexpr int N = static_cast<int>(count / L), U = 4;
  static_assert(kColumns % U == 0, "blocks are padded to kColumns rows");
  T s[count], step[count] = {}, scale[count];
  // X ← X - x stepᵀ, x its column `reflected`; s = Σ_k X[k, next] X[k].
  const auto pass = [&](Index reflected, Index next) {
    Vec<T> sums[U][N], change[N];
    for (int u = 0; u < U; ++u)
      for (int v = 0; v < N; ++v) sums[u][v] = Vec<T>::zero();
    for (int v = 0; v < N; ++v) change[v] = Vec<T>::load(step + v * L);
    for (Index k = 0; k < rows; k += U) {
      T* x = X + k * W;
      Vec<T> row[U][N];
      FASTFISHER_UNROLL
      for (int u = 0; u < U; ++u) {
        FASTFISHER_UNROLL
        for (int v = 0; v < N; ++v) row[u][v] = Vec<T>::load(x + u * W + v * L);
        if (reflected < 0) continue;
        const Vec<T> by = Vec<T>::broadcast(x[u * W + reflected]);
        FASTFISHER_UNROLL
        for (int v = 0; v < N; ++v) {
          row[u][v] = fma(by, change[v], row[u][v]);
          row[u][v].store(x + u * W + v * L);
        }
      }
      FASTFISHER_UNROLL
      for (int u = 0; u < U; ++u) {
        const Vec<T> by = Vec<T>::broadcast(x[u * W + next]);
        FASTFISHER_UNROLL
        for (int v = 0; v < N; ++v) sums[u][v] = fma(by, row[u][v], sums[u][v]);
      }
    }
    for (int v = 0; v < N; ++v)
      ((sums[0][v] + sums[1][v]) + (sums[2][v] + sums[3][v])).store(s + v * L);
  };
  for (Index j = 0; j < count; ++j) {
    pass(j - 1, j);
    T* r = R + j * W;
    // A reflector does not depend on the scale of its column: one whose squares leave the range, or
    // lose digits at its end, is brought to about 1, and its norm back.
    T unit = T(1);
    if (r[j] * r[j] + s[j] < kLeastSquare<T>) {
      unit = unit_scale(r[j], rows, X + j);
      if (unit > T(0)) {
        for (Index k = 0; k < rows; ++k) X[k * W + j] *= unit;
        pass(-1, j);
      }
    }
    const T first = unit * r[j], norm = std::sqrt(first * first + s[j]);
    // v = x · inverse; zero for a column of zeros.
    const T inverse = norm > T(0) ? T(1) / (first + norm) : T(0);
    const T tau = T(2) / (T(1) + inverse * inverse * s[j]);
    r[j] = unit > T(0) ? norm / unit : T(0);
    scale[j] = inverse;
    for (Index c = 0; c < count; ++c) {
      if (c > j) {
        const T z = tau * (r[c] + inverse * s[c]);
        r[c] = z - r[c];
        step[c] = -inverse * z;
      } else {
        step[c] = T(0);
      }
    }
  }
  for (Index k = 0; k < rows; ++k)
    for (Index c = 0; c < count; c += L)
      (Vec<T>::load(X + k * W + c) * Vec<T>::load(scale + c)).store(X + k * W + c);
}

// Half the diagonal of I + VᵀV, given VᵀV, and its inverse.
template <class T>
void finish_diagonal(T* D, Index columns, T* inverse) {
  constexpr Index W = kPanel<T>;
  for (Index c = 0; c < columns; ++c) {
    D[c * W + c] = T(0.5) * (T(1) + D[c * W + c]);
    inverse[c] = T(1) / D[c * W + c];
  }
}

// Y = D⁻¹Y, R ← Y - R, B ← B - V Y for columns [first, last) of a panel and `count` reflectors.
template <class T>
void subtract_reflected(Index rows, const T* V, Index count, const T* D, const T* inverse, T* Y,
                        T* R, T* B, Index first, Index last) {
  constexpr Index W = kPanel<T>;
  divide_panel(D, count, inverse, Y + first, last - first);
  for (Index j = 0; j < count; ++j)
    for (Index r = first; r < last; ++r) R[j * W + r] = Y[j * W + r] - R[j * W + r];
  for (Index k = 0; k < rows; k += kColumns)
    multiply_panel<T, 1, W>(count, Y, V + k * W, B + k * W, T(-1), first, last);
}

}  // namespace

// kInner columns at a time, each time the rest of the panel takes them.
template <class T>
void factor_panel(Index rows, Index columns, T* R, T* B, T* D, T* inverse, T* Y) {
  constexpr Index W = kPanel<T>, inner = kInner<T>;
  for (Index c = 0; c < columns; c += inner) {
    reflect_columns(rows, R + c * W + c, B + c);
    if (c + inner == columns) break;
    std::fill_n(Y, inner * W, T(0));
    for (Index j = 0; j < inner; j += kColumns)  // VᵀV, and beside it VᵀB of the rest
      multiply_panel<T, W, 1>(rows, B, B + c + j, Y + j * W, T(1), c, columns);
    finish_diagonal(Y + c, inner, inverse);
    T* rest = R + c * W;
    for (Index j = 0; j < inner; ++j)
      for (Index r = c + inner; r < columns; ++r) Y[j * W + r] += rest[j * W + r];
    subtract_reflected(rows, B + c, inner, Y + c, inverse, Y, rest, B, c + inner, columns);
  }
  std::fill_n(D, W * W, T(0));
  for (Index c = 0; c < columns; c += kColumns)
    multiply_panel<T, W, 1>(rows, B, B + c, D + c * W, T(1), c / kLanes<T> * kLanes<T>, columns);
  finish_diagonal(D, columns, inverse);
}

template <class T>
void apply_panel(Index rows, const T* V, const T* D, const T* inverse, Index columns, T* R, T* B,
                 T* Y) {
  constexpr Index W = kPanel<T>;
  std::copy_n(R, W * W, Y);
  for (Index j = 0; j < W; j += kColumns)
    multiply_panel<T, W, 1>(rows, B, V + j, Y + j * W, T(1), 0, columns);
  subtract_reflected(rows, V, W, D, inverse, Y, R, B, 0, columns);
}

#define FASTFISHER_INSTANTIATE(T)                               \
  template void factor_panel(Index, Index, T*, T*, T*, T*, T*); \
  template void apply_panel(Index, const T*, const T*, const T*, Index, T*, T*, T*);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
