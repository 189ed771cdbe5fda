// Doors of the panel triangle.
#include "../kernels/triangle.hpp"

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// An array that owns `memory`.
template <class T>
py::array array_of(Buffer<T>&& memory) {
  const Index size = memory.size();
  auto* owner = new Buffer<T>(std::move(memory));
  return Array<T>(size, owner->data(),
                  py::capsule(owner, [](void* p) { delete static_cast<Buffer<T>*>(p); }));
}

template <class T>
py::array triangle_zeros(Index params) {
  Buffer<T> memory(triangle_size<T>(params));
  memory.zero();
  return array_of(std::move(memory));
}

Index size_for(Index params, int itemsize) {
  if (itemsize != 4 && itemsize != 8) refuse("itemsize", "4 or 8", std::to_string(itemsize));
  params_of(params);
  return itemsize == 8 ? triangle_size<double>(params) : triangle_size<float>(params);
}

template <class T>
void register_triangle_of(py::module_& m) {
  m.def(
      "triangle_from_dense",
      [](const Array<T>& matrix, Array<T> triangle, int threads) {
        const auto M = read_matrix(matrix, "matrix");
        if (M.rows() != M.cols()) refuse("matrix", "a square matrix", shape_text(matrix));
        T* to = write_vector(triangle, triangle_size<T>(M.rows()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = triangle_from_dense(M, to, threads);
        }
        return report_tuple(report);
      },
      array("matrix"), array("triangle"), py::arg("threads"));
  m.def(
      "triangle_copy",
      [](const Array<T>& triangle, int threads) {
        const Index size = triangle.size();
        const T* from = read_vector(triangle, size, "triangle");
        Buffer<T> memory(size);
        {
          const WithoutGil unlocked;
          triangle_copy(from, size, memory.data(), threads);
        }
        return array_of(std::move(memory));
      },
      array("triangle"), py::arg("threads"));
  m.def(
      "triangle_to_dense",
      [](const Array<T>& triangle, double scale, Array<T> out, int threads) {
        auto to = write_matrix(out, kAny, kAny, "out");
        if (to.rows() != to.cols()) refuse("out", "a square matrix", shape_text(out));
        const T* from = read_vector(triangle, triangle_size<T>(to.rows()), "triangle");
        const WithoutGil unlocked;
        triangle_to_dense(from, scale, to, threads);
      },
      array("triangle"), py::arg("scale"), array("out"), py::arg("threads"));
  m.def(
      "triangle_diagonal",
      [](const Array<T>& triangle, Index params) {
        Array<T> out(params_of(params));
        triangle_diagonal(read_vector(triangle, triangle_size<T>(params_of(params)), "triangle"),
                          params, out.mutable_data());
        return out;
      },
      array("triangle"), py::arg("p"));
  m.def(
      "triangle_block",
      [](const Array<T>& triangle, Index params, Index start, double scale, Array<T> out) {
        auto to = write_matrix(out, kAny, kAny, "out");
        if (to.rows() != to.cols()) refuse("out", "a square matrix", shape_text(out));
        const T* from = read_vector(triangle, triangle_size<T>(params_of(params)), "triangle");
        if (start < 0 || start > params - to.rows())
          refuse("start", "a block inside the matrix", std::to_string(start));
        const WithoutGil unlocked;
        triangle_block(from, start, scale, to);
      },
      array("triangle"), py::arg("p"), py::arg("start"), py::arg("scale"), array("out"));
  m.def(
      "triangle_add_outer",
      [](Array<T> triangle, const Array<T>& x, double alpha, int threads) {
        const Index params = x.size();
        T* to = write_vector(triangle, triangle_size<T>(params_of(params)), "triangle");
        const T* from = read_vector(x, params, "x");
        const WithoutGil unlocked;
        triangle_add_outer(to, params, from, alpha, threads);
      },
      array("triangle"), array("x"), py::arg("alpha"), py::arg("threads"));
  m.def(
      "triangle_product",
      [](const Array<T>& triangle, const Array<T>& V, double scale, double damping, Array<T> out,
         int threads) {
        const auto right = read_matrix(V, "V");
        auto to = write_matrix(out, right.rows(), right.cols(), "out");
        const T* from = read_vector(triangle, triangle_size<T>(right.rows()), "triangle");
        const WithoutGil unlocked;
        triangle_product(from, right.rows(), right, scale, damping, to, threads);
      },
      array("triangle"), array("V"), py::arg("scale"), py::arg("damping"), array("out"),
      py::arg("threads"));
  m.def(
      "triangle_norm1",
      [](const Array<T>& triangle, Index params, int threads) {
        const T* from = read_vector(triangle, triangle_size<T>(params_of(params)), "triangle");
        const WithoutGil unlocked;
        return triangle_norm1(from, params, threads);
      },
      array("triangle"), py::arg("p"), py::arg("threads"));
}

}  // namespace

void register_triangle(py::module_& m) {
  m.def("triangle_size", &size_for, py::arg("p"), py::arg("itemsize"));
  m.def(
      "triangle_zeros",
      [](Index params, int itemsize) {
        size_for(params, itemsize);  // checks both
        return itemsize == 8 ? triangle_zeros<double>(params) : triangle_zeros<float>(params);
      },
      py::arg("p"), py::arg("itemsize"));
  m.def(
      "triangle_narrow",
      [](const Array<double>& triangle, Index params, double scale, Array<float> out, int threads) {
        const double* from =
            read_vector(triangle, triangle_size<double>(params_of(params)), "triangle");
        float* to = write_vector(out, triangle_size<float>(params), "out");
        const WithoutGil unlocked;
        triangle_narrow(from, params, scale, to, threads);
      },
      array("triangle"), py::arg("p"), py::arg("scale"), array("out"), py::arg("threads"));
  register_triangle_of<double>(m);
  register_triangle_of<float>(m);
}

}  // namespace fastfisher::bindings
