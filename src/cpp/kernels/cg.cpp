// Preconditioned conjugate gradients: one block product per round, a state for each column.
#include "cg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "memory.hpp"
#include "simd.hpp"
#include "stream.hpp"
#include "triangle.hpp"

namespace fastfisher {

namespace {

constexpr int kRestarts = 3;  // from a true residual that the recurrence did not know of

// Steps without halving the residual after which a column has stagnated: exact arithmetic ends in
// p.
Index patience(Index params) { return std::max<Index>(100, 2 * params); }

// Right-hand sides beyond 2^±kScaleLimit are solved for b / 2^e, since CG squares what it works on.
constexpr int kScaleLimit = 60;

// xᵀy in double, in an order fixed by the length.
template <class T>
double dot(const T* x, const T* y, Index size) {
  constexpr int L = kLanes<double>, chains = 4;
  Vec<double> acc[chains];
  for (auto& a : acc) a = Vec<double>::zero();
  Index i = 0;
  for (; i + chains * L <= size; i += chains * L) {
    FASTFISHER_UNROLL
    for (int c = 0; c < chains; ++c)
      acc[c] = fma(Vec<double>::load(x + i + c * L), Vec<double>::load(y + i + c * L), acc[c]);
  }
  double total = sum((acc[0] + acc[1]) + (acc[2] + acc[3]));
  for (; i < size; ++i) total += static_cast<double>(x[i]) * static_cast<double>(y[i]);
  return total;
}

// ‖x‖, also where ‖x‖² is beyond the numbers; NaN or Inf only where x has one.
template <class T>
double norm(const T* x, Index size) {
  const double square = dot(x, x, size);
  if (std::isfinite(square) && square > 1e-280) return std::sqrt(square);
  double largest = 0.0;
  for (Index i = 0; i < size; ++i) {
    const double a = std::abs(static_cast<double>(x[i]));
    if (!(a <= std::numeric_limits<double>::max())) return std::numeric_limits<double>::quiet_NaN();
    largest = std::max(largest, a);
  }
  if (largest == 0.0) return 0.0;
  double total = 0.0;
  for (Index i = 0; i < size; ++i) total += std::pow(static_cast<double>(x[i]) / largest, 2);
  return largest * std::sqrt(total);
}

template <class T>
bool all_finite(const T* x, Index size) {
  return std::all_of(x, x + size, [](T value) { return std::isfinite(value); });
}

// What a column puts into the next operator call.
enum class Asks {
  Step,   // its direction d
  Check,  // its iterate x, to learn the true residual
  Done,
};

struct Column {
  Asks asks = Asks::Check;
  bool started = false;              // the first check only tells where x0 stands
  Status verdict = Status::Success;  // what the column will end with unless the check disagrees
  int restarts = 0;
  double rhs_norm = 0.0, tolerance = 0.0;
  double rho = 0.0;   // rᵀz of the last step; 0: the next direction is z itself
  double size = 0.0;  // the largest ‖Ad‖/‖d‖ seen, a lower bound of ‖A‖
  double best = 0.0;  // the last residual that counted as progress,
  Index best_at = 0;  // and its iteration
  int exponent = 0;   // b, x, r, d are held divided by 2^exponent
};

template <class T>
class Solver {
 public:
  Solver(const BlockOperator<T>& apply, const BlockOperator<T>& precondition, ConstMatrix<T> B,
         const ConstMatrix<T>* X0, const CgLimits& limits, CgOutcome* outcome)
      : apply_(apply),
        precondition_(precondition),
        limits_(limits),
        outcome_(outcome),
        params_(B.rows()),
        columns_(static_cast<std::size_t>(B.cols())),
        b_(B.size()),
        x_(B.size()),
        r_(B.size()),
        d_(B.size()),
        in_(B.size()),
        result_(B.size()) {
    for (Index j = 0; j < B.cols(); ++j)
      for (Index i = 0; i < params_; ++i) {
        at(b_, j)[i] = B(i, j);
        at(x_, j)[i] = X0 ? (*X0)(i, j) : T(0);
      }
    for (Index j = 0; j < B.cols(); ++j) begin(j, X0 != nullptr);
  }

  void run() {
    for (;;) {
      directions();
      const std::vector<Index> asking = those([](const Column& c) { return c.asks != Asks::Done; });
      if (asking.empty()) return;
      const Index count = static_cast<Index>(asking.size());
      for (Index a = 0; a < count; ++a)
        copy(at(column(asking[a]).asks == Asks::Step ? d_ : x_, asking[a]), at(in_, a));
      apply_(ConstMatrix<T>(in_.data(), params_, count, Strides(1, params_)),
             Matrix<T>(result_.data(), params_, count, Strides(1, params_)));
      for (Index a = 0; a < count; ++a) {
        if (column(asking[a]).asks == Asks::Step)
          step(asking[a], at(result_, a));
        else
          check(asking[a], at(result_, a));
      }
    }
  }

  void write(Matrix<T> out) {
    for (Index j = 0; j < out.cols(); ++j) {
      T* x = at(x_, j);
      const double loss = rescaling_loss(x, column(j).exponent);
      rescale(x, column(j).exponent);
      if (loss > 4 * static_cast<double>(std::numeric_limits<T>::epsilon()))
        end(j, Status::Stagnated, std::max(outcome_[j].residual, loss));
      if (!all_finite(x, params_)) {  // the solution itself is beyond the numbers
        std::fill(x, x + params_, T(0));
        end(j, Status::NonFinite, 1.0);
      }
    }
    for (Index i = 0; i < params_; ++i)
      for (Index j = 0; j < out.cols(); ++j) out(i, j) = at(x_, j)[i];
  }

 private:
  T* at(Buffer<T>& block, Index j) { return block.data() + j * params_; }
  Column& column(Index j) { return columns_[static_cast<std::size_t>(j)]; }
  void copy(const T* from, T* to) const { std::copy(from, from + params_, to); }

  // What x loses, of its largest entry, where 2^exponent x falls below the normal numbers.
  double rescaling_loss(const T* x, int exponent) const {
    T size = 0, loss = 0;
    for (Index i = 0; exponent < 0 && i < params_; ++i) {
      size = std::max(size, std::abs(x[i]));
      loss = std::max(loss, std::abs(x[i] - std::ldexp(std::ldexp(x[i], exponent), -exponent)));
    }
    return size > 0 ? static_cast<double>(loss) / static_cast<double>(size) : 0.0;
  }

  // x ← 2^exponent x, exactly.
  void rescale(T* x, int exponent) const {
    if (exponent != 0)
      for (Index i = 0; i < params_; ++i) x[i] = std::ldexp(x[i], exponent);
  }

  template <class Which>
  std::vector<Index> those(Which which) const {
    std::vector<Index> chosen;
    for (std::size_t j = 0; j < columns_.size(); ++j)
      if (which(columns_[j])) chosen.push_back(static_cast<Index>(j));
    return chosen;
  }

  void end(Index j, Status status, double residual) {
    column(j).asks = Asks::Done;
    outcome_[j].status = status;
    outcome_[j].residual = residual;
  }

  // The column asks for its true residual and then ends with `verdict`, unless that disagrees.
  void claim(Index j, Status verdict) {
    column(j).verdict = verdict;
    column(j).asks = Asks::Check;
  }

  void begin(Index j, bool warm) {
    Column& c = column(j);
    outcome_[j] = CgOutcome{};
    c.rhs_norm = norm(at(b_, j), params_);
    c.tolerance = std::max(limits_.rtol * c.rhs_norm, limits_.atol);
    if (c.rhs_norm == 0.0) {
      std::fill(at(x_, j), at(x_, j) + params_, T(0));
      return end(j, Status::Success, 0.0);
    }
    if (std::isfinite(c.rhs_norm) && std::abs(std::ilogb(c.rhs_norm)) > kScaleLimit) {
      c.exponent = std::ilogb(c.rhs_norm);
      rescale(at(b_, j), -c.exponent);
      rescale(at(x_, j), -c.exponent);
      c.rhs_norm = std::ldexp(c.rhs_norm, -c.exponent);
      c.tolerance = std::max(limits_.rtol * c.rhs_norm, std::ldexp(limits_.atol, -c.exponent));
    }
    if (!std::isfinite(c.rhs_norm) || !all_finite(at(x_, j), params_)) {
      std::fill(at(x_, j), at(x_, j) + params_, T(0));
      return end(j, Status::NonFinite, std::numeric_limits<double>::quiet_NaN());
    }
    if (warm) return;  // its first check tells the residual
    copy(at(b_, j), at(r_, j));
    proceed(j, c.rhs_norm);
  }

  // From a true residual r that is not yet small.
  void proceed(Index j, double residual) {
    Column& c = column(j);
    c.started = true;
    c.rho = 0.0;
    c.best = residual;
    c.best_at = outcome_[j].iterations;
    if (residual <= c.tolerance) return end(j, Status::Success, residual / c.rhs_norm);
    if (outcome_[j].iterations >= limits_.max_iterations)
      return end(j, Status::MaxIterations, residual / c.rhs_norm);
    c.asks = Asks::Step;
  }

  // z = M⁻¹ r,  d ← z + β d
  void directions() {
    const std::vector<Index> stepping = those([](const Column& c) { return c.asks == Asks::Step; });
    const Index count = static_cast<Index>(stepping.size());
    if (count == 0) return;
    for (Index a = 0; a < count; ++a) copy(at(r_, stepping[a]), at(in_, a));
    if (precondition_)
      precondition_(ConstMatrix<T>(in_.data(), params_, count, Strides(1, params_)),
                    Matrix<T>(result_.data(), params_, count, Strides(1, params_)));
    for (Index a = 0; a < count; ++a) {
      const Index j = stepping[a];
      Column& c = column(j);
      const T* z = precondition_ ? at(result_, a) : at(in_, a);
      const double rho = dot(at(r_, j), z, params_);
      if (!std::isfinite(rho)) {
        claim(j, Status::NonFinite);
        continue;
      }
      if (rho <=
          0.0) {  // a residual so small that its square is zero, or M is not positive definite
        claim(j, dot(z, z, params_) > 0.0 ? Status::NegativeCurvature : Status::Stagnated);
        continue;
      }
      T* d = at(d_, j);
      if (c.rho == 0.0) {
        copy(z, d);
      } else {
        const T beta = static_cast<T>(rho / c.rho);
        for (Index i = 0; i < params_; ++i) d[i] = z[i] + beta * d[i];
      }
      c.rho = rho;
    }
  }

  // α = rᵀz / dᵀAd,  x ← x + α d,  r ← r − α A d
  void step(Index j, const T* Ad) {
    Column& c = column(j);
    T *x = at(x_, j), *r = at(r_, j);
    const T* d = at(d_, j);
    const double curvature = dot(d, Ad, params_);
    const double d_norm = norm(d, params_), Ad_norm = norm(Ad, params_);
    if (!std::isfinite(curvature) || !std::isfinite(Ad_norm) || !std::isfinite(d_norm))
      return claim(j, Status::NonFinite);
    if (d_norm == 0.0) return claim(j, Status::Stagnated);
    c.size = std::max(c.size, Ad_norm / d_norm);
    const double rounding = std::numeric_limits<T>::epsilon() * (c.size * d_norm) * d_norm;
    if (curvature <= -rounding) return claim(j, Status::NegativeCurvature);
    if (curvature <= rounding) return claim(j, Status::Stagnated);
    const T alpha = static_cast<T>(c.rho / curvature);
    double largest = 0.0;  // of the new x, so that it is never left with an Inf
    for (Index i = 0; i < params_; ++i) {
      r[i] -= alpha * Ad[i];
      largest = std::max(largest, std::abs(static_cast<double>(x[i] + alpha * d[i])));
    }
    const double residual = norm(r, params_);
    if (!std::isfinite(residual) || !(largest <= std::numeric_limits<T>::max()))
      return claim(j, Status::NonFinite);
    for (Index i = 0; i < params_; ++i) x[i] += alpha * d[i];
    ++outcome_[j].iterations;
    if (residual <= c.tolerance) return claim(j, Status::Success);
    if (residual < c.best / 2) {
      c.best = residual;
      c.best_at = outcome_[j].iterations;
    } else if (outcome_[j].iterations - c.best_at > patience(params_)) {
      return claim(j, Status::Stagnated);
    }
    if (outcome_[j].iterations >= limits_.max_iterations) return claim(j, Status::MaxIterations);
  }

  // r = b − A x, and what follows from it.
  void check(Index j, const T* Ax) {
    Column& c = column(j);
    T* r = at(r_, j);
    const T* b = at(b_, j);
    for (Index i = 0; i < params_; ++i) r[i] = b[i] - Ax[i];
    const double residual = norm(r, params_), relative = residual / c.rhs_norm;
    if (!std::isfinite(residual)) return end(j, Status::NonFinite, relative);
    if (!c.started) return proceed(j, residual);
    const bool bad = c.verdict == Status::NegativeCurvature || c.verdict == Status::NonFinite;
    if (residual <= c.tolerance && !bad) return end(j, Status::Success, relative);
    if (c.verdict != Status::Success) return end(j, c.verdict, relative);
    if (c.restarts++ == kRestarts) return end(j, Status::Stagnated, relative);
    proceed(j, residual);
  }

  const BlockOperator<T>& apply_;
  const BlockOperator<T>& precondition_;
  const CgLimits limits_;
  CgOutcome* outcome_;
  const Index params_;
  std::vector<Column> columns_;
  Buffer<T> b_, x_, r_, d_, in_, result_;
};

// out = V / diagonal, or nothing at all for nullptr.
template <class T>
BlockOperator<T> jacobi_of(const T* diagonal) {
  if (!diagonal) return nullptr;
  return [diagonal](ConstMatrix<T> V, Matrix<T> out) {
    for (Index j = 0; j < V.cols(); ++j)
      for (Index i = 0; i < V.rows(); ++i) out(i, j) = V(i, j) / diagonal[i];
  };
}

// out += diag(damping) V
template <class T>
void add_damping(const T* damping, const ConstMatrix<T>& V, Matrix<T>& out) {
  for (Index j = 0; j < V.cols(); ++j)
    for (Index i = 0; i < V.rows(); ++i) out(i, j) += damping[i] * V(i, j);
}

}  // namespace

template <class T>
void conjugate_gradients(const BlockOperator<T>& apply, const BlockOperator<T>& precondition,
                         ConstMatrix<T> B, const ConstMatrix<T>* X0, const CgLimits& limits,
                         Matrix<T> out, CgOutcome* outcome) {
  Solver<T> solver(apply, precondition, B, X0, limits, outcome);
  solver.run();
  solver.write(out);
}

template <class S, class A>
void cg_scores(ConstMatrix<S> scores, const A* weights, const A* mean, double scale,
               const A* damping, ConstMatrix<A> B, const ConstMatrix<A>* X0, const A* jacobi,
               const CgLimits& limits, Matrix<A> out, CgOutcome* outcome, int threads) {
  const BlockOperator<A> apply = [&](ConstMatrix<A> V, Matrix<A> AV) {
    fvp<S, A>(scores, weights, mean, V, scale, 0.0, AV, threads);
    add_damping(damping, V, AV);
  };
  conjugate_gradients<A>(apply, jacobi_of(jacobi), B, X0, limits, out, outcome);
}

template <class T>
void cg_triangle(const T* triangle, Index params, double scale, const T* damping, ConstMatrix<T> B,
                 const ConstMatrix<T>* X0, const T* jacobi, const CgLimits& limits, Matrix<T> out,
                 CgOutcome* outcome, int threads) {
  const BlockOperator<T> apply = [&](ConstMatrix<T> V, Matrix<T> AV) {
    triangle_product<T>(triangle, params, V, scale, 0.0, AV, threads);
    add_damping(damping, V, AV);
  };
  conjugate_gradients<T>(apply, jacobi_of(jacobi), B, X0, limits, out, outcome);
}

#define FASTFISHER_CG(T)                                                                    \
  template void conjugate_gradients(const BlockOperator<T>&, const BlockOperator<T>&,       \
                                    ConstMatrix<T>, const ConstMatrix<T>*, const CgLimits&, \
                                    Matrix<T>, CgOutcome*);                                 \
  template void cg_triangle(const T*, Index, double, const T*, ConstMatrix<T>,              \
                            const ConstMatrix<T>*, const T*, const CgLimits&, Matrix<T>,    \
                            CgOutcome*, int);
FASTFISHER_CG(double)
FASTFISHER_CG(float)
#undef FASTFISHER_CG

#define FASTFISHER_CG(S, A)                                                                        \
  template void cg_scores(ConstMatrix<S>, const A*, const A*, double, const A*, ConstMatrix<A>,    \
                          const ConstMatrix<A>*, const A*, const CgLimits&, Matrix<A>, CgOutcome*, \
                          int);
FASTFISHER_FOR_STORED(FASTFISHER_CG)
#undef FASTFISHER_CG

}  // namespace fastfisher
