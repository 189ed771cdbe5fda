// Doors of batches: systems and Fishers of (count, p, p) arrays.
#include "../kernels/batch.hpp"
#include "../kernels/batch_extended.hpp"
#include "../kernels/batch_fisher.hpp"

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// (count, rows, cols) array with any element strides; any count serves where count is kAny.
template <class T>
ConstBatch<T> read_batch(const Array<T>& a, Index count, Index rows, Index cols, const char* name) {
  if (a.ndim() != 3 || (count != kAny && a.shape(0) != count) ||
      (rows != kAny && a.shape(1) != rows) || (cols != kAny && a.shape(2) != cols))
    refuse(name,
           "shape (" + size_text(count) + ", " + size_text(rows) + ", " + size_text(cols) + ")",
           shape_text(a));
  if (reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
    refuse(name, "an aligned array", "a misaligned one; pass a copy");
  const Index inner = element_stride(a, 2, 1, name);
  const Index row = element_stride(a, 1, inner * a.shape(2), name);
  return {a.data(), a.shape(0), a.shape(1), a.shape(2), element_stride(a, 0, 0, name), row, inner};
}

// A contiguous array of `size` numbers, of any rank.
template <class T>
T* write_whole(Array<T>& a, Index size, const char* name) {
  if (a.size() != size || !(a.flags() & py::array::c_style))
    refuse(name, "a contiguous array of " + std::to_string(size), shape_text(a));
  check_writable(a, name);
  return a.mutable_data();
}

template <class T>
void factor(BatchJob job, const Array<T>& F, const Array<T>& damping, const Array<T>& rhs,
            Array<T>& out, Array<std::int8_t>& status, Array<T>& rcond, int threads) {
  const auto matrices = read_batch(F, kAny, kAny, kAny, "F");
  const Index count = matrices.count, params = params_of(matrices.rows);
  if (matrices.cols != params) refuse("F", "shape (count, p, p)", shape_text(F));
  const auto shift = read_batch(damping, count, params, 1, "damping");
  const auto right = read_batch(rhs, count, params, kAny, "rhs");
  const Index size = job == BatchJob::Solve             ? params * right.cols
                     : job == BatchJob::Inverse         ? params * params
                     : job == BatchJob::InverseDiagonal ? params
                                                        : 1;
  T* to = write_whole(out, count * size, "out");
  std::int8_t* states = write_vector(status, count, "status");
  T* conditions = write_vector(rcond, count, "rcond");
  const WithoutGil unlocked;
  batch_factor(job, matrices, shift, right, to, states, conditions, threads);
}

template <class T>
void register_batch_of(py::module_& m) {
  m.def(
      "batch_solve",
      [](const Array<T>& F, const Array<T>& damping, const Array<T>& rhs, Array<T> out,
         Array<std::int8_t> status, Array<T> rcond,
         int threads) { factor(BatchJob::Solve, F, damping, rhs, out, status, rcond, threads); },
      array("F"), array("damping"), array("rhs"), array("out"), array("status"), array("rcond"),
      py::arg("threads"));
  const auto alone = [&m](const char* name, BatchJob job) {
    m.def(
        name,
        [job](const Array<T>& F, const Array<T>& damping, Array<T> out, Array<std::int8_t> status,
              Array<T> rcond, int threads) {
          const Index none = 0;
          const Array<T> rhs({F.shape(0), F.ndim() > 1 ? F.shape(1) : none, none});
          factor(job, F, damping, rhs, out, status, rcond, threads);
        },
        array("F"), array("damping"), array("out"), array("status"), array("rcond"),
        py::arg("threads"));
  };
  m.def(
      "batch_fisher",
      [](const Array<T>& scores, const OptionalArray<T>& weights, bool center, bool mean,
         Array<T> out, int threads) {
        const auto S = read_batch(scores, kAny, kAny, kAny, "scores");
        const Index params = params_of(S.cols);
        ConstBatch<T> w{};
        if (weights) w = read_batch(*weights, S.count, S.rows, 1, "weights");
        T* to = write_whole(out, S.count * params * params, "out");
        const WithoutGil unlocked;
        batch_fisher(S, w, center, mean, to, threads);
      },
      array("scores"), array("weights"), py::arg("center"), py::arg("mean"), array("out"),
      py::arg("threads"));
  alone("batch_inverse", BatchJob::Inverse);
  alone("batch_inverse_diagonal", BatchJob::InverseDiagonal);
  alone("batch_logdet", BatchJob::LogDeterminant);
}

}  // namespace

void register_batch(py::module_& m) {
  register_batch_of<double>(m);
  register_batch_of<float>(m);
  m.def(
      "batch_extended",
      [](const Array<double>& matrix, bool scores, bool mean, const OptionalArray<double>& low,
         const Array<double>& damping, const OptionalArray<double>& rhs, Array<double> out,
         Array<std::int8_t> status, Array<double> rcond, Array<double> bound, int threads) {
        const auto F = read_batch(matrix, kAny, kAny, kAny, scores ? "scores" : "F");
        const Index count = F.count, params = params_of(F.cols);
        if (!scores && F.rows != params) refuse("F", "shape (count, p, p)", shape_text(matrix));
        ConstBatch<double> lo{}, right{};
        if (low) lo = read_batch(*low, count, params, params, "lo");
        if (rhs) right = read_batch(*rhs, count, params, kAny, "rhs");
        const auto shift = read_batch(damping, count, params, 1, "damping");
        double* to = write_whole(out, count * params * (rhs ? right.cols : params), "out");
        std::int8_t* states = write_vector(status, count, "status");
        double* conditions = write_vector(rcond, count, "rcond");
        double* bounds = write_vector(bound, count, "bound");
        const WithoutGil unlocked;
        batch_extended(F, scores, mean, lo, shift, right, to, states, conditions, bounds, threads);
      },
      array("matrix"), py::arg("scores"), py::arg("mean"), array("lo"), array("damping"),
      array("rhs"), array("out"), array("status"), array("rcond"), array("bound"),
      py::arg("threads"));
}

}  // namespace fastfisher::bindings
