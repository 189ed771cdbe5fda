// Index and the role aliases: how kernels name the matrices and vectors they read and write.
#pragma once

#include <Eigen/Core>

namespace fastfisher {

using Index = Eigen::Index;

using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

// A read-only (rows, cols) view with any element strides, also zero or negative.
template <class T>
using ConstMatrix =
    Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
               Eigen::Unaligned, Strides>;

// A writable (rows, cols) view with any element strides.
template <class T>
using Matrix = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>,
                          Eigen::Unaligned, Strides>;

// Contiguous vectors. A kernel takes `const T*` where nullptr means "not given".
template <class T>
using ConstVector = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, 1>>;
template <class T>
using Vector = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>;

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace fastfisher
