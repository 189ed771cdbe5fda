// Vec<T>: one SIMD register of float or double; the only file that names vector types.
#pragma once

#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "types.hpp"

#if defined(__F16C__) || defined(__AVX512F__) || defined(__FMA__)
#include <immintrin.h>
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#define FASTFISHER_INLINE __forceinline
#define FASTFISHER_UNROLL
#define FASTFISHER_RESTRICT __restrict
#else
#define FASTFISHER_INLINE inline __attribute__((always_inline))
#define FASTFISHER_RESTRICT __restrict__
#if defined(__clang__)
#define FASTFISHER_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FASTFISHER_UNROLL _Pragma("GCC unroll 64")
#endif
#endif

namespace fastfisher {

// Register width and count of the instruction set that this module is compiled for.
#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kVectorRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kVectorRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kVectorRegisters = 16;
#endif

// What the level knows of bfloat16: matrix tiles, dot products of vectors, or nothing.
#if defined(__AMX_BF16__)
#define FASTFISHER_TILES 1
constexpr bool kHasTiles = true, kHasDots = false;
#elif defined(__AVX512BF16__)
#define FASTFISHER_DOTS 1
constexpr bool kHasTiles = false, kHasDots = true;
#else
constexpr bool kHasTiles = false, kHasDots = false;
#endif

template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

#if defined(__GNUC__) || defined(__clang__)

// N half-precision numbers as float, exactly; by the instruction for it where there is one.
template <int N>
using Floats [[gnu::vector_size(N * sizeof(float))]] = float;
template <int N>
using Words [[gnu::vector_size(N * sizeof(std::uint32_t))]] = std::uint32_t;

template <int N>
FASTFISHER_INLINE Words<N> load_halves(const std::uint16_t* p) {
  typedef std::uint16_t Source
      __attribute__((vector_size(N * sizeof(std::uint16_t)), aligned(2), may_alias));
  return __builtin_convertvector(*reinterpret_cast<const Source*>(p), Words<N>);
}

template <int N>
FASTFISHER_INLINE Floats<N> widen(const BFloat16* p) {
  return (Floats<N>)(load_halves<N>(&p->bits) << 16);
}

template <int N>
FASTFISHER_INLINE Floats<N> widen(const Float16* p) {
#if defined(__AVX512F__)
  if constexpr (N == 16)
    return (Floats<N>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#endif
#if defined(__F16C__)
  if constexpr (N == 8)
    return (Floats<N>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#endif
  const Words<N> half = load_halves<N>(&p->bits), moved = (half & 0x7fff) << 13;
  const Words<N> special = (Words<N>)(moved >= 0x0f800000u);
  const Words<N> value = (Words<N>)((Floats<N>)moved * 0x1p112f);
  return (Floats<N>)((special & (moved | 0x7f800000u)) | (~special & value) |
                     ((half & 0x8000) << 16));
}

// GCC and Clang: their vector extension, which is AVX-512, AVX2, SSE2 or NEON by the target flags.
// a*b + c becomes one fused instruction through -ffp-contract=fast.
template <class T, int N = kLanes<T>>
struct Vec {
  typedef T Native __attribute__((vector_size(N * sizeof(T))));
  typedef T Unaligned __attribute__((vector_size(N * sizeof(T)), aligned(alignof(T)), may_alias));
  Native v;

  static FASTFISHER_INLINE Vec zero() { return {Native{}}; }
  static FASTFISHER_INLINE Vec broadcast(T x) { return {x - Native{}}; }  // x - 0 keeps -0 and NaN
  static FASTFISHER_INLINE Vec load(const T* p) { return {*reinterpret_cast<const Unaligned*>(p)}; }
  // Widening load: N values of another type, converted.
  template <class S>
  static FASTFISHER_INLINE Vec load(const S* p) {
    if constexpr (kIsHalf<S>) {
      return {__builtin_convertvector(widen<N>(p), Native)};
    } else {
      typedef S Source __attribute__((vector_size(N * sizeof(S)), aligned(alignof(S)), may_alias));
      return {__builtin_convertvector(*reinterpret_cast<const Source*>(p), Native)};
    }
  }
  FASTFISHER_INLINE void store(T* p) const { *reinterpret_cast<Unaligned*>(p) = v; }
  friend FASTFISHER_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
  friend FASTFISHER_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
  friend FASTFISHER_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
  friend FASTFISHER_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
  friend FASTFISHER_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }
};

// a, loaded once: what is used twice is not read from memory in both places.
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> in_register(Vec<T, N> a) {
#if defined(__x86_64__)
  __asm__("" : "+x"(a.v));
#endif
  return a;
}

template <class T, int N>
FASTFISHER_INLINE Vec<T, N> abs(Vec<T, N> a) {
  return {a.v < 0 ? -a.v : a.v};
}

// The smaller and the larger, lane by lane; b where one is NaN.
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> smaller(Vec<T, N> a, Vec<T, N> b) {
  return {a.v < b.v ? a.v : b.v};
}
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> larger(Vec<T, N> a, Vec<T, N> b) {
  return {a.v > b.v ? a.v : b.v};
}

// a + 1 where a ≥ 0, a - 1 elsewhere.
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> one_further(Vec<T, N> a) {
  return {a.v < 0 ? a.v - 1 : a.v + 1};
}

// The power of two r that brings r²·|a| into [1, 4); for subnormal numbers and zero what would do
// for the least exponent, for infinity and NaN what would do for the largest.
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> inverse_root_power(Vec<T, N> a) {
  typedef std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned> Lane;
  typedef Lane Bits __attribute__((vector_size(N * sizeof(T))));
  constexpr int digits = sizeof(T) == 8 ? 52 : 23;
  constexpr Lane bias = sizeof(T) == 8 ? 1023 : 127;
  const Bits exponent = ((Bits)a.v >> digits) & (2 * bias + 1);
  return {(typename Vec<T, N>::Native)((bias + (bias + 1) / 2 - ((exponent + 1) >> 1)) << digits)};
}

// One step of `transpose`: lanes of a and b whose index has the bit `Step` change places.
template <int Step, class T, int N, int... I>
FASTFISHER_INLINE void exchange(Vec<T, N>& a, Vec<T, N>& b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  const Vec<T, N> low{__builtin_shufflevector(a.v, b.v, (I & Step ? I - Step + N : I)...)};
  const Vec<T, N> high{__builtin_shufflevector(a.v, b.v, (I & Step ? I + N : I + Step)...)};
#else
  typedef std::conditional_t<sizeof(T) == 8, long long, int> Lane;
  typedef Lane Order __attribute__((vector_size(N * sizeof(T))));
  const Vec<T, N> low{__builtin_shuffle(a.v, b.v, Order{(I & Step ? I - Step + N : I)...})};
  const Vec<T, N> high{__builtin_shuffle(a.v, b.v, Order{(I & Step ? I + N : I + Step)...})};
#endif
  a = low;
  b = high;
}

// a[i][j] becomes a[j][i]: N registers of N lanes, in log2 N steps. With Group = 2 the entries are
// pairs of lanes, so N / 2 registers.
template <int Group = 1, int Step = Group, class T, int N>
FASTFISHER_INLINE void transpose(Vec<T, N> (&a)[N / Group]) {
  if constexpr (Step < N) {
    constexpr int apart = Step / Group;
    FASTFISHER_UNROLL
    for (int i = 0; i < N / Group; ++i)
      if (!(i & apart)) exchange<Step>(a[i], a[i + apart], std::make_integer_sequence<int, N>());
    transpose<Group, 2 * Step>(a);
  }
}

// Lanes 2j and 2j + 1 change places.
template <class T, int N, int... I>
FASTFISHER_INLINE Vec<T, N> swapped(Vec<T, N> a, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return {__builtin_shufflevector(a.v, a.v, (I ^ 1)...)};
#else
  typedef std::conditional_t<sizeof(T) == 8, long long, int> Lane;
  typedef Lane Order __attribute__((vector_size(N * sizeof(T))));
  return {__builtin_shuffle(a.v, Order{(I ^ 1)...})};
#endif
}
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> swap_pairs(Vec<T, N> a) {
  return swapped(a, std::make_integer_sequence<int, N>());
}

// out[l] = a[l] below, b[l] above: two rows of bfloat16 become one of pairs.
template <int N>
FASTFISHER_INLINE void interleave(const BFloat16* a, const BFloat16* b, std::uint32_t* out) {
  typedef Words<N> Unaligned __attribute__((aligned(4), may_alias));
  *reinterpret_cast<Unaligned*>(out) = load_halves<N>(&a->bits) | load_halves<N>(&b->bits) << 16;
}

// to[j * 16 + k] = from[k * stride + j], 16 × 16 words.
FASTFISHER_INLINE void transpose_words(const std::uint32_t* from, Index stride, std::uint32_t* to) {
  Vec<float, 16> square[16];
  for (int k = 0; k < 16; ++k)
    square[k] = Vec<float, 16>::load(reinterpret_cast<const float*>(from + k * stride));
  transpose(square);
  for (int k = 0; k < 16; ++k) square[k].store(reinterpret_cast<float*>(to + k * 16));
}

#if defined(FASTFISHER_DOTS)
// c[l] + a's pair l · the pair b, in float.
FASTFISHER_INLINE Vec<float> dot_pairs(const std::uint32_t* a, std::uint32_t b, Vec<float> c) {
  const __m512bh left = (__m512bh)_mm512_loadu_si512(a);
  const __m512bh right = (__m512bh)_mm512_set1_epi32(static_cast<int>(b));
  return {(Vec<float>::Native)_mm512_dpbf16_ps((__m512)c.v, left, right)};
}
#endif

#if defined(FASTFISHER_TILES)
// Eight matrix tiles of 16 lines of 64 bytes; a thread turns them on for as long as it needs them.
FASTFISHER_INLINE void tiles_on() {
  struct {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t line_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t lines[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const shape;
  _tile_loadconfig(&shape);
}
FASTFISHER_INLINE void tiles_off() { _tile_release(); }
// In assembly, since GCC's intrinsics want a literal for the number of a tile.
template <int Tile>
FASTFISHER_INLINE void tile_load(const void* p, Index line_stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(p), "r"(line_stride), "i"(Tile)
                   : "memory");
}
template <int Tile>
FASTFISHER_INLINE void tile_store(void* p, Index line_stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(p), "r"(line_stride), "i"(Tile)
                   : "memory");
}
// C[m][n] += Σ_k A's pair [m][k] · B's pair [k][n].
template <int C, int A, int B>
FASTFISHER_INLINE void tile_dot() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
#endif

FASTFISHER_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
FASTFISHER_INLINE void prefetch_for_write(const void* p) { __builtin_prefetch(p, 1); }

#else

// Any other compiler: plain loops over N values, which its vectoriser may or may not use.
template <class T, int N = kLanes<T>>
struct Vec {
  T v[N];

  static Vec zero() { return broadcast(T(0)); }
  static Vec broadcast(T x) {
    Vec r;
    for (int i = 0; i < N; ++i) r.v[i] = x;
    return r;
  }
  template <class S>
  static Vec load(const S* p) {
    Vec r;
    for (int i = 0; i < N; ++i) r.v[i] = static_cast<T>(p[i]);
    return r;
  }
  void store(T* p) const { std::memcpy(p, v, sizeof v); }
  friend Vec operator+(Vec a, Vec b) {
    for (int i = 0; i < N; ++i) a.v[i] += b.v[i];
    return a;
  }
  friend Vec operator-(Vec a, Vec b) {
    for (int i = 0; i < N; ++i) a.v[i] -= b.v[i];
    return a;
  }
  friend Vec operator*(Vec a, Vec b) {
    for (int i = 0; i < N; ++i) a.v[i] *= b.v[i];
    return a;
  }
  friend Vec operator/(Vec a, Vec b) {
    for (int i = 0; i < N; ++i) a.v[i] /= b.v[i];
    return a;
  }
  friend Vec fma(Vec a, Vec b, Vec c) {
    for (int i = 0; i < N; ++i) c.v[i] += a.v[i] * b.v[i];
    return c;
  }
};

template <class T, int N>
Vec<T, N> in_register(Vec<T, N> a) {
  return a;
}

template <class T, int N>
Vec<T, N> abs(Vec<T, N> a) {
  for (int i = 0; i < N; ++i) a.v[i] = a.v[i] < 0 ? -a.v[i] : a.v[i];
  return a;
}

template <int Group = 1, class T, int N>
void transpose(Vec<T, N> (&a)[N / Group]) {
  for (int i = 0; i < N / Group; ++i)
    for (int j = 0; j < i; ++j)
      for (int g = 0; g < Group; ++g) std::swap(a[i].v[j * Group + g], a[j].v[i * Group + g]);
}

template <class T, int N>
Vec<T, N> swap_pairs(Vec<T, N> a) {
  for (int i = 0; i < N; i += 2) std::swap(a.v[i], a.v[i + 1]);
  return a;
}

template <class T, int N>
Vec<T, N> smaller(Vec<T, N> a, Vec<T, N> b) {
  for (int i = 0; i < N; ++i) b.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
  return b;
}
template <class T, int N>
Vec<T, N> larger(Vec<T, N> a, Vec<T, N> b) {
  for (int i = 0; i < N; ++i) b.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return b;
}

template <class T, int N>
Vec<T, N> one_further(Vec<T, N> a) {
  for (int i = 0; i < N; ++i) a.v[i] += a.v[i] < 0 ? T(-1) : T(1);
  return a;
}

template <class T, int N>
Vec<T, N> inverse_root_power(Vec<T, N> a) {
  typedef std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned> Lane;
  constexpr int digits = sizeof(T) == 8 ? 52 : 23;
  constexpr Lane bias = sizeof(T) == 8 ? 1023 : 127;
  for (int i = 0; i < N; ++i) {
    Lane bits;
    std::memcpy(&bits, &a.v[i], sizeof bits);
    const Lane exponent = (bits >> digits) & (2 * bias + 1);
    bits = (bias + (bias + 1) / 2 - ((exponent + 1) >> 1)) << digits;
    std::memcpy(&a.v[i], &bits, sizeof bits);
  }
  return a;
}

inline void prefetch(const void*) {}
inline void prefetch_for_write(const void*) {}

#endif

// a*b + c rounded once, whatever the flags: what error-free arithmetic stands on.
template <class T, int N>
FASTFISHER_INLINE Vec<T, N> fused(Vec<T, N> a, Vec<T, N> b, Vec<T, N> c) {
  T x[N], y[N], z[N];
  a.store(x);
  b.store(y);
  c.store(z);
  for (int i = 0; i < N; ++i) z[i] = std::fma(x[i], y[i], z[i]);
  return Vec<T, N>::load(z);
}
#if (defined(__GNUC__) || defined(__clang__)) && defined(__AVX512F__)
FASTFISHER_INLINE Vec<double, 8> fused(Vec<double, 8> a, Vec<double, 8> b, Vec<double, 8> c) {
  return {(Vec<double, 8>::Native)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)c.v)};
}
#elif (defined(__GNUC__) || defined(__clang__)) && defined(__FMA__)
FASTFISHER_INLINE Vec<double, 4> fused(Vec<double, 4> a, Vec<double, 4> b, Vec<double, 4> c) {
  return {(Vec<double, 4>::Native)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)c.v)};
}
#endif

// Sum of the lanes, in a fixed (tree) order: the upper half is added to the lower one, and so on.
// In registers: through memory it took as long as a line of 100 numbers.
template <int Step, class T, int N, int... I>
FASTFISHER_INLINE T folded(Vec<T, N> a, std::integer_sequence<int, I...> lanes) {
  if constexpr (Step == 0) {
    return a.v[0];
  } else {
#if defined(__clang__)
    const Vec<T, N> upper{__builtin_shufflevector(a.v, a.v, ((I + Step) % N)...)};
#elif defined(__GNUC__)
    typedef std::conditional_t<sizeof(T) == 8, long long, int> Lane;
    typedef Lane Order __attribute__((vector_size(N * sizeof(T))));
    const Vec<T, N> upper{__builtin_shuffle(a.v, Order{((I + Step) % N)...})};
#else
    Vec<T, N> upper = a;
    for (int i = 0; i < Step; ++i) upper.v[i] = a.v[i + Step];
#endif
    return folded<Step / 2>(a + upper, lanes);
  }
}
template <class T, int N>
FASTFISHER_INLINE T sum(Vec<T, N> a) {
  return folded<N / 2>(a, std::make_integer_sequence<int, N>());
}

}  // namespace fastfisher
