// Index, the half-precision types and the role aliases: how kernels name what they read and write.
#pragma once

#include <Eigen/Core>
#include <complex>
#include <cstdint>
#include <cstring>
#include <type_traits>

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

// The view of rows × cols elements of X from (row, col) on: X[row : row + rows, col : col + cols].
template <class View>
View part_of(View X, Index row, Index col, Index rows, Index cols) {
  return View(X.data() + row * X.rowStride() + col * X.colStride(), rows, cols,
              Strides(X.rowStride(), X.colStride()));
}

// Contiguous vectors. A kernel takes `const T*` where nullptr means "not given".
template <class T>
using ConstVector = Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, 1>>;
template <class T>
using Vector = Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>;

// IEEE binary16: its exponent and fraction, moved into a float's place, are the number times 2⁻¹¹²,
// also where it is subnormal.
struct Float16 {
  std::uint16_t bits;

  template <class T, class = std::enable_if_t<std::is_floating_point_v<T>>>
  explicit operator T() const {
    const std::uint32_t moved = static_cast<std::uint32_t>(bits & 0x7fff) << 13;
    const std::uint32_t special = moved | 0x7f800000u;  // infinity, NaN
    float value;
    std::memcpy(&value, moved >= 0x0f800000u ? &special : &moved, sizeof value);
    if (moved < 0x0f800000u) value *= 0x1p112f;
    return static_cast<T>(bits & 0x8000 ? -value : value);
  }
};

// bfloat16: the upper half of a float.
struct BFloat16 {
  std::uint16_t bits;

  template <class T, class = std::enable_if_t<std::is_floating_point_v<T>>>
  explicit operator T() const {
    const std::uint32_t whole = static_cast<std::uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &whole, sizeof value);
    return static_cast<T>(value);
  }
};

template <class S>
constexpr bool kIsHalf = std::is_same_v<S, Float16> || std::is_same_v<S, BFloat16>;

// The arithmetic type nearest to a stored one.
template <class S>
using Real = std::conditional_t<kIsHalf<S>, float, S>;

// Every pair (type that scores are stored in, type that they are computed in) that kernels on
// scores are instantiated for.
#define FASTFISHER_FOR_STORED(INSTANTIATE) \
  INSTANTIATE(double, double)              \
  INSTANTIATE(float, float)                \
  INSTANTIATE(float, double)               \
  INSTANTIATE(Float16, float)              \
  INSTANTIATE(Float16, double)             \
  INSTANTIATE(BFloat16, float)             \
  INSTANTIATE(BFloat16, double)

// The same for complex scores, which are computed in their real form.
#define FASTFISHER_FOR_COMPLEX(INSTANTIATE) \
  INSTANTIATE(std::complex<double>, double) \
  INSTANTIATE(std::complex<float>, float)   \
  INSTANTIATE(std::complex<float>, double)

constexpr Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }

}  // namespace fastfisher
