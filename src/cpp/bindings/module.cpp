// One core module: every topic registers its functions here.
#include <Eigen/Core>

#include "../kernels/parallel.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {
void register_triangle(py::module_& m);
void register_hermitian(py::module_& m);
void register_fisher(py::module_& m);
void register_cholesky(py::module_& m);
void register_qr(py::module_& m);
void register_blocks(py::module_& m);
void register_tridiagonal(py::module_& m);
void register_stream(py::module_& m);
void register_patches(py::module_& m);
void register_cg(py::module_& m);
void register_batch(py::module_& m);
void register_probe(py::module_& m);
}  // namespace fastfisher::bindings

// Needs no interpreter lock: kernels keep nothing between calls but numbers of threads, atomically,
// and whoever shares an array, or an accumulator (which has a lock), sees to turns in Python.
PYBIND11_MODULE(FASTFISHER_CORE_NAME, m, pybind11::mod_gil_not_used()) {
  using namespace fastfisher;
  m.attr("isa") = FASTFISHER_ISA;
  m.attr("openmp") = has_openmp();
  m.attr("eigen_version") = std::to_string(EIGEN_WORLD_VERSION) + "." +
                            std::to_string(EIGEN_MAJOR_VERSION) + "." +
                            std::to_string(EIGEN_MINOR_VERSION);
#if defined(__VERSION__)
  m.attr("compiler") = __VERSION__;
#else
  m.attr("compiler") = "unknown";
#endif
  m.def("max_threads", [] { return team_size(0); });
  m.def("set_threads", &set_threads);
  bindings::register_triangle(m);
  bindings::register_hermitian(m);
  bindings::register_fisher(m);
  bindings::register_cholesky(m);
  bindings::register_qr(m);
  bindings::register_blocks(m);
  bindings::register_tridiagonal(m);
  bindings::register_stream(m);
  bindings::register_patches(m);
  bindings::register_cg(m);
  bindings::register_batch(m);
  bindings::register_probe(m);
}
