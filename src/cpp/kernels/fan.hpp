// Several right-hand sides in one pass: they lie across the lanes, and scores are broadcast to
// them.
#pragma once

#include "types.hpp"

namespace fastfisher {

// The functions of stream.hpp for two and more right-hand sides; same meaning, shapes and promises.
// A block of rows stays in cache from the first product to the second, so the scores are read once
// for every register full of right-hand sides (8 float64, 16 float32 with AVX-512).

template <class S, class A>
void fan_fvp(const ConstMatrix<S>& scores, const A* weights, const A* mean, const ConstMatrix<A>& V,
             double scale, double damping, Matrix<A>& out, int threads);

template <class S, class A>
void fan_dot(const ConstMatrix<S>& scores, const A* mean, const ConstMatrix<A>& V, Matrix<A>& out,
             int threads);

template <class S, class A>
void fan_transpose_dot(const ConstMatrix<S>& scores, const A* weights, const A* mean,
                       const ConstMatrix<A>& Y, Matrix<A>& out, int threads);

}  // namespace fastfisher
