// Many small symmetric positive definite systems at once: one in each thread, or in each warp.
#include "numbers.cuh"

enum Job { kSolve, kInverse, kInverseDiagonal, kLogDeterminant };
// As `fastfisher.Status`.
enum Status { kSuccess, kNotPositiveDefinite, kNonFinite };

template <class T>
struct Limits;
template <>
struct Limits<double> {
  typedef unsigned long long Bits;
  static constexpr int digits = 52;
  static constexpr Bits bias = 1023;
  __device__ static constexpr double epsilon() { return 2.220446049250313e-16; }
};
template <>
struct Limits<float> {
  typedef unsigned Bits;
  static constexpr int digits = 23;
  static constexpr Bits bias = 127;
  __device__ static constexpr float epsilon() { return 1.1920929e-7f; }
};

// The power of two r that brings r²·|a| into [1, 4); for subnormal numbers and zero what would do
// for the least exponent, for infinity and NaN what would do for the largest.
template <class T>
__device__ inline T inverse_root_power(T a) {
  typedef typename Limits<T>::Bits Bits;
  Bits bits;
  memcpy(&bits, &a, sizeof bits);
  const Bits bias = Limits<T>::bias, exponent = (bits >> Limits<T>::digits) & (2 * bias + 1);
  bits = (bias + (bias + 1) / 2 - ((exponent + 1) >> 1)) << Limits<T>::digits;
  memcpy(&a, &bits, sizeof bits);
  return a;
}

template <class T>
__device__ inline T not_a_number() {
  typedef typename Limits<T>::Bits Bits;
  const Bits bits = (4 * Limits<T>::bias + 3) << (Limits<T>::digits - 1);
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// x = m · 2^e with 1 ≤ m < 2, for a normal number x > 0: returns m and adds e.
__device__ inline double split(double x, Index& exponent) {
  unsigned long long bits;
  memcpy(&bits, &x, sizeof bits);
  exponent += static_cast<Index>(bits >> 52) - 1023;
  bits = (bits & ((1ull << 52) - 1)) | (1023ull << 52);
  memcpy(&x, &bits, sizeof x);
  return x;
}

// A system of P rows in the registers of one thread: every loop over it is unrolled.
template <class T, int P>
struct System {
  static constexpr int p = P, lanes = 1, lane = 0;
  T A[P * (P + 1) / 2], scale[P], pivot[P], inverse[P], line[P], x[P];
  __device__ System(int, T*) {}
  __device__ static constexpr int at(int i, int k) { return i * (i + 1) / 2 + k; }
  __device__ void meet() const {}
  __device__ bool all(bool mine) const { return mine; }
  __device__ T most(T mine) const { return mine; }
};

// A system of any size in memory that a warp shares; a lane has rows lane, lane + 32, …
template <class T>
struct System<T, 0> {
  static constexpr int lanes = 32;
  const int p, pitch, lane;
  T *A, *scale, *pivot, *inverse, *line, *x;
  // Odd, so that 32 rows of a column lie in different banks.
  __device__ static constexpr int pitch_of(int p) { return p | 1; }
  __device__ System(int p_, T* memory) : p(p_), pitch(p_ | 1), lane(threadIdx.x % 32) {
    A = memory;
    scale = A + static_cast<Index>(p) * pitch;
    pivot = scale + p;
    inverse = pivot + p;
    line = inverse + p;
    x = line + p;
  }
  __device__ Index at(int i, int k) const { return static_cast<Index>(i) * pitch + k; }
  __device__ void meet() const { __syncwarp(); }
  __device__ bool all(bool mine) const { return __all_sync(0xffffffffu, mine); }
  __device__ T most(T mine) const {
    for (int step = 16; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(0xffffffffu, mine, step);
      mine = other > mine ? other : mine;
    }
    return mine;
  }
};

// What is done with a system, as `kernels/batch.hpp` says it: S A S with powers of two, L D Lᵀ,
// rcond from a column of ±1, answers scaled back. `own` is what this lane has seen of trouble.
template <class T, int P>
struct Solver : System<T, P> {
  using Base = System<T, P>;
  using Base::A;
  using Base::at;
  using Base::inverse;
  using Base::lane;
  using Base::lanes;
  using Base::line;
  using Base::meet;
  using Base::p;
  using Base::pivot;
  using Base::scale;
  using Base::x;
  T norm;
  bool positive = true, whole = true;

  __device__ Solver(int params, T* memory) : Base(params, memory) {}

  // A ← S (F + diag(damping)) S and its norm.
  __device__ void equilibrate(const T* F, Index row, Index col, const T* damping, Index step) {
#pragma unroll
    for (int i = 0; i < p; ++i)
#pragma unroll
      for (int k = lane; k <= i; k += lanes) A[at(i, k)] = F[i * row + k * col];
    meet();
#pragma unroll
    for (int i = lane; i < p; i += lanes) {
      const T d = A[at(i, i)] + damping[i * step];
      A[at(i, i)] = d;
      scale[i] = inverse_root_power(d);
    }
    meet();
#pragma unroll
    for (int i = lane; i < p; i += lanes)
#pragma unroll
      for (int k = 0; k <= i; ++k) A[at(i, k)] = A[at(i, k)] * scale[i] * scale[k];
    meet();
    T most = T(0);
#pragma unroll
    for (int j = lane; j < p; j += lanes) {
      T sum = T(0);
#pragma unroll
      for (int k = 0; k <= j; ++k) sum += fabs(A[at(j, k)]);
#pragma unroll
      for (int i = j + 1; i < p; ++i) sum += fabs(A[at(i, j)]);
      most = sum > most ? sum : most;
    }
    norm = this->most(most);
  }

  // A = L D Lᵀ, column by column from the left: W = L D first; row j is divided by D before column j
  // needs it. A pivot D_jj ≤ p·ε·(S A S)_jj is rounding.
  __device__ void factor() {
    const T tolerance = static_cast<T>(p) * Limits<T>::epsilon();
#pragma unroll
    for (int j = 0; j < p; ++j) {
#pragma unroll
      for (int k = lane; k < j; k += lanes) line[k] = A[at(j, k)] * inverse[k];
      meet();
#pragma unroll
      for (int i = j + lane; i < p; i += lanes) {
        T w = A[at(i, j)];
        const T limit = w * tolerance;
#pragma unroll
        for (int k = 0; k < j; ++k) w -= A[at(i, k)] * line[k];
        A[at(i, j)] = w;
        if (i == j) {
          positive = positive && w > limit;
          whole = whole && finite(w);
          pivot[j] = w;
          inverse[j] = T(1) / w;
        }
      }
      meet();
#pragma unroll
      for (int k = lane; k < j; k += lanes) A[at(j, k)] = line[k];
    }
    meet();
    positive = this->all(positive);
    whole = this->all(whole);
  }

  // x ← L⁻ᵀ D⁻¹ L⁻¹ x. With Estimate x is zero, and e_j = ±1 is added as row j comes into play.
  template <bool Estimate>
  __device__ void solve() {
    meet();
#pragma unroll
    for (int k = 0; k < p; ++k) {
      T y = x[k];
      if (Estimate) y = y < T(0) ? y - T(1) : y + T(1);
#pragma unroll
      for (int i = k + 1 + lane; i < p; i += lanes) x[i] -= A[at(i, k)] * y;
      meet();
      if (Estimate && lane == 0) x[k] = y;
    }
    meet();
#pragma unroll
    for (int i = lane; i < p; i += lanes) x[i] *= inverse[i];
    meet();
#pragma unroll
    for (int k = p - 1; k >= 0; --k) {
      const T y = x[k];
#pragma unroll
      for (int i = lane; i < k; i += lanes) x[i] -= A[at(k, i)] * y;
      meet();
    }
  }

  // 1 / (‖S A S‖₁ ‖z‖_∞) with S A S z = e
  __device__ T rcond() {
#pragma unroll
    for (int i = lane; i < p; i += lanes) x[i] = T(0);
    solve<true>();
    T most = T(0);
#pragma unroll
    for (int i = lane; i < p; i += lanes) most = fabs(x[i]) > most ? fabs(x[i]) : most;
    return T(1) / (norm * this->most(most));
  }

  // out (p, k) ← A⁻¹ B
  __device__ void solve_columns(const T* rhs, Index row, Index col, int k, T* out) {
    for (int c = 0; c < k; ++c) {
      meet();
#pragma unroll
      for (int i = lane; i < p; i += lanes) x[i] = rhs[i * row + c * col] * scale[i];
      solve<false>();
#pragma unroll
      for (int i = lane; i < p; i += lanes) {
        const T value = x[i] * scale[i];
        whole = whole && finite(value);
        out[i * k + c] = value;
      }
    }
  }

  // L ← M = L⁻¹ (unit lower, the diagonal is not stored), row by row: M_ij = −Σ_{j≤k<i} L_ik M_kj
  __device__ void invert_factor() {
#pragma unroll
    for (int i = 1; i < p; ++i) {
#pragma unroll
      for (int k = lane; k < i; k += lanes) line[k] = A[at(i, k)];
      meet();
#pragma unroll
      for (int j = lane; j < i; j += lanes) {
        T m = -line[j];
#pragma unroll
        for (int k = j + 1; k < i; ++k) m -= line[k] * A[at(k, j)];
        A[at(i, j)] = m;
      }
      meet();
    }
  }

  // out (p, p) ← A⁻¹ = S Mᵀ D⁻¹ M S, both triangles
  __device__ void inverse_matrix(T* out) {
#pragma unroll
    for (int i = 0; i < p; ++i)
#pragma unroll
      for (int j = lane; j <= i; j += lanes) {
        T sum = i == j ? inverse[i] : inverse[i] * A[at(i, j)];
#pragma unroll
        for (int k = i + 1; k < p; ++k) sum += A[at(k, i)] * inverse[k] * A[at(k, j)];
        sum = sum * scale[i] * scale[j];
        whole = whole && finite(sum);
        out[i * p + j] = sum;
        out[j * p + i] = sum;
      }
  }

  // out (p,) ← diag(A⁻¹): S_i² Σ_{k≥i} M_ki² / D_k
  __device__ void inverse_diagonal(T* out) {
#pragma unroll
    for (int i = lane; i < p; i += lanes) {
      T sum = inverse[i];
#pragma unroll
      for (int k = i + 1; k < p; ++k) sum += A[at(k, i)] * A[at(k, i)] * inverse[k];
      sum = sum * scale[i] * scale[i];
      whole = whole && finite(sum);
      out[i] = sum;
    }
  }

  // log det A = Σ log D_jj − 2 Σ log S_jj, in double: mantissas are multiplied, exponents added.
  __device__ T log_determinant() const {
    double mantissa = 1.0;
    Index exponent = 0;
#pragma unroll
    for (int j = 0; j < p; ++j) {
      Index power = 0;
      split(static_cast<double>(scale[j]), power);
      exponent -= 2 * power;
      mantissa = split(mantissa * static_cast<double>(pivot[j]), exponent);
    }
    return static_cast<T>(log(mantissa) + static_cast<double>(exponent) * 0.693147180559945309417);
  }
};

// One matrix, or its right-hand sides: entry (i, j) at i · row + j · col; items are `item` apart.
template <class T>
struct Items {
  const T* at;
  Index item, row, col;
  __device__ Items of(Index b) const { return {at + b * item, item, row, col}; }
};

// One item: its answer (NaN where there is none), its status and its rcond. `copy` has the lower
// triangle of F, or is F; it may be where `out` is.
template <class T, int P, int J>
__device__ inline void run(Solver<T, P>& system, const Items<T>& F, const Items<T>& copy,
                           const T* damping, Index step, const Items<T>& rhs, int k, T* out,
                           signed char* status, T* rcond) {
  const int p = system.p, lane = system.lane, lanes = system.lanes;
  system.equilibrate(copy.at, copy.row, copy.col, damping, step);
  system.factor();
  const T estimate = system.rcond();
  Index size = static_cast<Index>(p) * k;
  if (J == kSolve) {
    system.solve_columns(rhs.at, rhs.row, rhs.col, k, out);
  } else if (J == kLogDeterminant) {
    size = 1;
    if (lane == 0) *out = system.log_determinant();
  } else {
    system.invert_factor();
    if (J == kInverse) {
      size = static_cast<Index>(p) * p;
      system.inverse_matrix(out);
    } else {
      size = p;
      system.inverse_diagonal(out);
    }
  }
  const bool factored = system.positive;
  const bool whole = system.all(system.whole);
  if (lane == 0) {
    *status = kSuccess;
    *rcond = estimate;
  }
  if (factored && whole) return;
  // Off the fast path: a good factor whose answer overflowed, or a bad matrix.
  bool input = true, pivots = factored;
  for (int i = lane; i < p; i += lanes) {
    for (int j = 0; j <= i; ++j) input = input && finite(F.at[i * F.row + j * F.col]);
    input = input && finite(damping[i * step]);
  }
#pragma unroll
  for (int i = lane; i < p; i += lanes) pivots = pivots && finite(system.pivot[i]);
  input = system.all(input);
  pivots = system.all(pivots);
  const T nan = not_a_number<T>();
  if (lane == 0) {
    *status = input && !pivots ? kNotPositiveDefinite : kNonFinite;
    *rcond = !input ? nan : pivots ? estimate : T(0);
  }
  system.meet();
  for (Index e = lane; e < size; e += lanes) out[e] = nan;
}

// For each b:  A = F_b + diag(damping_b), and of it what job J asks, as `kernels/batch.hpp` has it.
//
// F        (count, p, p)  only the lower triangles are read
// damping  (count, p)     items `next` apart, entries `step`
// rhs      (count, p, k)  Solve only
// out      (count, p, k), (count, p, p), (count, p) or (count,), contiguous
// status   (count,)       of each item; the answer of a failed one is NaN
// rcond    (count,)       estimate of 1/κ₁(S A S); 0 or NaN for a failed item
//
// No item looks at another, so its bits depend on nothing but itself. One matrix in the registers
// of each thread; a block copies its matrices to and its answers from shared memory, side by side,
// `pitch` (odd) numbers each, where the answers are `size` ≤ p² numbers; else they go out directly.
template <class T, int P, int J>
__global__ void __launch_bounds__(64)
    batch_thread(const T* __restrict__ F, Index item, Index row, Index col,
                 const T* __restrict__ damping, Index next, Index step, const T* __restrict__ rhs,
                 Index rhs_item, Index rhs_row, Index rhs_col, int k, Index count,
                 T* __restrict__ out, signed char* __restrict__ status, T* __restrict__ rcond) {
  constexpr int pitch = P * P | 1;
  DYNAMIC_SHARED(T, stage);
  const Index first = static_cast<Index>(blockIdx.x) * blockDim.x;
  const int here = count - first < blockDim.x ? static_cast<int>(count - first) : blockDim.x;
  for (int e = threadIdx.x; e < here * P * P; e += blockDim.x) {
    const int b = e / (P * P), i = e / P % P, j = e % P;
    if (j <= i) stage[b * pitch + e % (P * P)] = F[(first + b) * item + i * row + j * col];
  }
  __syncthreads();
  const int size = J == kSolve ? P * k : J == kInverse ? P * P : J == kInverseDiagonal ? P : 1;
  const bool staged = size <= P * P;
  T* const mine = stage + threadIdx.x * pitch;
  const Index b = first + threadIdx.x;
  if (threadIdx.x < here) {
    Solver<T, P> system(P, nullptr);
    const Items<T> whole = {F, item, row, col}, copy = {mine, 0, P, 1};
    const Items<T> right = {rhs, rhs_item, rhs_row, rhs_col};
    run<T, P, J>(system, whole.of(b), copy, damping + b * next, step, right.of(b), k,
                 staged ? mine : out + b * size, status + b, rcond + b);
  }
  if (!staged) return;
  __syncthreads();
  for (int e = threadIdx.x; e < here * size; e += blockDim.x)
    out[first * size + e] = stage[e / size * pitch + e % size];
}

// The same with one matrix in each warp, in shared memory or, without room there, in `workspace`
// (as many parts of `numbers` as there are warps). Warps take items in turn.
template <class T, int J>
__global__ void __launch_bounds__(256)
    batch_warp(const T* __restrict__ F, Index item, Index row, Index col,
               const T* __restrict__ damping, Index next, Index step, const T* __restrict__ rhs,
               Index rhs_item, Index rhs_row, Index rhs_col, int p, int k, Index count,
               T* __restrict__ out, signed char* __restrict__ status, T* __restrict__ rcond,
               Index numbers, T* __restrict__ workspace) {
  DYNAMIC_SHARED(T, shared);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const Index number = static_cast<Index>(blockIdx.x) * warps + warp;
  T* const memory = workspace ? workspace + number * numbers : shared + warp * numbers;
  const Index n = p;
  const Index size = J == kSolve ? n * k : J == kInverse ? n * n : J == kInverseDiagonal ? n : 1;
  const Items<T> whole = {F, item, row, col}, right = {rhs, rhs_item, rhs_row, rhs_col};
  for (Index b = number; b < count; b += static_cast<Index>(gridDim.x) * warps) {
    Solver<T, 0> system(p, memory);
    run<T, 0, J>(system, whole.of(b), whole.of(b), damping + b * next, step, right.of(b), k,
                 out + b * size, status + b, rcond + b);
    system.meet();
  }
}
