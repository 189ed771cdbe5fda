// Doors of the one-pass kernels: column_mean, diagonal, fvp, scores_dot, scores_transpose_dot.
#include "../kernels/stream.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

template <class S, class A>
py::tuple column_mean(const Array<S>& scores, const OptionalArray<A>& weights, Array<A> out,
                      bool check_finite, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  A* o = write_vector(out, G.cols(), "out");
  Report report;
  {
    const WithoutGil unlocked;
    report = fastfisher::column_mean<S, A>(G, w, o, check_finite, threads);
  }
  return report_tuple(report);
}

template <class S, class A>
py::tuple diagonal(const Array<S>& scores, const OptionalArray<A>& weights,
                   const OptionalArray<A>& mean, Array<A> out, bool check_finite, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  const A* m = read_vector(mean, G.cols(), "mean");
  A* o = write_vector(out, G.cols(), "out");
  Report report;
  {
    const WithoutGil unlocked;
    report = fastfisher::diagonal<S, A>(G, w, m, o, check_finite, threads);
  }
  return report_tuple(report);
}

template <class S, class A>
void fvp(const Array<S>& scores, const OptionalArray<A>& weights, const OptionalArray<A>& mean,
         const Array<A>& V, double scale, double damping, Array<A> out, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  const A* m = read_vector(mean, G.cols(), "mean");
  const auto v = read_matrix(V, G.cols(), kAny, "V");
  const auto o = write_matrix(out, G.cols(), v.cols(), "out");
  const WithoutGil unlocked;
  fastfisher::fvp<S, A>(G, w, m, v, scale, damping, o, threads);
}

template <class S, class A>
void scores_dot(const Array<S>& scores, const OptionalArray<A>& mean, const Array<A>& V,
                Array<A> out, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* m = read_vector(mean, G.cols(), "mean");
  const auto v = read_matrix(V, G.cols(), kAny, "V");
  const auto o = write_matrix(out, G.rows(), v.cols(), "out");
  const WithoutGil unlocked;
  fastfisher::scores_dot<S, A>(G, m, v, o, threads);
}

template <class S, class A>
void scores_transpose_dot(const Array<S>& scores, const OptionalArray<A>& weights,
                          const OptionalArray<A>& mean, const Array<A>& Y, Array<A> out,
                          int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  const A* m = read_vector(mean, G.cols(), "mean");
  const auto y = read_matrix(Y, G.rows(), kAny, "Y");
  const auto o = write_matrix(out, G.cols(), y.cols(), "out");
  const WithoutGil unlocked;
  fastfisher::scores_transpose_dot<S, A>(G, w, m, y, o, threads);
}

template <class S, class A>
void define(py::module_& m) {
  m.def("column_mean", &column_mean<S, A>, array("scores"), array("weights"), array("out"),
        py::arg("check_finite"), py::arg("threads"));
  m.def("diagonal", &diagonal<S, A>, array("scores"), array("weights"), array("mean"), array("out"),
        py::arg("check_finite"), py::arg("threads"));
  m.def("fvp", &fvp<S, A>, array("scores"), array("weights"), array("mean"), array("V"),
        py::arg("scale"), py::arg("damping"), array("out"), py::arg("threads"));
  m.def("scores_dot", &scores_dot<S, A>, array("scores"), array("mean"), array("V"), array("out"),
        py::arg("threads"));
  m.def("scores_transpose_dot", &scores_transpose_dot<S, A>, array("scores"), array("weights"),
        array("mean"), array("Y"), array("out"), py::arg("threads"));
}

}  // namespace

void register_stream(py::module_& m) {
#define FASTFISHER_DEFINE(S, A) define<S, A>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_DEFINE)
#undef FASTFISHER_DEFINE
}

}  // namespace fastfisher::bindings
