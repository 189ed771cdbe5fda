// Doors of Hermitian matrices held as panel triangles.
#include "../kernels/hermitian.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

template <class T>
void register_hermitian_of(py::module_& m) {
  using Complex = std::complex<T>;
  m.def(
      "hermitian_project",
      [](Array<T> triangle, Index params, bool conjugate, int threads) {
        T* in_place = write_vector(triangle, triangle_size<T>(2 * params_of(params)), "triangle");
        const WithoutGil unlocked;
        hermitian_project(in_place, params, conjugate, threads);
      },
      array("triangle"), py::arg("p"), py::arg("conjugate"), py::arg("threads"));
  m.def(
      "hermitian_from_dense",
      [](const Array<Complex>& matrix, Array<T> triangle, int threads) {
        const auto M = read_matrix(matrix, "matrix");
        if (M.rows() != M.cols()) refuse("matrix", "a square matrix", shape_text(matrix));
        T* to = write_vector(triangle, triangle_size<T>(2 * M.rows()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = hermitian_from_dense<T>(M, to, threads);
        }
        return report_tuple(report);
      },
      array("matrix"), array("triangle"), py::arg("threads"));
  m.def(
      "hermitian_to_dense",
      [](const Array<T>& triangle, double scale, Array<Complex> out, int threads) {
        auto to = write_matrix(out, kAny, kAny, "out");
        if (to.rows() != to.cols()) refuse("out", "a square matrix", shape_text(out));
        const T* from = read_vector(triangle, triangle_size<T>(2 * to.rows()), "triangle");
        const WithoutGil unlocked;
        hermitian_to_dense<T>(from, scale, to, threads);
      },
      array("triangle"), py::arg("scale"), array("out"), py::arg("threads"));
}

}  // namespace

void register_hermitian(py::module_& m) {
  register_hermitian_of<double>(m);
  register_hermitian_of<float>(m);
}

}  // namespace fastfisher::bindings
