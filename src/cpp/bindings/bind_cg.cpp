// Doors of conjugate gradients, plain and shifted: on scores, a panel triangle, a Python callable.
#include <chrono>
#include <vector>

#include "../kernels/shifted_cg.hpp"
#include "../kernels/triangle.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// (status (k,), iterations (k,), residual (k,))
py::tuple outcome_tuple(const std::vector<CgOutcome>& outcome) {
  const auto size = static_cast<py::ssize_t>(outcome.size());
  py::array_t<int> status(size);
  py::array_t<std::int64_t> iterations(size);
  py::array_t<double> residual(size);
  for (py::ssize_t j = 0; j < size; ++j) {
    const CgOutcome& o = outcome[static_cast<std::size_t>(j)];
    status.mutable_at(j) = static_cast<int>(o.status);
    iterations.mutable_at(j) = static_cast<std::int64_t>(o.iterations);
    residual.mutable_at(j) = o.residual;
  }
  return py::make_tuple(status, iterations, residual);
}

// Throws what a signal's Python handler raised, such as KeyboardInterrupt; needs the GIL.
void check_signals() {
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

// The same operator, without the GIL, that lets signal handlers run before a product if the last
// time is 0.1 s ago: iterations may take minutes, and nothing but `out` would be lost.
template <class T>
BlockOperator<T> interruptible(BlockOperator<T> apply) {
  using Clock = std::chrono::steady_clock;
  return [apply = std::move(apply), last = Clock::now()](ConstMatrix<T> V, Matrix<T> out) mutable {
    if (const auto now = Clock::now(); now - last > std::chrono::milliseconds(100)) {
      last = now;
      const WithGil locked;
      check_signals();
    }
    apply(V, out);
  };
}

// B, X0 and out, the same (params, k) for all.
template <class T>
struct System {
  ConstMatrix<T> B;
  std::optional<ConstMatrix<T>> start;
  Matrix<T> out;
  CgLimits limits;
  std::vector<CgOutcome> outcome;

  System(const Array<T>& b, const OptionalArray<T>& x0, Array<T>& x, Index params, CgLimits l)
      : B(read_matrix(b, params, kAny, "B")),
        out(write_matrix(x, B.rows(), B.cols(), "out")),
        limits(l),
        outcome(static_cast<std::size_t>(B.cols())) {
    if (x0) start.emplace(read_matrix(*x0, B.rows(), B.cols(), "X0"));
  }
  const ConstMatrix<T>* X0() const { return start ? &*start : nullptr; }
};

template <class S, class A>
py::tuple cg_scores(const Array<S>& scores, const OptionalArray<A>& weights,
                    const OptionalArray<A>& mean, double scale, const Array<A>& damping,
                    const Array<A>& B, const OptionalArray<A>& X0,
                    const OptionalArray<A>& preconditioner_diagonal, double rtol, double atol,
                    Index max_iterations, Array<A> out, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  const A* m = read_vector(mean, G.cols(), "mean");
  const A* d = read_vector(damping, G.cols(), "damping");
  const A* jacobi = read_vector(preconditioner_diagonal, G.cols(), "preconditioner_diagonal");
  System<A> system(B, X0, out, G.cols(), {rtol, atol, max_iterations});
  {
    const WithoutGil unlocked;
    conjugate_gradients<A>(interruptible<A>(scores_operator<S, A>(G, w, m, scale, d, threads)),
                           jacobi_operator(jacobi), system.B, system.X0(), system.limits,
                           system.out, system.outcome.data());
  }
  return outcome_tuple(system.outcome);
}

template <class T>
py::tuple cg_triangle(const Array<T>& triangle, double scale, const Array<T>& damping,
                      const Array<T>& B, const OptionalArray<T>& X0,
                      const OptionalArray<T>& preconditioner_diagonal, double rtol, double atol,
                      Index max_iterations, Array<T> out, int threads) {
  const T* d = read_vector(damping, kAny, "damping");
  const Index params = damping.shape(0);
  const T* t = read_vector(triangle, triangle_size<T>(params), "triangle");
  const T* jacobi = read_vector(preconditioner_diagonal, params, "preconditioner_diagonal");
  System<T> system(B, X0, out, params, {rtol, atol, max_iterations});
  {
    const WithoutGil unlocked;
    conjugate_gradients<T>(interruptible<T>(triangle_operator(t, params, scale, d, threads)),
                           jacobi_operator(jacobi), system.B, system.X0(), system.limits,
                           system.out, system.outcome.data());
  }
  return outcome_tuple(system.outcome);
}

// A Python function (p, m) → (p, m); it gets a fresh array and keeps the GIL.
template <class T>
BlockOperator<T> block_operator(const py::object& function, const char* name) {
  if (function.is_none()) return nullptr;
  return [function, name](ConstMatrix<T> V, Matrix<T> out) {
    check_signals();  // a function of another native library may never come by the interpreter
    Array<T> argument({V.rows(), V.cols()});
    write_matrix(argument, V.rows(), V.cols(), name) = V;
    py::array given;
    enter_or_rest([&] { given = py::array::ensure(function(argument)); });
    if (!given || std::string_view("fiub").find(given.dtype().kind()) == std::string_view::npos)
      refuse(name, "a function that returns an array of real numbers", "something else");
    Array<T> block;
    enter_or_rest([&] { block = py::array_t<T, py::array::forcecast>::ensure(given); });
    if (block.ndim() != 2 || block.shape(0) != V.rows() || block.shape(1) != V.cols())
      refuse(name, "a function that returns shape " + shape_text(argument), shape_text(block));
    out = read_matrix(block, name);
  };
}

template <class T>
py::tuple cg_callable(const py::function& apply, const py::object& precondition, const Array<T>& B,
                      const OptionalArray<T>& X0, double rtol, double atol, Index max_iterations,
                      Array<T> out) {
  System<T> system(B, X0, out, kAny, {rtol, atol, max_iterations});
  conjugate_gradients<T>(block_operator<T>(apply, "apply"),
                         block_operator<T>(precondition, "precondition"), system.B, system.X0(),
                         system.limits, system.out, system.outcome.data());
  return outcome_tuple(system.outcome);
}

// B (p, k), dampings (m,) and out (p, m·k), the columns of one damping side by side.
template <class T>
struct ShiftedSystem {
  ConstMatrix<T> B;
  Index count;
  const double* dampings;
  Matrix<T> out;
  CgLimits limits;
  std::vector<CgOutcome> outcome;

  ShiftedSystem(const Array<T>& b, const Array<double>& shifts, Array<T>& x, Index params,
                CgLimits l)
      : B(read_matrix(b, params, kAny, "B")),
        count(shifts.size()),
        dampings(read_vector(shifts, count, "dampings")),
        out(write_matrix(x, B.rows(), count * B.cols(), "out")),
        limits(l),
        outcome(static_cast<std::size_t>(count * B.cols())) {}

  void solve(const BlockOperator<T>& apply, int threads) {
    shifted_conjugate_gradients<T>(apply, dampings, count, B, limits, out, outcome.data(), threads);
  }
};

template <class S, class A>
py::tuple shifted_cg_scores(const Array<S>& scores, const OptionalArray<A>& weights,
                            const OptionalArray<A>& mean, double scale,
                            const Array<double>& dampings, const Array<A>& B, double rtol,
                            double atol, Index max_iterations, Array<A> out, int threads) {
  const auto G = read_matrix(scores, "scores");
  const A* w = read_vector(weights, G.rows(), "weights");
  const A* m = read_vector(mean, G.cols(), "mean");
  ShiftedSystem<A> system(B, dampings, out, G.cols(), {rtol, atol, max_iterations});
  {
    const WithoutGil unlocked;
    system.solve(interruptible<A>(scores_operator<S, A>(G, w, m, scale, nullptr, threads)),
                 threads);
  }
  return outcome_tuple(system.outcome);
}

template <class T>
py::tuple shifted_cg_triangle(const Array<T>& triangle, double scale, const Array<double>& dampings,
                              const Array<T>& B, double rtol, double atol, Index max_iterations,
                              Array<T> out, int threads) {
  ShiftedSystem<T> system(B, dampings, out, kAny, {rtol, atol, max_iterations});
  const Index params = system.B.rows();
  const T* t = read_vector(triangle, triangle_size<T>(params), "triangle");
  {
    const WithoutGil unlocked;
    system.solve(interruptible<T>(triangle_operator<T>(t, params, scale, nullptr, threads)),
                 threads);
  }
  return outcome_tuple(system.outcome);
}

template <class T>
py::tuple shifted_cg_callable(const py::function& apply, const Array<double>& dampings,
                              const Array<T>& B, double rtol, double atol, Index max_iterations,
                              Array<T> out, int threads) {
  ShiftedSystem<T> system(B, dampings, out, kAny, {rtol, atol, max_iterations});
  system.solve(block_operator<T>(apply, "apply"), threads);
  return outcome_tuple(system.outcome);
}

template <class S, class A>
void define_scores(py::module_& m) {
  m.def("shifted_cg_scores", &shifted_cg_scores<S, A>, array("scores"), array("weights"),
        array("mean"), py::arg("scale"), array("dampings"), array("B"), py::arg("rtol"),
        py::arg("atol"), py::arg("max_iterations"), array("out"), py::arg("threads"));
  m.def("cg_scores", &cg_scores<S, A>, array("scores"), array("weights"), array("mean"),
        py::arg("scale"), array("damping"), array("B"), array("X0"),
        array("preconditioner_diagonal"), py::arg("rtol"), py::arg("atol"),
        py::arg("max_iterations"), array("out"), py::arg("threads"));
}

template <class T>
void define(py::module_& m) {
  m.def("shifted_cg_triangle", &shifted_cg_triangle<T>, array("triangle"), py::arg("scale"),
        array("dampings"), array("B"), py::arg("rtol"), py::arg("atol"), py::arg("max_iterations"),
        array("out"), py::arg("threads"));
  m.def("shifted_cg_callable", &shifted_cg_callable<T>, py::arg("apply"), array("dampings"),
        array("B"), py::arg("rtol"), py::arg("atol"), py::arg("max_iterations"), array("out"),
        py::arg("threads"));
  m.def("cg_triangle", &cg_triangle<T>, array("triangle"), py::arg("scale"), array("damping"),
        array("B"), array("X0"), array("preconditioner_diagonal"), py::arg("rtol"), py::arg("atol"),
        py::arg("max_iterations"), array("out"), py::arg("threads"));
  m.def("cg_callable", &cg_callable<T>, py::arg("apply"), py::arg("precondition"), array("B"),
        array("X0"), py::arg("rtol"), py::arg("atol"), py::arg("max_iterations"), array("out"));
}

}  // namespace

void register_cg(py::module_& m) {
#define FASTFISHER_DEFINE(S, A) define_scores<S, A>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_DEFINE)
#undef FASTFISHER_DEFINE
  define<double>(m);
  define<float>(m);
}

}  // namespace fastfisher::bindings
