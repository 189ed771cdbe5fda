// Doors of block-diagonal and block-tridiagonal matrices: sums of scores, and what is read of them.
#include "../kernels/block_sums.hpp"

#include "arrays.hpp"
#include "blocks_of.hpp"

namespace fastfisher::bindings {

namespace {

template <class T>
py::tuple layout(const Blocks<T>& blocks) {
  const auto copy = [](const std::vector<Index>& places) {
    return Array<Index>(static_cast<Index>(places.size()), places.data());
  };
  return py::make_tuple(copy(blocks.at), copy(blocks.beside), blocks.entries);
}

template <class T, class S>
void register_block_scores(py::module_& m) {
  m.def(
      "blocks_accumulate",
      [](const Array<S>& scores, const OptionalArray<T>& weights, std::optional<Array<T>> mean,
         bool centred, const Array<Index>& sizes, bool tridiagonal, Array<T> sums, bool fresh,
         bool check_finite, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const auto X = read_matrix(scores, "scores");
        if (kParts<S> * X.cols() != blocks.rows)
          refuse("scores", size_text(blocks.rows / kParts<S>) + " columns", shape_text(scores));
        const T* w = read_vector(weights, X.rows(), "weights");
        T* m = mean ? write_vector(*mean, blocks.rows, "mean") : nullptr;
        T* to = write_vector(sums, blocks.entries, "sums");
        Report report;
        {
          const WithoutGil unlocked;
          report = accumulate_blocks<T, S>(X, w, m, centred && m, blocks, to, fresh, check_finite,
                                           threads);
        }
        return report_tuple(report);
      },
      array("scores"), array("weights"), array("mean"), py::arg("centred"), array("sizes"),
      py::arg("tridiagonal"), array("sums"), py::arg("fresh"), py::arg("check_finite"),
      py::arg("threads"));
}

template <class T>
void register_blocks_of(py::module_& m) {
  m.def(
      "blocks_diagonal",
      [](const Array<Index>& sizes, bool tridiagonal, const Array<T>& sums) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        Array<T> out(blocks.rows);
        blocks_diagonal(blocks, read_vector(sums, blocks.entries, "sums"), out.mutable_data());
        return out;
      },
      array("sizes"), py::arg("tridiagonal"), array("sums"));
  m.def(
      "blocks_add_outer",
      [](const Array<Index>& sizes, bool tridiagonal, Array<T> sums, const Array<T>& x,
         double alpha, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        T* to = write_vector(sums, blocks.entries, "sums");
        const T* from = read_vector(x, blocks.rows, "x");
        const WithoutGil unlocked;
        blocks_add_outer(blocks, to, from, alpha, threads);
      },
      array("sizes"), py::arg("tridiagonal"), array("sums"), array("x"), py::arg("alpha"),
      py::arg("threads"));
  m.def(
      "blocks_product",
      [](const Array<Index>& sizes, bool tridiagonal, const Array<T>& sums, const Array<T>& V,
         double scale, Array<T> out, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const T* from = read_vector(sums, blocks.entries, "sums");
        const auto right = read_matrix(V, blocks.rows, kAny, "V");
        auto to = write_matrix(out, blocks.rows, right.cols(), "out");
        const WithoutGil unlocked;
        blocks_product(blocks, from, right, scale, to, threads);
      },
      array("sizes"), py::arg("tridiagonal"), array("sums"), array("V"), py::arg("scale"),
      array("out"), py::arg("threads"));
  m.def(
      "blocks_norm1",
      [](const Array<Index>& sizes, bool tridiagonal, const Array<T>& sums) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const T* from = read_vector(sums, blocks.entries, "sums");
        const WithoutGil unlocked;
        return blocks_norm1(blocks, from);
      },
      array("sizes"), py::arg("tridiagonal"), array("sums"));
  m.def(
      "blocks_dot",
      [](const Array<Index>& sizes, bool tridiagonal, const Array<T>& F, const Array<T>& G) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        const T* left = read_vector(F, blocks.entries, "F");
        const T* right = read_vector(G, blocks.entries, "G");
        const WithoutGil unlocked;
        return blocks_dot(blocks, left, right);
      },
      array("sizes"), py::arg("tridiagonal"), array("F"), array("G"));
  m.def(
      "blocks_project",
      [](const Array<Index>& sizes, bool tridiagonal, Array<T> sums, int threads) {
        const Blocks<T> blocks = blocks_of<T>(sizes, tridiagonal);
        for (const Index size : blocks.size)
          if (size % 2 != 0) refuse("sizes", "even numbers", std::to_string(size));
        T* in_place = write_vector(sums, blocks.entries, "sums");
        const WithoutGil unlocked;
        blocks_project(blocks, in_place, threads);
      },
      array("sizes"), py::arg("tridiagonal"), array("sums"), py::arg("threads"));
}

}  // namespace

void register_blocks(py::module_& m) {
  m.def(
      "blocks_layout",
      [](const Array<Index>& sizes, bool tridiagonal, int itemsize) {
        if (itemsize != 4 && itemsize != 8) refuse("itemsize", "4 or 8", std::to_string(itemsize));
        return itemsize == 8 ? layout(blocks_of<double>(sizes, tridiagonal))
                             : layout(blocks_of<float>(sizes, tridiagonal));
      },
      array("sizes"), py::arg("tridiagonal"), py::arg("itemsize"));
#define FASTFISHER_REGISTER(S, T) register_block_scores<T, S>(m);
  FASTFISHER_FOR_STORED(FASTFISHER_REGISTER)
  FASTFISHER_FOR_COMPLEX(FASTFISHER_REGISTER)
#undef FASTFISHER_REGISTER
  register_blocks_of<double>(m);
  register_blocks_of<float>(m);
}

}  // namespace fastfisher::bindings
