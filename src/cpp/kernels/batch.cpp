// The lane kernel: scale, factor and solve a group of systems, one in each lane.
#include "batch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.hpp"
#include "memory.hpp"
#include "parallel.hpp"
#include "report.hpp"

namespace fastfisher {

namespace {

// Right-hand sides that share the reads of L.
constexpr int kTogether = kVectorRegisters >= 32 ? 4 : 2;
// Right-hand sides that lie in the scratch space at once.
constexpr Index kColumns = 16;
// The number of parameters: known to the compiler, which then unrolls every loop, or not (P = 0).
template <int P>
struct Params {
  static constexpr Index p = P;
  explicit Params(Index) {}
};
template <>
struct Params<0> {
  const Index p;
  explicit Params(Index params) : p(params) {}
};
// Up to here: p = 2 and 3 gain 10 %, p = 8 gains 2 %.
constexpr int kUnrolled = 3;

// One group of systems in scratch memory; every entry is a register's worth of lanes.
template <class T, int P>
struct System : Params<P> {
  using Params<P>::p;
  using Lane = Vec<T>;
  static constexpr int V = kLanes<T>;

  T* A;         // packed lower triangle: S A S, then L (or M = L⁻¹)
  T* scale;     // (p,) S
  T* inverse;   // (p,) 1/D
  T* pivot;     // (p,) D
  T* X;         // (p, pitch) right-hand sides
  Lane norm;    // ‖S A S‖₁
  Lane worst;   // least D_jj − p·ε·(S A S)_jj: positive if every pivot is good
  Lane spoilt;  // 0, or NaN if anything was not finite

  static Index size(Index p) { return (p * (p + 1) / 2 + p * (kColumns + 1) + 4 * p) * V; }
  System(T* memory, Index params) : Params<P>(params) {
    A = memory;
    scale = A + p * (p + 1) / 2 * V;
    inverse = scale + p * V;
    pivot = inverse + p * V;
    X = pivot + p * V;
  }

  Lane a(Index i, Index j) const { return Lane::load(A + packed(i, j) * V); }
  T* row(Index i) const { return A + packed(i, 0) * V; }

  static FASTFISHER_INLINE Lane gather_lanes(const Group<T>& group, Index offset) {
    T lanes[V];
    for (int l = 0; l < V; ++l) lanes[l] = group.at[l][offset];
    return Lane::load(lanes);
  }

  // A ← S (A + diag(damping)) S and its norm; X serves as room for the column sums.
  // kTile rows together, so that as many sums run side by side.
  void equilibrate(const ConstBatch<T>& damping, const Group<T>& shift) {
    const Lane same = gather_lanes(shift, 0);
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        Lane d[R], s[R], sum[R];
        T* x[R];
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) {
          x[r] = row(i + r);
          d[r] = Lane::load(x[r] + (i + r) * V) +
                 (damping.row == 0 ? same : gather_lanes(shift, (i + r) * damping.row));
          s[r] = inverse_root_power(d[r]);
          s[r].store(scale + (i + r) * V);
          sum[r] = Lane::zero();
        }
        for (Index j = 0; j < i; ++j) {
          const Lane other = Lane::load(scale + j * V);
          Lane column = Lane::load(X + j * V);
          FASTFISHER_UNROLL
          for (int r = 0; r < R; ++r) {
            const Lane a = Lane::load(x[r] + j * V) * s[r] * other;
            a.store(x[r] + j * V);
            const Lane magnitude = abs(a);
            sum[r] = sum[r] + magnitude;
            column = column + magnitude;
          }
          column.store(X + j * V);
        }
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) {
          FASTFISHER_UNROLL
          for (int c = 0; c < r; ++c) {
            const Lane a = Lane::load(x[r] + (i + c) * V) * s[r] * s[c];
            a.store(x[r] + (i + c) * V);
            const Lane magnitude = abs(a);
            sum[r] = sum[r] + magnitude;
            sum[c] = sum[c] + magnitude;
          }
          const Lane a = d[r] * s[r] * s[r];
          a.store(x[r] + (i + r) * V);
          sum[r] = sum[r] + abs(a);
        }
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) sum[r].store(X + (i + r) * V);
      });
    norm = Lane::zero();
    for (Index i = 0; i < p; ++i) norm = larger(Lane::load(X + i * V), norm);
  }

  // acc −= Σ_{from ≤ k < to} x_r(k) y_c(k)
  template <int R, int C>
  static FASTFISHER_INLINE void subtract(const T* const (&x)[R], const T* const (&y)[C], Index from,
                                         Index to, Lane (&acc)[R][C]) {
    for (Index k = from; k < to; ++k) {
      Lane b[C];
      FASTFISHER_UNROLL
      for (int c = 0; c < C; ++c) b[c] = Lane::load(y[c] + k * V);
      FASTFISHER_UNROLL
      for (int r = 0; r < R; ++r) {
        const Lane a = Lane::load(x[r] + k * V);
        FASTFISHER_UNROLL
        for (int c = 0; c < C; ++c) acc[r][c] = acc[r][c] - a * b[c];
      }
    }
  }

  // A = L D Lᵀ, tile by tile from the left: rows of W = L D first, divided when they are complete.
  void factor() {
    const Lane tolerance = Lane::broadcast(static_cast<T>(p) * std::numeric_limits<T>::epsilon());
    worst = Lane::broadcast(std::numeric_limits<T>::infinity());
    spoilt = Lane::zero();
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        factor_rows<R>(i, tolerance);
      });
  }

  template <int R>
  FASTFISHER_INLINE void factor_rows(Index i, Lane tolerance) {
    T* x[R];
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) x[r] = row(i + r);
    for (Index j = 0; j < i; j += kTile) {
      // W(i.., j..) = A(i.., j..) − Σ_{k<j} W(i.., k) L(j.., k), then with the tile's own columns
      Lane acc[R][kTile];
      const T* y[kTile];
      FASTFISHER_UNROLL
      for (int c = 0; c < kTile; ++c) {
        y[c] = row(j + c);
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) acc[r][c] = Lane::load(x[r] + (j + c) * V);
      }
      const T* w[R];
      for (int r = 0; r < R; ++r) w[r] = x[r];
      subtract<R, kTile>(w, y, 0, j, acc);
      FASTFISHER_UNROLL
      for (int c = 0; c < kTile; ++c) {
        FASTFISHER_UNROLL
        for (int e = 0; e < c; ++e) {
          const Lane l = Lane::load(y[c] + (j + e) * V);
          FASTFISHER_UNROLL
          for (int r = 0; r < R; ++r) acc[r][c] = acc[r][c] - acc[r][e] * l;
        }
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) acc[r][c].store(x[r] + (j + c) * V);
      }
    }
    // The diagonal tile: A(i.., i..) − Σ_{k<i} W(i.., k) L(i.., k), and L = W D⁻¹ on the way.
    Lane acc[R][R];
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
    for (int c = 0; c <= r; ++c) acc[r][c] = Lane::load(x[r] + (i + c) * V);
    Lane limit[R];
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) limit[r] = acc[r][r] * tolerance;
    for (Index k = 0; k < i; ++k) {
      const Lane d = Lane::load(inverse + k * V);
      Lane w[R], l[R];
      FASTFISHER_UNROLL
      for (int r = 0; r < R; ++r) {
        w[r] = Lane::load(x[r] + k * V);
        l[r] = w[r] * d;
        l[r].store(x[r] + k * V);
      }
      FASTFISHER_UNROLL
      for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
      for (int c = 0; c <= r; ++c) acc[r][c] = acc[r][c] - w[r] * l[c];
    }
    FASTFISHER_UNROLL
    for (int c = 0; c < R; ++c) {
      const Lane d = acc[c][c];
      worst = smaller(d - limit[c], worst);
      spoilt = fma(d, Lane::zero(), spoilt);
      const Lane inverse_d = Lane::broadcast(T(1)) / d;
      d.store(pivot + (i + c) * V);
      inverse_d.store(inverse + (i + c) * V);
      Lane l[R];
      FASTFISHER_UNROLL
      for (int r = c + 1; r < R; ++r) {
        l[r] = acc[r][c] * inverse_d;
        l[r].store(x[r] + (i + c) * V);
      }
      FASTFISHER_UNROLL
      for (int r = c + 1; r < R; ++r) FASTFISHER_UNROLL
      for (int e = c + 1; e <= r; ++e) acc[r][e] = acc[r][e] - acc[r][c] * l[e];
    }
  }

  // X ← L⁻ᵀ D⁻¹ L⁻¹ X for columns x … x + C − 1. With Estimate the last of them is not read: its
  // e_j = ±1 are chosen as they come into play.
  template <int C, bool Estimate>
  void solve(T* x, Index pitch) {
    pitch *= V;
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        Lane acc[R][C];
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
        for (int c = 0; c < C; ++c)
          acc[r][c] =
              Estimate && c == C - 1 ? Lane::zero() : Lane::load(x + (i + r) * pitch + c * V);
        const T* l[R];
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) l[r] = row(i + r);
        for (Index k = 0; k < i; ++k) {
          FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c) {
            const Lane y = Lane::load(x + k * pitch + c * V);
            FASTFISHER_UNROLL
            for (int r = 0; r < R; ++r) acc[r][c] = acc[r][c] - Lane::load(l[r] + k * V) * y;
          }
        }
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) {
          FASTFISHER_UNROLL
          for (int e = 0; e < r; ++e) FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c)
            acc[r][c] = acc[r][c] - Lane::load(l[r] + (i + e) * V) * acc[e][c];
          if constexpr (Estimate) acc[r][C - 1] = one_further(acc[r][C - 1]);
          FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c) acc[r][c].store(x + (i + r) * pitch + c * V);
        }
      });
    for (Index i = (p - 1) / kTile * kTile; i >= 0; i -= kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        Lane acc[R][C];
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
        for (int c = 0; c < C; ++c)
          acc[r][c] = Lane::load(x + (i + r) * pitch + c * V) * Lane::load(inverse + (i + r) * V);
        for (Index k = i + R; k < p; ++k) {
          const T* l = A + packed(k, i) * V;
          FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c) {
            const Lane y = Lane::load(x + k * pitch + c * V);
            FASTFISHER_UNROLL
            for (int r = 0; r < R; ++r) acc[r][c] = acc[r][c] - Lane::load(l + r * V) * y;
          }
        }
        FASTFISHER_UNROLL
        for (int r = R - 1; r >= 0; --r) {
          FASTFISHER_UNROLL
          for (int e = R - 1; e > r; --e) FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c) acc[r][c] = acc[r][c] - a(i + e, i + r) * acc[e][c];
          FASTFISHER_UNROLL
          for (int c = 0; c < C; ++c) acc[r][c].store(x + (i + r) * pitch + c * V);
        }
      });
  }

  // All `cols` columns, the last of them the estimate's.
  void solve_columns(Index cols, bool estimate) {
    Index c = 0;
    for (; c + kTogether <= cols - (estimate ? 1 : 0); c += kTogether)
      solve<kTogether, false>(X + c * V, cols);
    for (; c + 2 <= cols; c += 2)
      if (estimate && c + 2 == cols)
        solve<2, true>(X + c * V, cols);
      else
        solve<2, false>(X + c * V, cols);
    if (c < cols) estimate ? solve<1, true>(X + c * V, cols) : solve<1, false>(X + c * V, cols);
  }

  // L ← M = L⁻¹ (unit lower, the diagonal is not stored), tile by tile: L(i..) M = I.
  void invert_factor() {
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        T* x[R];
        Lane l[R][R];
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) {
          x[r] = row(i + r);
          FASTFISHER_UNROLL
          for (int e = 0; e < r; ++e) l[r][e] = Lane::load(x[r] + (i + e) * V);
        }
        for (Index j = 0; j < i; j += kTile) {
          // M(i.., j..) = −L(i.., i..)⁻¹ Σ_{j≤k<i} L(i.., k) M(k, j..)
          Lane acc[R][kTile];
          FASTFISHER_UNROLL
          for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
          for (int c = 0; c < kTile; ++c) {
            acc[r][c] = Lane::zero() - Lane::load(x[r] + (j + c) * V);
            FASTFISHER_UNROLL
            for (int e = c + 1; e < kTile; ++e)
              acc[r][c] = acc[r][c] - Lane::load(x[r] + (j + e) * V) * a(j + e, j + c);
          }
          for (Index k = j + kTile; k < i; ++k) {
            const T* m = A + packed(k, j) * V;
            FASTFISHER_UNROLL
            for (int r = 0; r < R; ++r) {
              const Lane f = Lane::load(x[r] + k * V);
              FASTFISHER_UNROLL
              for (int c = 0; c < kTile; ++c) acc[r][c] = acc[r][c] - f * Lane::load(m + c * V);
            }
          }
          FASTFISHER_UNROLL
          for (int r = 0; r < R; ++r) {
            FASTFISHER_UNROLL
            for (int c = 0; c < kTile; ++c) {
              FASTFISHER_UNROLL
              for (int e = 0; e < r; ++e) acc[r][c] = acc[r][c] - l[r][e] * acc[e][c];
              acc[r][c].store(x[r] + (j + c) * V);
            }
          }
        }
        FASTFISHER_UNROLL
        for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
        for (int c = 0; c < r; ++c) {
          Lane m = Lane::zero() - l[r][c];
          FASTFISHER_UNROLL
          for (int e = c + 1; e < r; ++e) m = m - l[r][e] * a(i + e, i + c);
          m.store(x[r] + (i + c) * V);
        }
      });
  }

  // Tile (i, j) of Mᵀ D⁻¹ M = (S A S)⁻¹, scaled back to A⁻¹; C = R and j = i on the diagonal.
  template <int R, int C>
  FASTFISHER_INLINE void inverse_tile(Index i, Index j) {
    Lane acc[R][C];
    const bool diagonal = i == j;
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c) {
      acc[r][c] = Lane::zero();
      FASTFISHER_UNROLL
      for (int s = r; s < R; ++s) {
        // M(i + s, i + r) / D(i + s) · M(i + s, j + c); M has ones on and zeros above its diagonal
        if (diagonal && c > s) continue;
        Lane m = Lane::load(inverse + (i + s) * V);
        if (s > r) m = m * a(i + s, i + r);
        acc[r][c] = diagonal && c == s ? acc[r][c] + m : fma(m, a(i + s, j + c), acc[r][c]);
      }
    }
    for (Index k = i + R; k < p; ++k) {
      const Lane d = Lane::load(inverse + k * V);
      const T *x = A + packed(k, i) * V, *y = A + packed(k, j) * V;
      FASTFISHER_UNROLL
      for (int r = 0; r < R; ++r) {
        const Lane m = Lane::load(x + r * V) * d;
        FASTFISHER_UNROLL
        for (int c = 0; c < C; ++c) acc[r][c] = fma(m, Lane::load(y + c * V), acc[r][c]);
      }
    }
    FASTFISHER_UNROLL
    for (int r = 0; r < R; ++r) FASTFISHER_UNROLL
    for (int c = 0; c < C; ++c) {
      if (diagonal && c > r) continue;
      const Lane x = acc[r][c] * Lane::load(scale + (i + r) * V) * Lane::load(scale + (j + c) * V);
      x.store(A + packed(i + r, j + c) * V);
      spoilt = fma(x, Lane::zero(), spoilt);
    }
  }

  // M ← A⁻¹; a row of tiles needs the rows of M from its own on, so in place from the top.
  void inverse_from_factor() {
    for (Index i = 0; i < p; i += kTile)
      with_tile_rows(std::min<Index>(kTile, p - i), [&](auto rows) {
        constexpr int R = decltype(rows)::value;
        for (Index j = 0; j < i; j += kTile) inverse_tile<R, kTile>(i, j);
        inverse_tile<R, R>(i, i);
      });
  }

  // X(i) ← S_i² Σ_{k≥i} M(k, i)² / D_k
  void inverse_diagonal() {
    for (Index i = 0; i < p; ++i) {
      Lane sum = Lane::load(inverse + i * V);
      for (Index k = i + 1; k < p; ++k) {
        const Lane m = a(k, i);
        sum = fma(m * m, Lane::load(inverse + k * V), sum);
      }
      const Lane s = Lane::load(scale + i * V);
      const Lane x = sum * s * s;
      x.store(X + i * V);
      spoilt = fma(x, Lane::zero(), spoilt);
    }
  }

  // log det A = Σ log D_jj − 2 Σ log S_jj, in double: mantissas are multiplied, exponents added.
  double log_determinant(int lane) const {
    double mantissa = 1.0;
    std::int64_t exponent = 0;
    for (Index j = 0; j < p; ++j) {
      mantissa *= static_cast<double>(pivot[j * V + lane]);
      exponent -= 2 * split(static_cast<double>(scale[j * V + lane])).second;
      const auto [m, e] = split(mantissa);
      mantissa = m;
      exponent += e;
    }
    return std::log(mantissa) + static_cast<double>(exponent) * 0.693147180559945309417;
  }

  // x = m · 2^e with 1 ≤ m < 2, for a normal number x > 0.
  static std::pair<double, std::int64_t> split(double x) {
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const std::int64_t e = static_cast<std::int64_t>(bits >> 52) - 1023;
    bits = (bits & ((std::uint64_t{1} << 52) - 1)) | (std::uint64_t{1023} << 52);
    std::memcpy(&x, &bits, sizeof x);
    return {x, e};
  }

  // 1 / (‖S A S‖₁ ‖z‖_∞), z being column `column` of X.
  Lane rcond(Index column, Index pitch) const {
    Lane most = Lane::zero();
    for (Index i = 0; i < p; ++i)
      most = larger(abs(Lane::load(X + (i * pitch + column) * V)), most);
    return Lane::broadcast(T(1)) / (norm * most);
  }

  void scale_columns(Index cols, Index pitch) {
    for (Index i = 0; i < p; ++i)
      for (Index c = 0; c < cols; ++c) {
        T* x = X + (i * pitch + c) * V;
        (Lane::load(x) * Lane::load(scale + i * V)).store(x);
      }
  }

  void note_spoilt(const T* x) { spoilt = fma(Lane::load(x), Lane::zero(), spoilt); }
};

template <class T>
bool finite_lower(const ConstBatch<T>& F, Index item) {
  for (Index i = 0; i < F.rows; ++i)
    for (Index j = 0; j <= i; ++j)
      if (!std::isfinite(F.at(item)[i * F.row + j * F.col])) return false;
  return true;
}

template <class T>
bool finite_column(const ConstBatch<T>& x, Index item) {
  for (Index i = 0; i < x.rows; ++i)
    if (!std::isfinite(x.at(item)[i * x.row])) return false;
  return true;
}

// Writes `value` to what a job gives for an item, (size,).
template <class T>
void fill(T* out, Index size, T value) {
  std::fill(out, out + size, value);
}

// One group: gather, factor, do the job, scatter, then say what became of each lane.
template <class T, int P>
void factor_group(BatchJob job, const ConstBatch<T>& F, const ConstBatch<T>& damping,
                  const ConstBatch<T>& rhs, Index first, T* memory, T* out, std::int8_t* status,
                  T* rcond) {
  constexpr int V = kLanes<T>;
  using Lane = Vec<T>;
  const Index p = P ? P : F.rows, k = rhs.cols;
  const Group<T> group(F, first);
  const int used = group.used;
  System<T, P> system(memory, p);
  gather_triangle(F, group, p, system.A);
  system.equilibrate(damping, Group<T>(damping, first));
  system.factor();

  // The estimate's column goes with the first chunk of right-hand sides.
  Lane estimate;
  const Group<T> right(rhs, first);
  for (Index c = 0; c == 0 || c < k; c += kColumns) {
    const Index cols = std::min(kColumns, k - c), pitch = cols + (c == 0);
    gather_columns(rhs, right, c, cols, pitch, system.X);
    system.scale_columns(cols, pitch);
    system.solve_columns(pitch, c == 0);
    if (c == 0) estimate = system.rcond(cols, pitch);
    system.scale_columns(cols, pitch);
    for (Index i = 0; i < p; ++i)
      for (Index x = 0; x < cols; ++x) system.note_spoilt(system.X + (i * pitch + x) * V);
    T* const to = out + first * p * k + c;
    if (k == 1)
      scatter_row(system.X, to, p, used, p, [pitch](Index e) { return e * pitch; });
    else
      for (Index i = 0; i < p; ++i)
        scatter_row(system.X + i * pitch * V, to + i * k, p * k, used, cols,
                    [](Index e) { return e; });
  }

  Index size = p * k;
  if (job == BatchJob::LogDeterminant) {
    size = 1;
  } else if (job != BatchJob::Solve) {
    system.invert_factor();
    if (job == BatchJob::Inverse) {
      size = p * p;
      system.inverse_from_factor();
      scatter_symmetric(system.A, out + first * size, used, p);
    } else {
      size = p;
      system.inverse_diagonal();
      scatter_row(system.X, out + first * p, p, used, p, [](Index e) { return e; });
    }
  }

  T worst[V], spoilt[V], estimates[V];
  system.worst.store(worst);
  system.spoilt.store(spoilt);
  estimate.store(estimates);
  for (int l = 0; l < used; ++l) {
    const Index item = first + l;
    rcond[item] = estimates[l];
    status[item] = static_cast<std::int8_t>(Status::Success);
    T* const answer = out + item * size;
    if (worst[l] > 0 && spoilt[l] == 0) {
      if (job == BatchJob::LogDeterminant) *answer = static_cast<T>(system.log_determinant(l));
      continue;
    }
    // Off the fast path: a good factor whose answer overflowed, or a bad matrix.
    bool input = finite_lower(F, item) && finite_column(damping, item);
    bool factored = worst[l] > 0;
    for (Index j = 0; j < p; ++j) factored = factored && std::isfinite(system.pivot[j * V + l]);
    const Status what = input && !factored ? Status::NotPositiveDefinite : Status::NonFinite;
    status[item] = static_cast<std::int8_t>(what);
    rcond[item] = !input ? std::numeric_limits<T>::quiet_NaN() : factored ? estimates[l] : T(0);
    fill(answer, size, std::numeric_limits<T>::quiet_NaN());
  }
}

template <class T, int P = kUnrolled>
void batch_factor_of(BatchJob job, const ConstBatch<T>& F, const ConstBatch<T>& damping,
                     const ConstBatch<T>& rhs, T* out, std::int8_t* status, T* rcond, int threads) {
  if constexpr (P > 0)
    if (F.rows != P)
      return batch_factor_of<T, P - 1>(job, F, damping, rhs, out, status, rcond, threads);
  constexpr int V = kLanes<T>;
  const Index p = F.rows, count = F.count;
  if (count == 0 || p == 0) return;
  const Index groups = ceil_div(count, V);
  const Index bytes = V * p * p * static_cast<Index>(sizeof(T));
  const Index together = std::max<Index>(1, kTaskBytes / bytes);
  const double n = static_cast<double>(p);
  const double flops = static_cast<double>(count) * n * n * (n / 3 + 2 * rhs.cols + 4);
  const int team = flops < kSerialFlops ? 1 : team_size(threads);
  std::vector<Buffer<T>> memory;
  for (int t = 0; t < team; ++t) memory.emplace_back(System<T, 0>::size(p));
  run_in_order(team, ceil_div(groups, together), [&](Index task, int thread) {
    const Index end = std::min(groups, (task + 1) * together);
    for (Index g = task * together; g < end; ++g)
      factor_group<T, P>(job, F, damping, rhs, g * V,
                         memory[static_cast<std::size_t>(thread)].data(), out, status, rcond);
  });
}

}  // namespace

template <class T>
void batch_factor(BatchJob job, const ConstBatch<T>& F, const ConstBatch<T>& damping,
                  const ConstBatch<T>& rhs, T* out, std::int8_t* status, T* rcond, int threads) {
  batch_factor_of<T>(job, F, damping, rhs, out, status, rcond, threads);
}

#define FASTFISHER_BATCH(T)                                                        \
  template void batch_factor(BatchJob, const ConstBatch<T>&, const ConstBatch<T>&, \
                             const ConstBatch<T>&, T*, std::int8_t*, T*, int);
FASTFISHER_BATCH(double)
FASTFISHER_BATCH(float)
#undef FASTFISHER_BATCH

}  // namespace fastfisher
