// How an array of sizes becomes the blocks of a matrix, or the links of its factor.
#pragma once

#include "../kernels/tridiagonal.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

// The sizes, (count,), each at least 1, and no more rows than an Index counts with room to spare.
inline const Index* read_sizes(const Array<Index>& sizes) {
  const Index* all = read_vector(sizes, kAny, "sizes");
  Index rows = 0;
  for (Index b = 0; b < sizes.size(); ++b) {
    if (all[b] < 1) refuse("sizes", "at least 1", std::to_string(all[b]));
    rows = params_of(rows + params_of(all[b]));
  }
  return all;
}

template <class T>
Blocks<T> blocks_of(const Array<Index>& sizes, bool tridiagonal) {
  return {read_sizes(sizes), sizes.size(), tridiagonal};
}

template <class T>
Chain<T> chain_of(const Array<Index>& sizes, bool tridiagonal) {
  return {read_sizes(sizes), sizes.size(), tridiagonal};
}

}  // namespace fastfisher::bindings
