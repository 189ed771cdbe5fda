// Vectors and kernels against plain loops, without Python: for processors that only an emulator
// has.
//
// Built and run by `nox -s emulate`. It prints the worst error of each check in units of what
// rounding allows, and exits with the number of checks that failed.
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/batch.hpp"
#include "kernels/batch_extended.hpp"
#include "kernels/cholesky.hpp"
#include "kernels/fisher.hpp"
#include "kernels/parallel.hpp"
#include "kernels/qr.hpp"
#include "kernels/simd.hpp"
#include "kernels/stream.hpp"

using namespace fastfisher;

namespace {

int failures = 0;
std::mt19937_64 source(20260101);

double normal() { return std::normal_distribution<double>()(source); }

template <class T>
std::vector<T> normals(Index size) {
  std::vector<T> x(static_cast<std::size_t>(size));
  for (T& entry : x) entry = static_cast<T>(normal());
  return x;
}

void check(const std::string& what, bool right, double ratio = 0.0) {
  std::printf("%-44s %8.3f  %s\n", what.c_str(), ratio, right ? "ok" : "WRONG");
  failures += !right;
}

// max |x − y| ≤ bound, y the answer of the plain loop.
template <class X, class Y>
void check_close(const std::string& what, const X& x, const Y& y, double bound) {
  double worst = 0;
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double error = std::abs(static_cast<double>(x[i]) - static_cast<double>(y[i]));
    worst = error <= worst ? worst : error;  // NaN stays
  }
  check(what, worst <= bound, worst / bound);
}

template <class T>
const char* name() {
  return std::is_same_v<T, double>     ? "double"
         : std::is_same_v<T, float>    ? "float"
         : std::is_same_v<T, Float16>  ? "half"
         : std::is_same_v<T, BFloat16> ? "bfloat16"
                                       : "complex";
}

// ---- vectors, lane by lane ----

template <class T>
void vectors() {
  constexpr int N = kLanes<T>;
  const std::string type = std::string("Vec<") + name<T>() + "> ";
  T a[N], b[N], c[N], got[N];
  for (int i = 0; i < N; ++i) {
    a[i] = static_cast<T>(normal());
    b[i] = static_cast<T>(normal());
    c[i] = static_cast<T>(normal());
  }
  const auto A = Vec<T>::load(a), B = Vec<T>::load(b), C = Vec<T>::load(c);
  const auto lanes = [&](const char* what, Vec<T> made, auto&& wanted) {
    made.store(got);
    bool same = true;
    for (int i = 0; i < N; ++i) same = same && got[i] == static_cast<T>(wanted(i));
    check(type + what, same);
  };
  lanes("zero", Vec<T>::zero(), [](int) { return 0; });
  lanes("broadcast", Vec<T>::broadcast(a[0]), [&](int) { return a[0]; });
  lanes("+", A + B, [&](int i) { return a[i] + b[i]; });
  lanes("-", A - B, [&](int i) { return a[i] - b[i]; });
  lanes("*", A * B, [&](int i) { return a[i] * b[i]; });
  lanes("/", A / B, [&](int i) { return a[i] / b[i]; });
  lanes("abs", abs(A), [&](int i) { return std::abs(a[i]); });
  lanes("smaller", smaller(A, B), [&](int i) { return a[i] < b[i] ? a[i] : b[i]; });
  lanes("larger", larger(A, B), [&](int i) { return a[i] > b[i] ? a[i] : b[i]; });
  lanes("one_further", one_further(A), [&](int i) { return a[i] < 0 ? a[i] - 1 : a[i] + 1; });
  lanes("fused", fused(A, B, C), [&](int i) { return std::fma(a[i], b[i], c[i]); });
  lanes("swap_pairs", swap_pairs(A), [&](int i) { return a[i ^ 1]; });
  const T none = std::numeric_limits<T>::quiet_NaN();
  lanes("smaller of NaN", smaller(Vec<T>::broadcast(none), B), [&](int i) { return b[i]; });

  fma(A, B, C).store(got);
  bool near = true;
  for (int i = 0; i < N; ++i)
    near = near && std::abs(got[i] - std::fma(a[i], b[i], c[i])) <=
                       4 * std::numeric_limits<T>::epsilon() * (std::abs(a[i] * b[i]) + 1);
  check(type + "fma", near);

  bool scaled = true;
  for (int power = -100; power <= 100; ++power) {
    const T x = std::ldexp(std::abs(a[0]) + T(0.1), power);
    inverse_root_power(Vec<T>::broadcast(x)).store(got);
    const T r = got[N - 1], rescaled = r * x * r;
    int exponent;
    scaled = scaled && rescaled >= 1 && rescaled < 4 && std::frexp(r, &exponent) == T(0.5);
  }
  check(type + "inverse_root_power", scaled);

  Vec<T> square[N];
  T entries[N * N];
  for (int i = 0; i < N * N; ++i) entries[i] = static_cast<T>(i);
  for (int i = 0; i < N; ++i) square[i] = Vec<T>::load(entries + i * N);
  transpose(square);
  bool transposed = true;
  for (int i = 0; i < N; ++i) {
    square[i].store(got);
    for (int j = 0; j < N; ++j) transposed = transposed && got[j] == entries[j * N + i];
  }
  check(type + "transpose", transposed);
}

// Every number of 16 bits becomes the same float in a register as one by one.
template <class S>
void halves() {
  constexpr int N = kLanes<float>;
  bool same = true;
  S from[N];
  float got[N];
  for (unsigned first = 0; first < 65536; first += N) {
    for (int i = 0; i < N; ++i) from[i].bits = static_cast<std::uint16_t>(first + unsigned(i));
    Vec<float>::load(from).store(got);
    for (int i = 0; i < N; ++i) {
      const float one = static_cast<float>(from[i]);
      same = same && (got[i] == one || (got[i] != got[i] && one != one));
    }
  }
  check(std::string("every ") + name<S>(), same);
}

// ---- kernels ----

template <class S>
S stored(double x) {
  if constexpr (!kIsHalf<S>) {
    return static_cast<S>(x);
  } else {  // the upper half of a float; a half-precision number of modest size has its exponent
    const float value = static_cast<float>(x);
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    if constexpr (std::is_same_v<S, BFloat16>) return S{static_cast<std::uint16_t>(bits >> 16)};
    const std::uint32_t sign = bits >> 16 & 0x8000, size = (bits & 0x7fffffff) >> 13;
    return S{static_cast<std::uint16_t>(sign | (size > 0x1c000 ? size - 0x1c000 : 0))};
  }
}

// The lower triangle of Σ w (s − m)(s − m)ᵀ by plain loops, and what the engine makes of it.
template <class S, class T>
void fishers(Index n, Index p, int threads) {
  std::vector<S> scores(static_cast<std::size_t>(n * p));
  for (S& s : scores) s = stored<S>(normal());
  const std::vector<T> mean = normals<T>(p);
  std::vector<T> weights = normals<T>(n);
  for (T& w : weights) w = std::abs(w);
  std::vector<double> wanted, diagonals(static_cast<std::size_t>(p));
  std::vector<double> v(static_cast<std::size_t>(p)), product(v.size());
  for (double& x : v) x = static_cast<T>(normal());
  const auto at = [&](Index i, Index j) {
    return static_cast<double>(static_cast<T>(scores[static_cast<std::size_t>(i * p + j)])) -
           static_cast<double>(mean[static_cast<std::size_t>(j)]);
  };
  for (Index r = 0; r < p; ++r)
    for (Index c = 0; c <= r; ++c) {
      double sum = 0;
      for (Index i = 0; i < n; ++i)
        sum += static_cast<double>(weights[static_cast<std::size_t>(i)]) * at(i, r) * at(i, c);
      wanted.push_back(sum);
      product[static_cast<std::size_t>(r)] += sum * v[static_cast<std::size_t>(c)];
      if (r != c) product[static_cast<std::size_t>(c)] += sum * v[static_cast<std::size_t>(r)];
      if (r == c) diagonals[static_cast<std::size_t>(r)] = sum;
    }
  const std::string shape = std::string(" ") + name<S>() + "→" + name<T>() + " " +
                            std::to_string(n) + "×" + std::to_string(p) + ", " +
                            std::to_string(threads) + " threads";
  // Sums of n products of numbers about 2: the first-order bound, with 8 for the roots and means.
  const double bound = 8.0 * static_cast<double>(n) * std::numeric_limits<T>::epsilon() * 8;
  const ConstMatrix<S> view(scores.data(), n, p, Strides(p, 1));
  std::vector<T> triangle(static_cast<std::size_t>(triangle_size<T>(p)));
  const Report report =
      accumulate<T, S>(view, weights.data(), mean.data(), triangle.data(), true, true, threads);
  check("accumulate reports" + shape, report.ok());
  std::vector<T> lower;
  for (Index r = 0; r < p; ++r)
    for (Index c = 0; c <= r; ++c)
      lower.push_back(triangle[static_cast<std::size_t>(triangle_at<T>(r, c))]);
  check_close("accumulate" + shape, lower, wanted, bound);

  std::vector<T> out(v.size()), V(v.begin(), v.end());
  diagonal<S, T>(view, weights.data(), mean.data(), out.data(), true, threads);
  check_close("diagonal" + shape, out, diagonals, bound);
  fvp<S, T>(view, weights.data(), mean.data(), ConstMatrix<T>(V.data(), p, 1, Strides(1, 1)), 1.0,
            0.0, Matrix<T>(out.data(), p, 1, Strides(1, 1)), threads);
  check_close("fvp" + shape, out, product, bound * static_cast<double>(p));
  if (!kIsHalf<S> && p <= n) {  // R of the same rows: L Lᵀ is the Fisher
    std::vector<T> L(triangle.size()), squared(triangle.size());
    qr_scores<T, S>(view, weights.data(), mean.data(), false, L.data(), true, threads);
    qr_square(L.data(), p, squared.data(), threads);
    lower.clear();
    for (Index r = 0; r < p; ++r)
      for (Index c = 0; c <= r; ++c)
        lower.push_back(squared[static_cast<std::size_t>(triangle_at<T>(r, c))]);
    check_close("qr" + shape, lower, wanted, bound * std::sqrt(static_cast<double>(p)));
  }
}

// A x = b for A = X Xᵀ + p·1 made here: ‖b − A x‖ against what a stable solve leaves.
template <class T>
void solves(Index p, int threads) {
  const std::vector<T> X = normals<T>(p * p), b = normals<T>(p);
  std::vector<T> A(X.size());
  for (Index r = 0; r < p; ++r)
    for (Index c = 0; c < p; ++c) {
      double sum = r == c ? static_cast<double>(p) : 0.0;
      for (Index k = 0; k < p; ++k)
        sum += static_cast<double>(X[static_cast<std::size_t>(r * p + k)]) *
               static_cast<double>(X[static_cast<std::size_t>(c * p + k)]);
      A[static_cast<std::size_t>(r * p + c)] = static_cast<T>(sum);
    }
  const auto times_A = [&](const std::vector<T>& x) {
    std::vector<double> y(static_cast<std::size_t>(p));
    for (Index r = 0; r < p; ++r)
      for (Index c = 0; c < p; ++c)
        y[static_cast<std::size_t>(r)] += static_cast<double>(A[std::size_t(r * p + c)]) *
                                          static_cast<double>(x[static_cast<std::size_t>(c)]);
    return y;
  };
  // κ ≤ 5 by construction, so residuals are a small multiple of p·ε of entries about 3.
  const double bound = 16.0 * static_cast<double>(p) * std::numeric_limits<T>::epsilon();
  const std::string shape = std::string(" ") + name<T>() + " " + std::to_string(p) + ", " +
                            std::to_string(threads) + " threads";
  std::vector<T> L(static_cast<std::size_t>(triangle_size<T>(p))), x(b.size());
  const ConstMatrix<T> rhs(b.data(), p, 1, Strides(1, 1));
  triangle_from_dense(ConstMatrix<T>(A.data(), p, p, Strides(p, 1)), L.data(), threads);
  check("cholesky reports" + shape, cholesky<T>(L.data(), p, 1.0, nullptr, 0.0, threads).ok());
  cholesky_solve<T>(L.data(), rhs, Half::Both, Matrix<T>(x.data(), p, 1, Strides(1, 1)), threads);
  check_close("cholesky_solve" + shape, times_A(x), b, bound);

  constexpr Index count = 7;  // an odd batch: one group is never full
  std::vector<T> batch, shift(static_cast<std::size_t>(p)), right, answer(std::size_t(count * p));
  std::vector<T> rcond(count);
  std::vector<std::int8_t> status(count);
  for (Index i = 0; i < count; ++i) {
    batch.insert(batch.end(), A.begin(), A.end());
    right.insert(right.end(), b.begin(), b.end());
  }
  const ConstBatch<T> F{batch.data(), count, p, p, p * p, p, 1};
  const ConstBatch<T> damping{shift.data(), count, p, 1, 0, 1, 1};
  const ConstBatch<T> B{right.data(), count, p, 1, p, 1, 1};
  batch_factor(BatchJob::Solve, F, damping, B, answer.data(), status.data(), rcond.data(), threads);
  for (const Index i : {Index{0}, count - 1}) {
    check("batch status" + shape, status[static_cast<std::size_t>(i)] == 0);
    check_close("batch_solve" + shape,
                times_A({answer.begin() + i * p, answer.begin() + (i + 1) * p}), b, bound);
  }
  if constexpr (std::is_same_v<T, double>) {
    constexpr double ulp = std::numeric_limits<double>::epsilon();
    std::vector<double> bounds(count);
    const ConstBatch<double> none{nullptr, count, p, p, 0, 0, 0};
    batch_extended(F, false, false, none, damping, B, answer.data(), status.data(), rcond.data(),
                   bounds.data(), threads);
    check_close("batch_extended" + shape, times_A({answer.begin(), answer.begin() + p}), b, bound);
    check("batch_extended proves" + shape, bounds[0] > 0 && bounds[0] < 2 * ulp,
          bounds[0] / (2 * ulp));
  }
}

}  // namespace

int main() {
  std::printf("registers of %d bytes, %d of them; threads: %s\n", kVectorBytes, kVectorRegisters,
              has_openmp() ? "OpenMP" : "one");
  vectors<double>();
  vectors<float>();
  halves<Float16>();
  halves<BFloat16>();
  for (const int threads : {1, 3})
    for (const Index p : {1, 7, 37, 150}) {
      fishers<double, double>(301, p, threads);
      fishers<float, float>(301, p, threads);
      fishers<float, double>(301, p, threads);
      fishers<Float16, float>(301, p, threads);
      fishers<BFloat16, float>(301, p, threads);
      fishers<double, double>(5, p, threads);
      solves<double>(p, threads);
      solves<float>(p, threads);
    }
  std::printf("%d wrong\n", failures);
  return failures;
}
