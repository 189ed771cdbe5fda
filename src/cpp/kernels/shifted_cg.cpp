// Shifted conjugate gradients: one Lanczos step per product, then each damping its own recurrence.
#include "shifted_cg.hpp"

#include <vector>

#include "memory.hpp"
#include "parallel.hpp"
#include "vectors.hpp"

namespace fastfisher {

namespace {

// Numbers of a step's updates below which a second thread is not woken.
constexpr Index kParallelSize = Index{1} << 16;

// One right-hand side: its Lanczos vectors, in units of ‖b‖.
struct Space {
  double rhs_norm = 0.0, tolerance = 0.0;  // the tolerance relative to ‖b‖
  double alpha = 0.0, beta = 0.0, next = 0.0;
  double size = 0.0;  // the largest ‖Av‖ seen, a lower bound of ‖A‖
};

// One damping and one right-hand side.
struct System {
  bool active = false;
  Status verdict = Status::Success;  // unless the true residual disagrees
  double damping = 0.0;
  double inverse = 0.0;  // 1 / δ of the step before
  double sigma = 1.0;    // the residual is σ v
  double best = 1.0;     // the last |σ| that counted as progress,
  Index best_at = 0;     // and its iteration
};

template <class T>
class Path {
 public:
  Path(const BlockOperator<T>& apply, const double* dampings, Index count, ConstMatrix<T> B,
       const CgLimits& limits, CgOutcome* outcome, int threads)
      : apply_(apply),
        limits_(limits),
        outcome_(outcome),
        params_(B.rows()),
        columns_(B.cols()),
        threads_(team_size(threads)),
        spaces_(static_cast<std::size_t>(B.cols())),
        systems_(static_cast<std::size_t>(count * B.cols())),
        b_(B.size()),
        v_(B.size()),
        before_(B.size()),
        in_(B.size()),
        result_(B.size()),
        x_(count * B.size()),
        d_(count * B.size()) {
    before_.zero();
    x_.zero();
    for (Index j = 0; j < columns_; ++j) {
      Space& s = spaces_[static_cast<std::size_t>(j)];
      T* b = at(b_, j);
      for (Index i = 0; i < params_; ++i) b[i] = B(i, j);
      s.rhs_norm = norm(b, params_);
      s.tolerance = std::max(limits_.rtol, limits_.atol / s.rhs_norm);
      for (Index i = 0; i < params_; ++i)  // in double: ‖b‖ may be beyond the numbers of T
        b[i] = static_cast<T>(static_cast<double>(b[i]) / s.rhs_norm);
      std::copy_n(b, params_, at(v_, j));
    }
    for (Index c = 0; c < size(); ++c) begin(c, dampings[c / columns_]);
  }

  void run() {
    for (Index step = 0; step < limits_.max_iterations; ++step) {
      const std::vector<Index> working = those([](const System& s) { return s.active; });
      if (working.empty()) break;
      lanczos(working);
      const bool large = static_cast<Index>(working.size()) * params_ > kParallelSize;
      run_in_order(large ? threads_ : 1, static_cast<Index>(working.size()),
                   [&](Index w, int) { advance(working[static_cast<std::size_t>(w)]); });
    }
    check();
  }

  void write(Matrix<T> out) {
    for (Index c = 0; c < size(); ++c) {
      const double unit = space(c).rhs_norm;
      T* x = at(x_, c);
      double largest = 0.0;
      for (Index i = 0; i < params_ && unit > 0.0; ++i) {
        x[i] = static_cast<T>(static_cast<double>(x[i]) * unit);
        largest = std::max(largest, std::abs(static_cast<double>(x[i])));
      }
      if (!all_finite(x, params_)) {  // the solution itself is beyond the numbers
        std::fill_n(x, params_, T(0));
        outcome_[c].status = Status::NonFinite;
      } else if (largest > 0.0 && largest < std::numeric_limits<T>::min()) {
        outcome_[c].status = Status::Stagnated;  // it lost digits below the normal numbers
      }
      for (Index i = 0; i < params_; ++i) out(i, c) = x[i];
    }
  }

 private:
  Index size() const { return static_cast<Index>(systems_.size()); }
  T* at(Buffer<T>& block, Index column) { return block.data() + column * params_; }
  System& system(Index c) { return systems_[static_cast<std::size_t>(c)]; }
  Space& space(Index c) { return spaces_[static_cast<std::size_t>(c % columns_)]; }

  template <class Which>
  std::vector<Index> those(Which which) const {
    std::vector<Index> chosen;
    for (std::size_t c = 0; c < systems_.size(); ++c)
      if (which(systems_[c])) chosen.push_back(static_cast<Index>(c));
    return chosen;
  }

  void stop(Index c, Status verdict) {
    system(c).active = false;
    system(c).verdict = verdict;
  }

  void begin(Index c, double damping) {
    const Space& s = space(c);
    outcome_[c] = CgOutcome{};
    system(c).damping = damping;
    std::copy_n(at(b_, c % columns_), params_, at(d_, c));
    if (!std::isfinite(s.rhs_norm)) return stop(c, Status::NonFinite);
    system(c).active = s.rhs_norm > 0.0 && s.tolerance < 1.0;
    if (!system(c).active) return;
    system(c).verdict = Status::MaxIterations;
  }

  // β₊ v₊ = A v − α v − β v₋ for every right-hand side that a working system has.
  void lanczos(const std::vector<Index>& working) {
    std::vector<Index> asking;
    for (Index j = 0; j < columns_; ++j)
      if (std::any_of(working.begin(), working.end(), [&](Index c) { return c % columns_ == j; })) {
        std::copy_n(at(v_, j), params_, at(in_, static_cast<Index>(asking.size())));
        asking.push_back(j);
      }
    const Index count = static_cast<Index>(asking.size());
    apply_(ConstMatrix<T>(in_.data(), params_, count, Strides(1, params_)),
           Matrix<T>(result_.data(), params_, count, Strides(1, params_)));
    for (Index a = 0; a < count; ++a) {
      const Index j = asking[static_cast<std::size_t>(a)];
      Space& s = spaces_[static_cast<std::size_t>(j)];
      T *Av = at(result_, a), *v = at(v_, j), *before = at(before_, j);
      s.beta = s.next;
      s.size = std::max(s.size, norm(Av, params_));
      for (Index i = 0; i < params_; ++i) Av[i] -= static_cast<T>(s.beta) * before[i];
      s.alpha = dot(v, Av, params_);
      for (Index i = 0; i < params_; ++i) Av[i] -= static_cast<T>(s.alpha) * v[i];
      s.next = norm(Av, params_);
      const T inverse = s.next > 0.0 ? static_cast<T>(1.0 / s.next) : T(0);
      std::copy_n(v, params_, before);
      for (Index i = 0; i < params_; ++i) v[i] = inverse * Av[i];
    }
  }

  // The step of one system along its direction, and its next direction.
  void advance(Index c) {
    System& s = system(c);
    const Space& lanczos = space(c);
    T *x = at(x_, c), *d = at(d_, c);
    const T* v = at(v_, c % columns_);
    const double pivot = lanczos.alpha + s.damping - lanczos.beta * (lanczos.beta * s.inverse);
    // The curvature dᵀ(A + λI)d is σ²δ, and no more of it is known than this.
    const double rounding = std::numeric_limits<T>::epsilon() * (lanczos.size + s.damping) *
                            dot(d, d, params_) / (s.sigma * s.sigma);
    if (!std::isfinite(pivot) || !std::isfinite(lanczos.next) || !std::isfinite(rounding))
      return stop(c, Status::NonFinite);
    if (pivot <= -rounding) return stop(c, Status::NegativeCurvature);
    if (pivot <= rounding) return stop(c, Status::Stagnated);
    s.inverse = 1.0 / pivot;
    const double ratio = lanczos.next * s.inverse;
    s.sigma *= -ratio;
    const T step = static_cast<T>(s.inverse), sigma = static_cast<T>(s.sigma),
            keep = static_cast<T>(ratio * ratio);
    for (Index i = 0; i < params_; ++i) {
      x[i] += step * d[i];
      d[i] = sigma * v[i] + keep * d[i];
    }
    const double residual = std::abs(s.sigma);
    const Index iteration = ++outcome_[c].iterations;
    if (residual <= lanczos.tolerance) return stop(c, Status::Success);
    if (residual < s.best / 2) {
      s.best = residual;
      s.best_at = iteration;
    } else if (iteration - s.best_at > patience(params_)) {
      stop(c, Status::Stagnated);
    }
  }

  // r = b − (A + λI) x for all systems at once, and what follows from it.
  void check() {
    std::vector<Index> doubtful;
    for (Index c = 0; c < size(); ++c)
      if (!all_finite(at(x_, c), params_)) {
        std::fill_n(at(x_, c), params_, T(0));
        system(c).verdict = Status::NonFinite;
      }
    if (size() > 0)
      apply_(ConstMatrix<T>(x_.data(), params_, size(), Strides(1, params_)),
             Matrix<T>(d_.data(), params_, size(), Strides(1, params_)));
    for (Index c = 0; c < size(); ++c) {
      const Space& s = space(c);
      const T *x = at(x_, c), *b = at(b_, c % columns_);
      T* r = at(d_, c);
      const T damping = static_cast<T>(system(c).damping);
      if (s.rhs_norm == 0.0) continue;
      for (Index i = 0; i < params_; ++i) r[i] = b[i] - (r[i] + damping * x[i]);
      CgOutcome& o = outcome_[c];
      o.residual = norm(r, params_);
      o.status = system(c).verdict;
      if (!std::isfinite(o.residual)) {
        o.status = Status::NonFinite;
      } else if (o.residual <= s.tolerance) {
        if (o.status != Status::NegativeCurvature && o.status != Status::NonFinite)
          o.status = Status::Success;
      } else if (o.status == Status::Success) {
        doubtful.push_back(c);
      }
    }
    for (const Index c : doubtful) go_on(c);
  }

  // The recurrence was too sure of itself: from its x on, one system alone.
  void go_on(Index c) {
    const Space& s = space(c);
    const Strides strides(1, params_);
    const Index used = outcome_[c].iterations;
    const ConstMatrix<T> start(at(x_, c), params_, 1, strides);
    conjugate_gradients<T>(
        apply_, nullptr, ConstMatrix<T>(at(b_, c % columns_), params_, 1, strides), &start,
        {s.tolerance, 0.0, limits_.max_iterations - used},
        Matrix<T>(at(x_, c), params_, 1, strides), outcome_ + c, &system(c).damping);
    outcome_[c].iterations += used;
  }

  const BlockOperator<T>& apply_;
  const CgLimits limits_;
  CgOutcome* outcome_;
  const Index params_, columns_;
  const int threads_;
  std::vector<Space> spaces_;
  std::vector<System> systems_;
  Buffer<T> b_, v_, before_, in_, result_, x_, d_;
};

}  // namespace

template <class T>
void shifted_conjugate_gradients(const BlockOperator<T>& apply, const double* dampings, Index count,
                                 ConstMatrix<T> B, const CgLimits& limits, Matrix<T> out,
                                 CgOutcome* outcome, int threads) {
  Path<T> path(apply, dampings, count, B, limits, outcome, threads);
  path.run();
  path.write(out);
}

template void shifted_conjugate_gradients(const BlockOperator<double>&, const double*, Index,
                                          ConstMatrix<double>, const CgLimits&, Matrix<double>,
                                          CgOutcome*, int);
template void shifted_conjugate_gradients(const BlockOperator<float>&, const double*, Index,
                                          ConstMatrix<float>, const CgLimits&, Matrix<float>,
                                          CgOutcome*, int);

}  // namespace fastfisher
