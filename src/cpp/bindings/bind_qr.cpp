// Doors of QR: rows of scores, of another R or of a diagonal are absorbed into R.
#include "../kernels/qr.hpp"

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// S: type of the scores, T: type of everything else.
template <class T, class S>
void register_scores_qr(py::module_& m) {
  m.def(
      "qr_scores",
      [](const Array<S>& scores, const OptionalArray<T>& weights, const OptionalArray<T>& mean,
         bool with_root, Array<T> triangle, bool check_finite, int threads) {
        const auto X = read_matrix(scores, "scores");
        const T* w = read_vector(weights, X.rows(), "weights");
        const T* m = read_vector(mean, kParts<S> * X.cols(), "mean");
        T* to =
            write_vector(triangle, triangle_size<T>(kParts<S> * X.cols() + with_root), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = qr_scores<T, S>(X, w, m, with_root, to, check_finite, threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), py::arg("with_root"), array("triangle"),
      py::arg("check_finite"), py::arg("threads"));
}

template <class T>
void register_qr_of(py::module_& m) {
  m.def(
      "qr_merge",
      [](const Array<T>& other, Array<T> triangle, Index params, int threads) {
        const Index size = triangle_size<T>(params_of(params));
        const T* from = read_vector(other, size, "other");
        T* to = write_vector(triangle, size, "triangle");
        const WithoutGil unlocked;
        qr_merge(from, params, to, threads);
      },
      array("other"), array("triangle"), py::arg("p"), py::arg("threads"));
  m.def(
      "qr_diagonal",
      [](const Array<T>& diagonal, Array<T> triangle, int threads) {
        const Index params = params_of(diagonal.size());
        const T* from = read_vector(diagonal, params, "diagonal");
        T* to = write_vector(triangle, triangle_size<T>(params), "triangle");
        const WithoutGil unlocked;
        qr_diagonal(from, params, to, threads);
      },
      array("diagonal"), array("triangle"), py::arg("threads"));
  m.def(
      "qr_split",
      [](Array<T> triangle, Array<T> z) {
        const Index params = params_of(z.size());
        T* from = write_vector(triangle, triangle_size<T>(params), "triangle");
        qr_split(from, params, write_vector(z, params, "z"));
      },
      array("triangle"), array("z"));
  m.def(
      "qr_square",
      [](const Array<T>& triangle, Index params, Array<T> out, int threads) {
        const Index size = triangle_size<T>(params_of(params));
        const T* from = read_vector(triangle, size, "triangle");
        T* to = write_vector(out, size, "out");
        const WithoutGil unlocked;
        qr_square(from, params, to, threads);
      },
      array("triangle"), py::arg("p"), array("out"), py::arg("threads"));
  m.def(
      "qr_squares",
      [](const Array<T>& triangle, Array<T> out) {
        const Index params = params_of(out.size());
        const T* from = read_vector(triangle, triangle_size<T>(params), "triangle");
        qr_squares(from, params, write_vector(out, params, "out"));
      },
      array("triangle"), array("out"));
}

}  // namespace

void register_qr(py::module_& m) {
#define FASTFISHER_REGISTER(S, T) register_scores_qr<T, S>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_REGISTER)
  FASTFISHER_FOR_COMPLEX(FASTFISHER_REGISTER)
#undef FASTFISHER_REGISTER
  register_qr_of<double>(m);
  register_qr_of<float>(m);
}

}  // namespace fastfisher::bindings
