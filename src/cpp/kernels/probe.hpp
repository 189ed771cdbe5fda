// The roofs of this machine: the most flops per second and the most bytes read per second.
#pragma once

#include "types.hpp"

namespace fastfisher {

// Flop/s of independent fused multiply-adds on registers alone, all threads together (0: the
// default), one multiplication and one addition counted per lane. T is float or double. Takes about
// 50 ms; run it a few times and keep the largest. Without FMA instructions: of separate ones.
template <class T>
double fma_peak(int threads);

// byte/s read from a buffer of `bytes`, which should be several times the last cache; all threads
// together (0: the default), each its own part. Takes memory of that size: std::bad_alloc.
double read_bandwidth(Index bytes, int threads);

}  // namespace fastfisher
