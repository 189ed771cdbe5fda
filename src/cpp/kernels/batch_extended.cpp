// Compiled without contraction (CMakeLists.txt): every rounding here is where it is written.
#include "batch_extended.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "memory.hpp"
#include "parallel.hpp"
#include "report.hpp"

namespace fastfisher {

namespace {

using Lane = Vec<double>;
constexpr int V = kLanes<double>;

// An unevaluated sum hi + lo with |lo| ≤ ulp(hi)/2.
struct Twice {
  Lane hi, lo;

  static FASTFISHER_INLINE Twice zero() { return {Lane::zero(), Lane::zero()}; }
  static FASTFISHER_INLINE Twice of(double x) { return {Lane::broadcast(x), Lane::zero()}; }
};

FASTFISHER_INLINE Twice quick_sum(Lane a, Lane b) {  // |a| ≥ |b|: exact
  const Lane s = a + b;
  return {s, b - (s - a)};
}
FASTFISHER_INLINE Twice two_sum(Lane a, Lane b) {  // exact
  const Lane s = a + b;
  const Lane t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}
FASTFISHER_INLINE Twice two_product(Lane a, Lane b) {  // exact
  const Lane p = a * b;
  return {p, fused(a, b, Lane::zero() - p)};
}
FASTFISHER_INLINE Twice operator-(Twice a) { return {Lane::zero() - a.hi, Lane::zero() - a.lo}; }
FASTFISHER_INLINE Twice operator+(Twice a, Twice b) {
  const Twice s = two_sum(a.hi, b.hi), t = two_sum(a.lo, b.lo);
  const Twice v = quick_sum(s.hi, s.lo + t.hi);
  return quick_sum(v.hi, t.lo + v.lo);
}
FASTFISHER_INLINE Twice operator-(Twice a, Twice b) { return a + (-b); }
FASTFISHER_INLINE Twice operator*(Twice a, Twice b) {
  const Twice p = two_product(a.hi, b.hi);
  return quick_sum(p.hi, p.lo + fused(a.lo, b.hi, a.hi * b.lo));
}
FASTFISHER_INLINE Twice reciprocal(Twice d) {
  const Twice q = Twice{Lane::broadcast(1.0) / d.hi, Lane::zero()};
  const Twice r = Twice::of(1.0) - q * d;
  return q + q * r;
}
FASTFISHER_INLINE Twice times(Twice a, Lane power_of_two) {
  return {a.hi * power_of_two, a.lo * power_of_two};
}
FASTFISHER_INLINE Lane size(Twice a) { return abs(a.hi) + abs(a.lo); }

// An array of Twice in scratch memory.
struct Twices {
  double* data;

  FASTFISHER_INLINE Twice operator[](Index i) const {
    return {Lane::load(data + 2 * i * V), Lane::load(data + (2 * i + 1) * V)};
  }
  FASTFISHER_INLINE void set(Index i, Twice x) const {
    x.hi.store(data + 2 * i * V);
    x.lo.store(data + (2 * i + 1) * V);
  }
};

FASTFISHER_INLINE Index symmetric(Index i, Index j) { return i >= j ? packed(i, j) : packed(j, i); }

struct System {
  Index p, n;     // n: rows of scores, or zero
  double* input;  // packed lower triangle, or the scores (n, p)
  Twices A, L, X;
  Twices D, W, y, b, r;
  double *scale, *row, *error;  // (p,): S, row sums of |G|, bound of |X r|

  static Index memory(Index p, Index n) {
    const Index half = p * (p + 1) / 2;
    return (std::max(half, n * p) + 2 * (3 * half + 5 * p) + 3 * p) * V;
  }
  System(double* at, Index params, Index rows) : p(params), n(rows), input(at) {
    const Index half = p * (p + 1) / 2;
    at += std::max(half, n * p) * V;
    for (Twices* t : {&A, &L, &X}) {
      t->data = at;
      at += 2 * half * V;
    }
    for (Twices* t : {&D, &W, &y, &b, &r}) {
      t->data = at;
      at += 2 * p * V;
    }
    scale = at;
    row = scale + p * V;
    error = row + p * V;
  }

  static Lane at(const double* x, Index i) { return Lane::load(x + i * V); }

  // A ← S (A + diag(damping)) S
  void equilibrate(const ConstBatch<double>& damping, const Group<double>& shift) {
    for (Index i = 0; i < p; ++i) {
      double lanes[V];
      for (int l = 0; l < V; ++l) lanes[l] = shift.at[l][i * damping.row];
      const Twice d = A[packed(i, i)] + Twice{Lane::load(lanes), Lane::zero()};
      A.set(packed(i, i), d);
      inverse_root_power(d.hi).store(scale + i * V);
      for (Index j = 0; j <= i; ++j)
        A.set(packed(i, j), times(times(A[packed(i, j)], at(scale, i)), at(scale, j)));
    }
  }

  // A = L D Lᵀ; returns the least pivot above its tolerance, NaN if one is not finite.
  Lane factor() {
    const Lane tolerance = Lane::broadcast(static_cast<double>(p) * std::ldexp(1.0, -104));
    Lane worst = Lane::broadcast(std::numeric_limits<double>::infinity()), spoilt = Lane::zero();
    for (Index i = 0; i < p; ++i) {
      Twice d = A[packed(i, i)];
      const Lane limit = d.hi * tolerance;
      for (Index j = 0; j < i; ++j) {
        Twice w = A[packed(i, j)];
        for (Index k = 0; k < j; ++k) w = w - W[k] * L[packed(j, k)];
        W.set(j, w);
        const Twice l = w * D[j];
        L.set(packed(i, j), l);
        d = d - w * l;
      }
      D.set(i, reciprocal(d));
      worst = smaller(d.hi - limit, worst);
      spoilt = spoilt + d.hi * Lane::zero();
    }
    return worst + spoilt;
  }

  // L ← M = L⁻¹, then X = Mᵀ D⁻¹ M.
  void invert() {
    for (Index i = 0; i < p; ++i) {
      for (Index j = 0; j < i; ++j) {
        Twice m = -L[packed(i, j)];
        for (Index k = j + 1; k < i; ++k) m = m - L[packed(i, k)] * L[packed(k, j)];
        L.set(packed(i, j), m);
      }
      L.set(packed(i, i), Twice::of(1.0));
    }
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j <= i; ++j) {
        Twice x = Twice::zero();
        for (Index k = i; k < p; ++k) x = x + L[packed(k, i)] * D[k] * L[packed(k, j)];
        X.set(packed(i, j), x);
      }
  }

  // row_i ≥ Σ_j |G_ij| with G = I − X A; returns the largest. An entry of A is known to within
  // c |A_ij| + slack.
  Lane certify(Lane c, Lane slack) {
    Lane most = Lane::zero(), spoilt = Lane::zero();
    for (Index i = 0; i < p; ++i) {
      Lane sum = Lane::zero();
      for (Index j = 0; j < p; ++j) {
        Twice g = i == j ? Twice::of(-1.0) : Twice::zero();
        Lane terms = Lane::broadcast(i == j ? 1.0 : 0.0), known = Lane::zero();
        for (Index k = 0; k < p; ++k) {
          const Twice x = X[symmetric(i, k)], a = A[symmetric(k, j)];
          g = g + x * a;
          terms = terms + size(x) * size(a);
          known = known + size(x);
        }
        sum = sum + size(g) + c * terms + slack * known;
      }
      sum = sum * kUp();
      sum.store(row + i * V);
      most = larger(sum, most);
      spoilt = spoilt + sum * Lane::zero();
    }
    return most + spoilt;
  }

  static Lane kUp() { return Lane::broadcast(1 + 1e-9); }  // raises sums of up to 10⁶ terms

  // y ← the solution of A y = b, with two steps of refinement.
  void solve() {
    for (Index i = 0; i < p; ++i) {
      y.set(i, Twice::zero());
      r.set(i, b[i]);
    }
    for (int step = 0; step < 3; ++step) {
      for (Index i = 0; i < p; ++i) {
        Twice e = y[i];
        for (Index k = 0; k < p; ++k) e = e + X[symmetric(i, k)] * r[k];
        y.set(i, e);
      }
      for (Index i = 0; i < p; ++i) {
        Twice e = b[i];
        for (Index k = 0; k < p; ++k) e = e - A[symmetric(i, k)] * y[k];
        r.set(i, e);
      }
    }
  }

  // max_i |x_i − x̂_i| / max_i |x_i| for x̂ = S y rounded to double; infinite where not proven.
  Lane error_bound(Lane most, Lane c, Lane slack) {
    Lane largest = Lane::zero();
    for (Index i = 0; i < p; ++i) {  // W.hi: what the computed r_i may be off by, and r_i itself
      Lane terms = size(b[i]), known = Lane::zero();
      for (Index k = 0; k < p; ++k) {
        terms = terms + size(A[symmetric(i, k)]) * size(y[k]);
        known = known + size(y[k]);
      }
      W.set(i, {c * terms + slack * known, Lane::zero()});
    }
    Lane norm = Lane::zero();
    for (Index i = 0; i < p; ++i) {
      Twice e = Twice::zero();
      Lane off = Lane::zero();
      for (Index k = 0; k < p; ++k) {
        const Twice x = X[symmetric(i, k)];
        e = e + x * r[k];
        off = off + size(x) * (W[k].hi + c * size(r[k]));
      }
      const Lane bound = (size(e) + off) * kUp();
      bound.store(error + i * V);
      norm = larger(bound, norm);
    }
    const Lane one = Lane::broadcast(1.0);
    norm = norm / (one - most) * kUp();
    Lane worst = Lane::zero(), spoilt = Lane::zero();
    const Lane half_ulp = Lane::broadcast(std::ldexp(1.0, -53));
    for (Index i = 0; i < p; ++i) {
      const Lane s = at(scale, i);
      const Lane x = size(y[i]) * s;
      const Lane bound = (at(error, i) + at(row, i) * norm) * s * kUp() + x * half_ulp;
      worst = larger(bound, worst);
      largest = larger(x, largest);
      spoilt = spoilt + (bound + x) * Lane::zero();
    }
    // Relative to the true answer, which may be smaller than the computed one.
    Lane relative = worst / (largest - worst) * kUp() + spoilt;
    double lanes[V], room[V], gap[V];
    relative.store(lanes);
    (largest - worst).store(room);
    (one - most).store(gap);
    double all[V], top[V];
    worst.store(all);
    largest.store(top);
    for (int l = 0; l < V; ++l) {
      if (top[l] == 0 && all[l] == 0)
        lanes[l] = lanes[l] != lanes[l] ? 0.0 : lanes[l];
      else if (!(room[l] > 0 && gap[l] > 0 && lanes[l] >= 0))
        lanes[l] = std::numeric_limits<double>::infinity();
    }
    return Lane::load(lanes);
  }
};

bool finite(const double* x, Index rows, Index cols, Index row, Index col, bool lower) {
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < (lower ? i + 1 : cols); ++j)
      if (!std::isfinite(x[i * row + j * col])) return false;
  return true;
}

struct Inputs {
  const ConstBatch<double>&matrix, &lo, &damping, &rhs;
  bool scores, mean;
};

void read(const Inputs& in, Index first, System& s) {
  const Group<double> group(in.matrix, first);
  const Index p = s.p;
  if (in.scores) {
    gather_rows(in.matrix, group, 0, s.n, s.input);
    const Twice scale = in.mean ? reciprocal(Twice::of(static_cast<double>(s.n))) : Twice::of(1.0);
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j <= i; ++j) {
        Twice sum = Twice::zero();
        for (Index t = 0; t < s.n; ++t)
          sum = sum + two_product(System::at(s.input, t * p + i), System::at(s.input, t * p + j));
        s.A.set(packed(i, j), in.mean ? sum * scale : sum);
      }
    return;
  }
  gather_triangle(in.matrix, group, p, s.input);
  for (Index e = 0; e < p * (p + 1) / 2; ++e) s.A.set(e, {System::at(s.input, e), Lane::zero()});
  if (!in.lo.data) return;
  gather_triangle(in.lo, Group<double>(in.lo, first), p, s.input);
  for (Index e = 0; e < p * (p + 1) / 2; ++e)
    s.A.set(e, two_sum(s.A[e].hi, System::at(s.input, e)));
}

void extended_group(const Inputs& in, Index first, double* memory, double* out, std::int8_t* status,
                    double* rcond, double* bound) {
  const bool solve = in.rhs.data != nullptr;
  const Index p = in.matrix.cols, n = in.scores ? in.matrix.rows : 0;
  const Index k = solve ? in.rhs.cols : p;
  const Index last = in.matrix.count - first;
  const int used = static_cast<int>(last < V ? last : V);
  System s(memory, p, n);
  read(in, first, s);
  s.equilibrate(in.damping, Group<double>(in.damping, first));
  const Lane pivots = s.factor();
  s.invert();

  // (8 m + 16) u² for sums of m = p + 1 terms; and what A itself may be off by: a diagonal entry at
  // the most 4, an entry of Σ s sᵀ at the most as much. 1e-290 covers products that underflow.
  const double unit = std::ldexp(1.0, -106);
  const Lane c = Lane::broadcast((8.0 * static_cast<double>(p) + 32.0) * unit);
  const Lane slack = Lane::broadcast(
      (in.scores ? 4 * (8.0 * static_cast<double>(n) + 32.0) * unit : 0.0) + 1e-290);
  const Lane most = s.certify(c, slack);
  Lane norm = Lane::zero(), inverse_norm = Lane::zero();
  for (Index i = 0; i < p; ++i) {
    Lane a = Lane::zero(), x = Lane::zero();
    for (Index j = 0; j < p; ++j) {
      a = a + abs(s.A[symmetric(i, j)].hi);
      x = x + abs(s.X[symmetric(i, j)].hi);
    }
    norm = larger(a, norm);
    inverse_norm = larger(x, inverse_norm);
  }

  Lane worst = Lane::zero(), spoilt = Lane::zero();
  if (solve) {
    const Group<double> right(in.rhs, first);
    for (Index column = 0; column < k; ++column) {
      for (Index i = 0; i < p; ++i) {
        double lanes[V];
        for (int l = 0; l < V; ++l) lanes[l] = right.at[l][i * in.rhs.row + column * in.rhs.col];
        s.b.set(i, {Lane::load(lanes) * System::at(s.scale, i), Lane::zero()});
      }
      s.solve();
      worst = larger(s.error_bound(most, c, slack), worst);
      for (Index i = 0; i < p; ++i) {
        double lanes[V];
        const Lane x = (s.y[i].hi + s.y[i].lo) * System::at(s.scale, i);
        x.store(lanes);
        spoilt = spoilt + x * Lane::zero();
        for (int l = 0; l < used; ++l) out[((first + l) * p + i) * k + column] = lanes[l];
      }
    }
  } else {
    worst = most + Lane::broadcast(std::ldexp(1.0, -53));
    for (Index i = 0; i < p; ++i)
      for (Index j = 0; j < p; ++j) {
        double lanes[V];
        const Lane x = s.X[symmetric(i, j)].hi * System::at(s.scale, std::max(i, j)) *
                       System::at(s.scale, std::min(i, j));
        x.store(lanes);
        spoilt = spoilt + x * Lane::zero();
        for (int l = 0; l < used; ++l) out[((first + l) * p + i) * p + j] = lanes[l];
      }
  }

  double pivot[V], bounds[V], conditions[V], bad[V], gap[V];
  pivots.store(pivot);
  worst.store(bounds);
  (Lane::broadcast(1.0) / (norm * inverse_norm)).store(conditions);
  spoilt.store(bad);
  most.store(gap);
  for (int l = 0; l < used; ++l) {
    const Index item = first + l;
    rcond[item] = conditions[l];
    bound[item] = gap[l] < 1 ? bounds[l] : std::numeric_limits<double>::infinity();
    status[item] = static_cast<std::int8_t>(Status::Success);
    if (pivot[l] > 0 && bad[l] == 0) continue;
    const auto& m = in.matrix;
    bool input = finite(m.at(item), m.rows, m.cols, m.row, m.col, !in.scores) &&
                 finite(in.damping.at(item), p, 1, in.damping.row, 1, false);
    if (in.lo.data) input = input && finite(in.lo.at(item), p, p, in.lo.row, in.lo.col, true);
    const bool factored = pivot[l] > 0;
    status[item] = static_cast<std::int8_t>(input && !factored ? Status::NotPositiveDefinite
                                                               : Status::NonFinite);
    rcond[item] = !input     ? std::numeric_limits<double>::quiet_NaN()
                  : factored ? conditions[l]
                             : 0.0;
    bound[item] = std::numeric_limits<double>::infinity();
    std::fill(out + item * p * k, out + (item + 1) * p * k,
              std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace

void batch_extended(const ConstBatch<double>& matrix, bool scores, bool mean,
                    const ConstBatch<double>& lo, const ConstBatch<double>& damping,
                    const ConstBatch<double>& rhs, double* out, std::int8_t* status, double* rcond,
                    double* bound, int threads) {
  const Index p = matrix.cols, count = matrix.count;
  if (count == 0 || p == 0) return;
  const double n = static_cast<double>(p);
  const int team =
      static_cast<double>(count) * n * n * n * 50 < kSerialFlops ? 1 : team_size(threads);
  std::vector<Buffer<double>> memory;
  for (int t = 0; t < team; ++t) memory.emplace_back(System::memory(p, scores ? matrix.rows : 0));
  const Inputs in{matrix, lo, damping, rhs, scores, mean};
  run_in_order(team, ceil_div(count, V), [&](Index group, int thread) {
    extended_group(in, group * V, memory[static_cast<std::size_t>(thread)].data(), out, status,
                   rcond, bound);
  });
}

}  // namespace fastfisher
