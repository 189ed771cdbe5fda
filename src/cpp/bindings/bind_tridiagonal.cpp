// Doors of the Cholesky factor of block-tridiagonal and block-diagonal matrices.
#include "../kernels/tridiagonal.hpp"

#include "arrays.hpp"
#include "blocks_of.hpp"

namespace fastfisher::bindings {

namespace {

template <class T>
py::tuple links(const Array<Index>& sizes, bool tridiagonal) {
  const std::vector<Index> found = links_of(blocks_of<T>(sizes, tridiagonal));
  const Chain<T> chain(found.data(), static_cast<Index>(found.size()), tridiagonal);
  return py::make_tuple(Array<Index>(chain.count, found.data()), chain.entries);
}

template <class T>
void register_tridiagonal_of(py::module_& m) {
  m.def(
      "tridiagonal_factor",
      [](const Array<Index>& sizes, const Array<Index>& links, bool tridiagonal,
         const Array<T>& sums, double scale, const Array<T>& shift, double tolerance,
         Array<T> factor, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const Chain<T> chain = chain_of<T>(links, tridiagonal);
        if (links_of(blocks) != chain.size) refuse("links", "those of sizes", shape_text(links));
        const T* F = read_vector(sums, blocks.entries, "sums");
        const T* d = read_vector(shift, blocks.rows, "shift");
        T* to = write_vector(factor, chain.entries, "factor");
        Report report;
        {
          const WithoutGil unlocked;
          report = tridiagonal_factor(blocks, chain, F, scale, d, tolerance, to, threads);
        }
        return report_tuple(report);
      },
      array("sizes"), array("links"), py::arg("tridiagonal"), array("sums"), py::arg("scale"),
      array("shift"), py::arg("tolerance"), array("factor"), py::arg("threads"));
  const auto solve = [](const Array<Index>& links, bool tridiagonal, const Array<T>& factor,
                        const Array<T>& B, Half half, Array<T>& out, int threads) {
    const Chain<T> chain = chain_of<T>(links, tridiagonal);
    const T* L = read_vector(factor, chain.entries, "factor");
    const auto right = read_matrix(B, chain.rows, kAny, "B");
    auto to = write_matrix(out, chain.rows, right.cols(), "out");
    const WithoutGil unlocked;
    tridiagonal_solve(chain, L, right, half, to, threads);
  };
  m.def(
      "tridiagonal_solve",
      [solve](const Array<Index>& links, bool tridiagonal, const Array<T>& factor,
              const Array<T>& B, Array<T> out,
              int threads) { solve(links, tridiagonal, factor, B, Half::Both, out, threads); },
      array("links"), py::arg("tridiagonal"), array("factor"), array("B"), array("out"),
      py::arg("threads"));
  m.def(
      "tridiagonal_half_solve",
      [solve](const Array<Index>& links, bool tridiagonal, const Array<T>& factor,
              const Array<T>& B, bool transposed, Array<T> out, int threads) {
        solve(links, tridiagonal, factor, B, transposed ? Half::Upper : Half::Lower, out, threads);
      },
      array("links"), py::arg("tridiagonal"), array("factor"), array("B"), py::arg("transposed"),
      array("out"), py::arg("threads"));
  m.def(
      "tridiagonal_logdet",
      [](const Array<Index>& links, bool tridiagonal, const Array<T>& factor) {
        const Chain<T> chain = chain_of<T>(links, tridiagonal);
        return tridiagonal_logdet(chain, read_vector(factor, chain.entries, "factor"));
      },
      array("links"), py::arg("tridiagonal"), array("factor"));
  m.def(
      "tridiagonal_inverse",
      [](const Array<Index>& sizes, const Array<Index>& links, bool tridiagonal,
         const Array<T>& factor, Array<T> out, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const Chain<T> chain = chain_of<T>(links, tridiagonal);
        if (links_of(blocks) != chain.size) refuse("links", "those of sizes", shape_text(links));
        const T* L = read_vector(factor, chain.entries, "factor");
        T* to = write_vector(out, blocks.entries, "out");
        const WithoutGil unlocked;
        tridiagonal_inverse(blocks, chain, L, to, threads);
      },
      array("sizes"), array("links"), py::arg("tridiagonal"), array("factor"), array("out"),
      py::arg("threads"));
  m.def(
      "tridiagonal_rcond",
      [](const Array<Index>& links, bool tridiagonal, const Array<T>& factor, double norm1,
         int threads) {
        const Chain<T> chain = chain_of<T>(links, tridiagonal);
        const T* L = read_vector(factor, chain.entries, "factor");
        const WithoutGil unlocked;
        return tridiagonal_rcond(chain, L, norm1, threads);
      },
      array("links"), py::arg("tridiagonal"), array("factor"), py::arg("norm1"),
      py::arg("threads"));
}

}  // namespace

void register_tridiagonal(py::module_& m) {
  m.def(
      "tridiagonal_links",
      [](const Array<Index>& sizes, bool tridiagonal, int itemsize) {
        if (itemsize != 4 && itemsize != 8) refuse("itemsize", "4 or 8", std::to_string(itemsize));
        return itemsize == 8 ? links<double>(sizes, tridiagonal) : links<float>(sizes, tridiagonal);
      },
      array("sizes"), py::arg("tridiagonal"), py::arg("itemsize"));
  register_tridiagonal_of<double>(m);
  register_tridiagonal_of<float>(m);
}

}  // namespace fastfisher::bindings
