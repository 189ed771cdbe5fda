// Doors of the product engine: accumulate, accumulate_fast, gram, product.
#include "../kernels/fisher.hpp"

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// S: type of the scores, T: type of everything else; of complex scores the mean and the triangle
// have two real numbers for each.
template <class T, class S>
void register_scores(py::module_& m) {
  m.def(
      "accumulate",
      [](const Array<S>& scores, const OptionalArray<T>& weights, const OptionalArray<T>& mean,
         Array<T> triangle, bool fresh, bool check_finite, int threads) {
        const auto X = read_matrix(scores, "scores");
        const T* w = read_vector(weights, X.rows(), "weights");
        const T* m = read_vector(mean, kParts<S> * X.cols(), "mean");
        T* to = write_vector(triangle, triangle_size<T>(kParts<S> * X.cols()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = accumulate<T, S>(X, w, m, to, fresh, check_finite, threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), array("triangle"), py::arg("fresh"),
      py::arg("check_finite"), py::arg("threads"));
  m.def(
      "accumulate_centred",
      [](const Array<S>& scores, const OptionalArray<T>& weights, Array<T> mean, Array<T> triangle,
         bool fresh, bool check_finite, int threads) {
        const auto X = read_matrix(scores, "scores");
        const T* w = read_vector(weights, X.rows(), "weights");
        T* m = write_vector(mean, kParts<S> * X.cols(), "mean");
        T* to = write_vector(triangle, triangle_size<T>(kParts<S> * X.cols()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = accumulate_centred<T, S>(X, w, m, to, fresh, check_finite, threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), array("triangle"), py::arg("fresh"),
      py::arg("check_finite"), py::arg("threads"));
  m.def(
      "gram",
      [](const Array<S>& scores, const OptionalArray<T>& weights, const OptionalArray<T>& mean,
         Array<T> triangle, bool check_finite, int threads) {
        const auto X = read_matrix(scores, "scores");
        const T* w = read_vector(weights, X.rows(), "weights");
        const T* m = read_vector(mean, kParts<S> * X.cols(), "mean");
        T* to = write_vector(triangle, triangle_size<T>(kParts<S> * X.rows()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = gram<T, S>(X, w, m, to, check_finite, threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), array("triangle"), py::arg("check_finite"),
      py::arg("threads"));
}

// Real scores only.
template <class T, class S>
void register_fast(py::module_& m) {
  m.def(
      "accumulate_fast",
      [](const Array<S>& scores, const OptionalArray<T>& weights, const OptionalArray<T>& mean,
         Array<T> triangle, Index least, bool check_finite, int threads) {
        const auto X = read_matrix(scores, "scores");
        const T* w = read_vector(weights, X.rows(), "weights");
        const T* m = read_vector(mean, X.cols(), "mean");
        T* to = write_vector(triangle, triangle_size<T>(X.cols()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = accumulate_fast<T, S>(X, w, m, to, least, check_finite, threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), array("triangle"), py::arg("least"),
      py::arg("check_finite"), py::arg("threads"));
}

template <class T>
void register_product(py::module_& m) {
  m.def(
      "product",
      [](const Array<T>& X, const Array<T>& Y, Array<T> out, int threads) {
        const auto left = read_matrix(X, "X"), right = read_matrix(Y, left.rows(), kAny, "Y");
        auto to = write_matrix(out, left.cols(), right.cols(), "out");
        const WithoutGil unlocked;
        product(left, right, to, threads);
      },
      array("X"), array("Y"), array("out"), py::arg("threads"));
}

}  // namespace

void register_fisher(py::module_& m) {
#define FASTFISHER_REGISTER(S, T) register_scores<T, S>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_REGISTER)
  FASTFISHER_FOR_COMPLEX(FASTFISHER_REGISTER)
#undef FASTFISHER_REGISTER
#define FASTFISHER_REGISTER(S, T) register_fast<T, S>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_REGISTER)
#undef FASTFISHER_REGISTER
  register_product<double>(m);
  register_product<float>(m);
}

}  // namespace fastfisher::bindings
