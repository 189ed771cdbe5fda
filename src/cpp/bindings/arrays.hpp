// The door every binding uses: NumPy arrays become kernel views, a Report becomes a tuple.
#pragma once

#include <pybind11/complex.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "../kernels/report.hpp"
#include "../kernels/types.hpp"
#include "gil.hpp"

// float16 is NumPy's own; bfloat16, which NumPy does not know, comes in as its bits, uint16.
namespace pybind11::detail {
template <>
struct npy_format_descriptor<fastfisher::Float16> {
  static constexpr auto name = const_name("numpy.float16");
  static pybind11::dtype dtype() { return pybind11::dtype("float16"); }
};
template <>
struct npy_format_descriptor<fastfisher::BFloat16> {
  static constexpr auto name = const_name("numpy.uint16");
  static pybind11::dtype dtype() { return pybind11::dtype("uint16"); }
};
}  // namespace pybind11::detail

namespace fastfisher::bindings {

namespace py = pybind11;

// Bind every array argument with .noconvert(): then dtype and byte order match exactly or the call
// is a TypeError; nothing is copied. Rank, shape, alignment and writability are checked here.
template <class T>
using Array = py::array_t<T, 0>;

// An array that may be None.
template <class T>
using OptionalArray = std::optional<Array<T>>;

// Where the size of a dimension is free.
constexpr Index kAny = -1;

inline std::string size_text(Index size) { return size == kAny ? "any" : std::to_string(size); }

inline std::string shape_text(const py::array& a) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
  return text + (a.ndim() == 1 ? ",)" : ")");
}

[[noreturn]] inline void refuse(const char* name, const std::string& expected,
                                const std::string& got) {
  throw py::value_error(std::string(name) + ": expected " + expected + ", got " + got + ".");
}

// One dimension's stride in elements; `unit` where the dimension has at most one entry, so that its
// meaningless stride never hides a contiguous array.
template <class T>
Index element_stride(const Array<T>& a, int dimension, Index unit, const char* name) {
  if (a.shape(dimension) <= 1) return unit;
  const py::ssize_t bytes = a.strides(dimension);
  constexpr py::ssize_t size = sizeof(T);
  if (bytes % size != 0)
    refuse(name, "strides that are whole elements", std::to_string(bytes) + " bytes; pass a copy");
  return bytes / size;
}

template <class T>
void check_matrix(const Array<T>& a, Index rows, Index cols, const char* name) {
  if (a.ndim() != 2 || (rows != kAny && a.shape(0) != rows) || (cols != kAny && a.shape(1) != cols))
    refuse(name, "shape (" + size_text(rows) + ", " + size_text(cols) + ")", shape_text(a));
  if (reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
    refuse(name, "an aligned array", "a misaligned one; pass a copy");
}

template <class T>
void check_vector(const Array<T>& a, Index size, const char* name) {
  if (a.ndim() != 1 || (size != kAny && a.shape(0) != size))
    refuse(name, "shape (" + size_text(size) + ",)", shape_text(a));
  if (reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
    refuse(name, "an aligned array", "a misaligned one; pass a copy");
  if (element_stride(a, 0, 1, name) != 1)
    refuse(name, "a contiguous vector", "a strided one; pass a copy");
}

template <class T>
void check_writable(const Array<T>& a, const char* name) {
  if (!a.writeable()) refuse(name, "a writable array", "a read-only one");
}

template <class T>
Strides strides_of(const Array<T>& a, const char* name) {
  const Index inner = element_stride(a, 1, 1, name);
  return Strides(element_stride(a, 0, inner * static_cast<Index>(a.shape(1)), name), inner);
}

// (rows, cols) array with any element strides, also zero or negative.
template <class T>
ConstMatrix<T> read_matrix(const Array<T>& a, Index rows, Index cols, const char* name) {
  check_matrix(a, rows, cols, name);
  return ConstMatrix<T>(a.data(), a.shape(0), a.shape(1), strides_of(a, name));
}

template <class T>
ConstMatrix<T> read_matrix(const Array<T>& a, const char* name) {
  return read_matrix(a, kAny, kAny, name);
}

template <class T>
Matrix<T> write_matrix(Array<T>& a, Index rows, Index cols, const char* name) {
  check_matrix(a, rows, cols, name);
  check_writable(a, name);
  return Matrix<T>(a.mutable_data(), a.shape(0), a.shape(1), strides_of(a, name));
}

// Contiguous (size,) array.
template <class T>
const T* read_vector(const Array<T>& a, Index size, const char* name) {
  check_vector(a, size, name);
  return a.data();
}

template <class T>
const T* read_vector(const OptionalArray<T>& a, Index size, const char* name) {
  return a ? read_vector(*a, size, name) : nullptr;
}

template <class T>
T* write_vector(Array<T>& a, Index size, const char* name) {
  check_vector(a, size, name);
  check_writable(a, name);
  return a.mutable_data();
}

// The name of an array argument, which is never converted.
inline py::arg array(const char* name) {
  py::arg argument(name);
  argument.noconvert();
  return argument;
}

// A number of parameters; p² must fit in an Index with room to spare.
inline Index params_of(Index p) {
  if (p < 0 || p > (Index{1} << 30)) refuse("p", "a number from 0 to 2**30", std::to_string(p));
  return p;
}

// (status, row, col, value)
inline py::tuple report_tuple(const Report& report) {
  return py::make_tuple(static_cast<int>(report.status), report.row, report.col, report.value);
}

}  // namespace fastfisher::bindings
