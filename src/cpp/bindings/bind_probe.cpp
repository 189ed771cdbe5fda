// Doors of the machine's roofs: fma_peak and read_bandwidth.
#include "../kernels/probe.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

void register_probe(py::module_& m) {
  m.def(
      "fma_peak",
      [](int itemsize, int threads) {
        if (itemsize != 4 && itemsize != 8) refuse("itemsize", "4 or 8", std::to_string(itemsize));
        const WithoutGil unlocked;
        return itemsize == 4 ? fma_peak<float>(threads) : fma_peak<double>(threads);
      },
      py::arg("itemsize"), py::arg("threads"));
  m.def(
      "read_bandwidth",
      [](Index bytes, int threads) {
        if (bytes < 0) refuse("bytes", "a size ≥ 0", std::to_string(bytes));
        const WithoutGil unlocked;
        return read_bandwidth(bytes, threads);
      },
      py::arg("bytes"), py::arg("threads"));
}

}  // namespace fastfisher::bindings
