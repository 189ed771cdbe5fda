// Blocks: where they stand, and what is done with them as they stand.
#include "blocks.hpp"

#include <algorithm>
#include <cmath>

#include "hermitian.hpp"
#include "parallel.hpp"

namespace fastfisher {

namespace {

// What a task takes, in numbers: enough to be worth its ticket, little enough to share out.
constexpr Index kTaskEntries = Index{1} << 14;

// Calls task(first, last, thread) for runs of blocks of about kTaskEntries numbers, in parallel.
template <class T, class Task>
void for_runs(const Blocks<T>& blocks, int threads, Task&& task) {
  std::vector<Index> start{0};
  for (Index b = 0, begin = 0; b < blocks.count; ++b) {
    const Index end = b + 1 < blocks.count ? blocks.at_of(b + 1) : blocks.entries;
    if (end - begin >= kTaskEntries || b + 1 == blocks.count) start.push_back(b + 1), begin = end;
  }
  run_in_order(threads, static_cast<Index>(start.size()) - 1, [&](Index i, int thread) {
    task(start[static_cast<std::size_t>(i)], start[static_cast<std::size_t>(i) + 1], thread);
  });
}

// Below this many numbers one thread does the work.
template <class T>
int useful_threads(const Blocks<T>& blocks, int requested) {
  return blocks.entries < 8 * kTaskEntries ? 1 : team_size(requested);
}

// Calls visit(row, col, entry) for the lower half of diagonal block b, places counted within it.
template <class T, class Number, class Visit>
void for_lower(const Blocks<T>& blocks, Index b, Number* F, Visit&& visit) {
  const Index size = blocks.size_of(b);
  Number* own = F + blocks.at_of(b);
  if (blocks.is_square(b)) {
    for (Index r = 0; r < size; ++r)
      for (Index c = 0; c <= r; ++c) visit(r, c, own[r * size + c]);
    return;
  }
  for (Index i = 0; i < panel_count<T>(size); ++i)
    for (Index c = 0; c < std::min((i + 1) * kPanel<T>, size); ++c)
      for (Index r = std::max(c, i * kPanel<T>); r < std::min((i + 1) * kPanel<T>, size); ++r)
        visit(r, c, own[triangle_at<T>(r, c)]);
}

// A (rows, cols) += a · (x yᵀ), in this order: of y = x it is symmetric to the last bit.
template <class T>
void add_outer(const T* x, Index rows, const T* y, Index cols, T a, T* A) {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) *A++ += a * (x[r] * y[c]);
}

// y (rows, k) += A v for A (rows, cols), v (cols, k), all row after row.
template <class T>
void add_dense(const T* A, Index rows, Index cols, const T* v, Index k, T* y) {
  for (Index r = 0; r < rows; ++r, A += cols, y += k) {
    if (k > 1) {
      for (Index c = 0; c < cols; ++c)
        for (Index q = 0; q < k; ++q) y[q] += A[c] * v[c * k + q];
      continue;
    }
    constexpr Index lanes = kLanes<T>;
    Vec<T> dot = Vec<T>::zero();
    Index c = 0;
    for (; c + lanes <= cols; c += lanes) dot = fma(Vec<T>::load(A + c), Vec<T>::load(v + c), dot);
    T total = sum(dot);
    for (; c < cols; ++c) total += A[c] * v[c];
    *y += total;
  }
}

// y (cols, k) += Aᵀ v for A (rows, cols), v (rows, k).
template <class T>
void add_transposed(const T* A, Index rows, Index cols, const T* v, Index k, T* y) {
  for (Index r = 0; r < rows; ++r, A += cols, v += k) {
    if (k > 1) {
      for (Index c = 0; c < cols; ++c)
        for (Index q = 0; q < k; ++q) y[c * k + q] += A[c] * v[q];
      continue;
    }
    const T factor = *v;
    for (Index c = 0; c < cols; ++c) y[c] += factor * A[c];
  }
}

// The cell [[a, b], [c, d]] becomes the nearest one of the form [[re, im], [−im, re]].
template <class T>
void project_cell(T& a, T& b, T& c, T& d) {
  const T re = a / 2 + d / 2, im = b / 2 - c / 2;
  a = d = re;
  b = im;
  c = -im;
}

}  // namespace

template <class T>
Blocks<T>::Blocks(const Index* sizes, Index blocks, bool with_neighbours)
    : count(blocks), tridiagonal(with_neighbours), size(sizes, sizes + blocks) {
  constexpr Index line = static_cast<Index>(kCacheLine / sizeof(T));
  const auto total = static_cast<std::size_t>(count);
  row.reserve(total), at.reserve(total);
  for (Index b = 0; b < count; ++b) {
    const Index s = sizes[b];
    if (s > kPanel<T>) entries = ceil_div(entries, line) * line;
    row.push_back(rows), at.push_back(entries);
    rows += s;
    entries += s <= kPanel<T> ? s * s : triangle_size<T>(s);
    largest = std::max(largest, s);
  }
  for (Index b = 0; has_neighbour(b); ++b) {
    beside.push_back(entries);
    entries += sizes[b] * sizes[b + 1];
  }
}

template <class T>
std::vector<Unit> units_of(const Blocks<T>& blocks) {
  std::vector<Unit> units;
  for (Index b = 0; b < blocks.count; ++b) {
    const Index size = blocks.size_of(b);
    if (!units.empty() && units.back().size + size <= kPanel<T>) {
      ++units.back().last;
      units.back().size += size;
    } else {
      units.push_back({b, b + 1, blocks.row_of(b), size});
    }
  }
  return units;
}

template <class T>
void add_unit(const Blocks<T>& blocks, const Unit& unit, const T* triangle, T* F) {
  for (Index b = unit.first; b < unit.last; ++b) {
    const Index size = blocks.size_of(b), o = blocks.row_of(b) - unit.row;
    T* own = F + blocks.at_of(b);
    if (!blocks.is_square(b)) {  // then it is alone
      for_lower(blocks, b, F, [&](Index r, Index c, T& x) { x += triangle[triangle_at<T>(r, c)]; });
      return;
    }
    for (Index c = 0; c < size; ++c) {
      const T* column = triangle + (o + c) * kPanel<T> + o;
      own[c * size + c] += column[c];
      for (Index r = c + 1; r < size; ++r)
        own[r * size + c] += column[r], own[c * size + r] += column[r];
    }
    if (b + 1 == unit.last || !blocks.tridiagonal) continue;
    const Index next = o + size;
    T* below = F + blocks.beside_of(b);
    for (Index c = 0; c < size; ++c)
      for (Index r = 0; r < blocks.size_of(b + 1); ++r)
        below[r * size + c] += triangle[(o + c) * kPanel<T> + next + r];
  }
}

template <class T>
void read_unit(const Blocks<T>& blocks, const Unit& unit, const T* F, T scale, T* triangle) {
  const Index entries = triangle_size<T>(unit.size);
  if (!blocks.is_square(unit.first)) {
    Vector<T>(triangle, entries) = scale * ConstVector<T>(F + blocks.at_of(unit.first), entries);
    return;
  }
  std::fill_n(triangle, entries, T(0));
  for (Index b = unit.first; b < unit.last; ++b) {
    const Index size = blocks.size_of(b), o = blocks.row_of(b) - unit.row;
    const T* own = F + blocks.at_of(b);
    for (Index c = 0; c < size; ++c)
      for (Index r = c; r < size; ++r)
        triangle[(o + c) * kPanel<T> + o + r] = scale * own[c * size + r];
    if (b + 1 == unit.last || !blocks.tridiagonal) continue;
    const Index next = o + size;
    const T* below = F + blocks.beside_of(b);
    for (Index c = 0; c < size; ++c)
      for (Index r = 0; r < blocks.size_of(b + 1); ++r)
        triangle[(o + c) * kPanel<T> + next + r] = scale * below[r * size + c];
  }
}

template <class T>
void blocks_diagonal(const Blocks<T>& blocks, const T* F, T* out) {
  for (Index b = 0; b < blocks.count; ++b) {
    const Index size = blocks.size_of(b);
    const T* own = F + blocks.at_of(b);
    for (Index j = 0; j < size; ++j)
      *out++ = own[blocks.is_square(b) ? j * size + j : triangle_at<T>(j, j)];
  }
}

template <class T>
void blocks_add_outer(const Blocks<T>& blocks, T* F, const T* x, double alpha, int threads) {
  const T a = static_cast<T>(alpha);
  for_runs(blocks, useful_threads(blocks, threads), [&](Index first, Index last, int) {
    for (Index b = first; b < last; ++b) {
      const Index size = blocks.size_of(b);
      const T* own = x + blocks.row_of(b);
      if (blocks.is_square(b))
        add_outer(own, size, own, size, a, F + blocks.at_of(b));
      else
        triangle_add_outer(F + blocks.at_of(b), size, own, alpha, 1);
      if (blocks.has_neighbour(b))
        add_outer(own + size, blocks.size_of(b + 1), own, size, a, F + blocks.beside_of(b));
    }
  });
}

namespace {

template <class T>
void product_of_columns(const Blocks<T>& blocks, const T* F, const ConstMatrix<T>& V, double scale,
                        Matrix<T> out, int threads) {
  const Index k = V.cols();
  const T s = static_cast<T>(scale);
  for (Index b = 0; b < blocks.count; ++b) {
    if (blocks.is_square(b)) continue;
    const Index row = blocks.row_of(b), size = blocks.size_of(b);
    triangle_product(F + blocks.at_of(b), size, part_of(V, row, 0, size, k), scale, 0.0,
                     part_of(out, row, 0, size, k), threads);
  }
  // A run's rows of V, those of the blocks beside it, and its rows of the product.
  const Index most = std::min(kTaskEntries + 3 * blocks.largest, blocks.rows);
  Buffer<T> scratch(2 * threads * most * k);
  for_runs(blocks, threads, [&](Index first, Index last, int thread) {
    const Index before = blocks.tridiagonal && first > 0 ? first - 1 : first;
    const Index after = blocks.has_neighbour(last - 1) ? last : last - 1;
    const Index row0 = blocks.row_of(before), row1 = blocks.row_of(after) + blocks.size_of(after);
    T *v = scratch.data() + 2 * thread * most * k, *y = v + most * k;
    for (Index j = row0; j < row1; ++j)
      for (Index q = 0; q < k; ++q) v[(j - row0) * k + q] = s * V(j, q);
    for (Index b = first; b < last; ++b) {
      const Index row = blocks.row_of(b), size = blocks.size_of(b);
      const T* own = v + (row - row0) * k;
      if (blocks.is_square(b)) {
        std::fill_n(y, size * k, T(0));
        add_transposed(F + blocks.at_of(b), size, size, own, k, y);
      } else {
        for (Index j = 0; j < size; ++j)
          for (Index q = 0; q < k; ++q) y[j * k + q] = out(row + j, q);
      }
      if (blocks.tridiagonal && b > 0) {
        const Index across = blocks.size_of(b - 1);
        add_dense(F + blocks.beside_of(b - 1), size, across, own - across * k, k, y);
      }
      if (blocks.has_neighbour(b))
        add_transposed(F + blocks.beside_of(b), blocks.size_of(b + 1), size, own + size * k, k, y);
      for (Index j = 0; j < size; ++j)
        for (Index q = 0; q < k; ++q) out(row + j, q) = y[j * k + q];
    }
  });
}

}  // namespace

template <class T>
void blocks_product(const Blocks<T>& blocks, const T* F, const ConstMatrix<T>& V, double scale,
                    Matrix<T> out, int threads) {
  constexpr Index kTogether = 32;  // right-hand sides, so that the rows of a run stay in the cache
  threads = useful_threads(blocks, threads);
  for (Index q = 0; q < V.cols(); q += kTogether) {
    const Index some = std::min(kTogether, V.cols() - q);
    product_of_columns(blocks, F, part_of(V, 0, q, V.rows(), some), scale,
                       part_of(out, 0, q, V.rows(), some), threads);
  }
}

template <class T>
double blocks_norm1(const Blocks<T>& blocks, const T* F) {
  Buffer<double> column(blocks.rows);  // in double: sums of finite float32 must not overflow
  column.zero();
  for (Index b = 0; b < blocks.count; ++b) {
    double* own = column.data() + blocks.row_of(b);
    for_lower(blocks, b, F, [&](Index r, Index c, T x) {
      const double a = std::abs(static_cast<double>(x));
      own[c] += a;
      if (r != c) own[r] += a;
    });
    if (!blocks.has_neighbour(b)) continue;
    const Index size = blocks.size_of(b);
    const T* below = F + blocks.beside_of(b);
    for (Index r = 0; r < blocks.size_of(b + 1); ++r)
      for (Index c = 0; c < size; ++c) {
        const double a = std::abs(static_cast<double>(*below++));
        own[c] += a;
        own[size + r] += a;
      }
  }
  double largest = 0;
  for (Index j = 0; j < blocks.rows; ++j)
    if (!(column[j] <= largest)) largest = column[j];  // NaN wins
  return largest;
}

template <class T>
double blocks_dot(const Blocks<T>& blocks, const T* F, const T* G) {
  double total = 0;
  for (Index b = 0; b < blocks.count; ++b) {
    double part = 0;
    const T* other = G + blocks.at_of(b);
    const Index size = blocks.size_of(b);
    const bool square = blocks.is_square(b);
    for_lower(blocks, b, F, [&](Index r, Index c, T x) {
      const T y = other[square ? r * size + c : triangle_at<T>(r, c)];
      part += (r == c ? 1.0 : 2.0) * static_cast<double>(x) * static_cast<double>(y);
    });
    if (blocks.has_neighbour(b)) {
      const Index at = blocks.beside_of(b), entries = size * blocks.size_of(b + 1);
      for (Index e = at; e < at + entries; ++e)
        part += 2.0 * static_cast<double>(F[e]) * static_cast<double>(G[e]);
    }
    total += part;
  }
  return total;
}

template <class T>
void blocks_project(const Blocks<T>& blocks, T* F, int threads) {
  const auto project = [](T* cells, Index rows, Index cols) {
    for (Index r = 0; r < rows; r += 2)
      for (Index c = 0; c < cols; c += 2) {
        T* x = cells + r * cols + c;
        project_cell(x[0], x[1], x[cols], x[cols + 1]);
      }
  };
  for_runs(blocks, useful_threads(blocks, threads), [&](Index first, Index last, int) {
    for (Index b = first; b < last; ++b) {
      const Index size = blocks.size_of(b);
      if (blocks.is_square(b))
        project(F + blocks.at_of(b), size, size);
      else
        hermitian_project(F + blocks.at_of(b), size / 2, false, 1);
      if (blocks.has_neighbour(b)) project(F + blocks.beside_of(b), blocks.size_of(b + 1), size);
    }
  });
}

#define FASTFISHER_INSTANTIATE(T)                                                         \
  template struct Blocks<T>;                                                              \
  template std::vector<Unit> units_of(const Blocks<T>&);                                  \
  template void add_unit(const Blocks<T>&, const Unit&, const T*, T*);                    \
  template void read_unit(const Blocks<T>&, const Unit&, const T*, T, T*);                \
  template void blocks_diagonal(const Blocks<T>&, const T*, T*);                          \
  template void blocks_add_outer(const Blocks<T>&, T*, const T*, double, int);            \
  template void blocks_product(const Blocks<T>&, const T*, const ConstMatrix<T>&, double, \
                               Matrix<T>, int);                                           \
  template double blocks_norm1(const Blocks<T>&, const T*);                               \
  template double blocks_dot(const Blocks<T>&, const T*, const T*);                       \
  template void blocks_project(const Blocks<T>&, T*, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
