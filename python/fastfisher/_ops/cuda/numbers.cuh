// Numbers: scores of any width, read up to sixteen bytes at a time and widened to what is summed.
#pragma once

typedef long long Index;

// Bits of float16 and bfloat16: nothing here needs a header of the toolkit.
struct Half {
  unsigned short bits;
};
struct Bfloat {
  unsigned short bits;
};

__device__ inline double widen(double x) { return x; }
__device__ inline float widen(float x) { return x; }
#ifdef __CUDA_ARCH__
__device__ inline float widen(Half x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ inline float widen(Bfloat x) {
  return __uint_as_float(static_cast<unsigned>(x.bits) << 16);
}
#endif

template <class T>
__device__ inline bool finite(T x) {
  return x - x == T(0);
}

// V numbers that lie side by side, one load.
template <class S, int V>
struct Pack {
  S at[V];
};
template <int Bytes>
struct Word;
template <>
struct Word<16> {
  typedef uint4 type;
};
template <>
struct Word<8> {
  typedef uint2 type;
};
template <>
struct Word<4> {
  typedef unsigned type;
};
template <>
struct Word<2> {
  typedef unsigned short type;
};

template <class S, int V>
__device__ inline Pack<S, V> load(const S* from) {
  typedef typename Word<sizeof(S) * V>::type W;
  const W word = *reinterpret_cast<const W*>(from);
  Pack<S, V> pack;
  memcpy(&pack, &word, sizeof pack);
  return pack;
}

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(T, name)                                     \
  extern __shared__ __align__(16) unsigned char fastfisher_shared[]; \
  T* const name = reinterpret_cast<T*>(fastfisher_shared)
#endif
