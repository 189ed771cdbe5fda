// Doors of Cholesky and its factor.
#include "../kernels/cholesky.hpp"

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

template <class T>
void solve(const Array<T>& L, const Array<T>& B, Half half, Array<T>& out, int threads) {
  const auto right = read_matrix(B, "B");
  auto to = write_matrix(out, right.rows(), right.cols(), "out");
  const T* factor = read_vector(L, triangle_size<T>(right.rows()), "L");
  const WithoutGil unlocked;
  cholesky_solve(factor, right, half, to, threads);
}

template <class T>
void register_cholesky_of(py::module_& m) {
  m.def(
      "cholesky",
      [](Array<T> triangle, Index params, double scale, const OptionalArray<T>& shift,
         double tolerance, int threads) {
        T* in_place = write_vector(triangle, triangle_size<T>(params_of(params)), "triangle");
        const T* d = read_vector(shift, params, "shift");
        Report report;
        {
          const WithoutGil unlocked;
          report = cholesky(in_place, params, scale, d, tolerance, threads);
        }
        return report_tuple(report);
      },
      array("triangle"), py::arg("p"), py::arg("scale"), array("shift"), py::arg("tolerance"),
      py::arg("threads"));
  m.def(
      "cholesky_solve",
      [](const Array<T>& L, const Array<T>& B, Array<T> out, int threads) {
        solve(L, B, Half::Both, out, threads);
      },
      array("L"), array("B"), array("out"), py::arg("threads"));
  m.def(
      "cholesky_half_solve",
      [](const Array<T>& L, const Array<T>& B, bool transposed, Array<T> out, int threads) {
        solve(L, B, transposed ? Half::Upper : Half::Lower, out, threads);
      },
      array("L"), array("B"), py::arg("transposed"), array("out"), py::arg("threads"));
  m.def(
      "cholesky_logdet",
      [](const Array<T>& L, Index params) {
        return cholesky_logdet(read_vector(L, triangle_size<T>(params_of(params)), "L"), params);
      },
      array("L"), py::arg("p"));
  m.def(
      "cholesky_inverse",
      [](const Array<T>& L, Index params, Array<T> out, int threads) {
        const T* factor = read_vector(L, triangle_size<T>(params_of(params)), "L");
        T* to = write_vector(out, triangle_size<T>(params_of(params)), "out_triangle");
        const WithoutGil unlocked;
        cholesky_inverse(factor, params, to, threads);
      },
      array("L"), py::arg("p"), array("out_triangle"), py::arg("threads"));
  m.def(
      "cholesky_inverse_diagonal",
      [](const Array<T>& L, Array<T> out, int threads) {
        const Index params = out.size();
        const T* factor = read_vector(L, triangle_size<T>(params_of(params)), "L");
        T* to = write_vector(out, params, "out");
        const WithoutGil unlocked;
        cholesky_inverse_diagonal(factor, params, to, threads);
      },
      array("L"), array("out"), py::arg("threads"));
  m.def(
      "cholesky_rcond",
      [](const Array<T>& L, Index params, double norm1, int threads) {
        const T* factor = read_vector(L, triangle_size<T>(params_of(params)), "L");
        const WithoutGil unlocked;
        return cholesky_rcond(factor, params, norm1, threads);
      },
      array("L"), py::arg("p"), py::arg("norm1"), py::arg("threads"));
}

}  // namespace

void register_cholesky(py::module_& m) {
  register_cholesky_of<double>(m);
  register_cholesky_of<float>(m);
}

}  // namespace fastfisher::bindings
