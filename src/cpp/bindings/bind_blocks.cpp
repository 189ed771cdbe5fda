// Doors of block-diagonal matrices.
#include "../kernels/blocks.hpp"

#include <vector>

#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

template <class T>
void register_blocks_of(py::module_& m) {
  m.def(
      "blocks_solve",
      [](const Array<T>& L, const std::vector<Index>& sizes, const Array<T>& B, Array<T> out,
         int threads) {
        Index rows = 0, entries = 0;
        for (const Index size : sizes) {
          if (size < 1) refuse("sizes", "at least 1", std::to_string(size));
          rows += params_of(size);
          entries += triangle_size<T>(size);
        }
        const auto right = read_matrix(B, rows, kAny, "B");
        auto to = write_matrix(out, rows, right.cols(), "out");
        const T* factors = read_vector(L, entries, "L");
        py::gil_scoped_release release;
        blocks_solve(factors, sizes.data(), static_cast<Index>(sizes.size()), right, to, threads);
      },
      array("L"), py::arg("sizes"), array("B"), array("out"), py::arg("threads"));
}

}  // namespace

void register_blocks(py::module_& m) {
  register_blocks_of<double>(m);
  register_blocks_of<float>(m);
}

}  // namespace fastfisher::bindings
