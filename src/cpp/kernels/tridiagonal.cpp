// Cholesky link by link, every step a substitution or a product on the engine.
#include "tridiagonal.hpp"

#include <algorithm>

#include "condition.hpp"
#include "parallel.hpp"
#include "substitution.hpp"

namespace fastfisher {

namespace {

// Below this order one thread does the work of a link, as in cholesky.cpp.
constexpr Index kParallelOrder = 384;

template <class T>
Factor<T> link(const Chain<T>& chain, const T* factor, Index b) {
  return {const_cast<T*>(factor) + chain.diagonal[static_cast<std::size_t>(b)], chain.size_of(b)};
}

// Panel i of W_b.
template <class T>
T* panel_of_W(const Chain<T>& chain, const T* factor, Index b, Index i) {
  return const_cast<T*>(factor) + chain.beside[static_cast<std::size_t>(b)] + i * chain.stride(b);
}

template <class T>
int threads_for(Index size, int threads) {
  return size < kParallelOrder ? 1 : threads;
}

// C (m, q) in panels += sign · Σ_k A[k, m] B[k, q], both operands in panels over `depth` rows:
// X[(j / W) · stride + k · W + j % W]. Of a `lower` C (m = q) a panel triangle.
template <class T>
void multiply_packed(Index depth, const T* A, Index a_stride, Index m, const T* B, Index b_stride,
                     Index q, T sign, bool lower, T* C, Index c_stride, int threads) {
  constexpr Index W = kPanel<T>, lanes = kLanes<T>;
  run_in_order(threads_for<T>(m, threads), panel_count<T>(m), [&](Index i, int) {
    const Index end = lower ? std::min((i + 1) * W, q) : q;
    T* to = C + (lower ? panel_offset<T>(i) : i * c_stride);
    for (Index k = 0; k < depth; k += kDepth)
      for (Index c = 0; c < end; c += kColumns)
        multiply_panel<T, W, 1>(std::min(kDepth, depth - k), A + i * a_stride + k * W,
                                B + c / W * b_stride + k * W + c % W, to + c * W, sign,
                                lower && c / W == i ? c % W / lanes * lanes : 0,
                                panel_rows<T>(i, m));
  });
}

// The same with B[k, q] in panels of k: B[(k / W) · b_stride + q · W + k % W].
template <class T>
void multiply_turned(Index depth, const T* A, Index a_stride, Index m, const T* B, Index b_stride,
                     Index q, T sign, bool lower, T* C, Index c_stride, int threads) {
  constexpr Index W = kPanel<T>, lanes = kLanes<T>;
  run_in_order(threads_for<T>(m, threads), panel_count<T>(m), [&](Index i, int) {
    const Index end = lower ? std::min((i + 1) * W, q) : q;
    T* to = C + (lower ? panel_offset<T>(i) : i * c_stride);
    for (Index k = 0; k < depth; k += W)
      for (Index c = 0; c < end; c += kColumns)
        multiply_panel<T, 1, W>(
            std::min(W, depth - k), A + i * a_stride + k * W, B + k / W * b_stride + c * W,
            to + c * W, sign, lower && c / W == i ? c % W / lanes * lanes : 0, panel_rows<T>(i, m));
  });
}

// R = L⁻¹R or L⁻ᵀR.
template <class T>
void substitute_link(const Factor<T>& L, bool down, const Sides<T>& R, int threads) {
  if (L.params >= kParallelOrder)
    substitute(L, down, !down, R, threads);
  else if (down)
    forward(L, 0, R);
  else
    backward(L, R);
}

// R −= W_b X downwards, R of block b + 1, X of block b; R −= W_bᵀ X upwards, the other way round.
template <class T>
void pass_on(const Chain<T>& chain, const T* factor, Index b, bool down, const T* X, T* R,
             Index lanes) {
  constexpr Index W = kPanel<T>;
  const Index own = chain.size_of(b), next = chain.size_of(b + 1);
  for (Index i = 0; i < panel_count<T>(next); ++i) {
    const T* panel = panel_of_W(chain, factor, b, i);
    const Index rows = std::min(W, next - i * W);
    if (down)
      for (Index c = 0; c < rows; c += kColumns)
        multiply_panel<T, W, 1>(own, X, panel + c, R + (i * W + c) * W, T(-1), 0, lanes);
    else
      for (Index c = 0; c < own; c += kColumns)
        multiply_panel<T, 1, W>(rows, X + i * W * W, panel + c * W, R + c * W, T(-1), 0, lanes);
  }
}

// One half of the solve with a chain, for a panel of columns, in two panels of scratch.
template <class T>
void run_down_or_up(const Chain<T>& chain, const T* factor, bool down, const ConstMatrix<T>& B,
                    Matrix<T> out, T* R, T* last, int threads) {
  const Index lanes = panel_rows<T>(0, B.cols());
  for (Index step = 0; step < chain.count; ++step) {
    const Index b = down ? step : chain.count - 1 - step;
    const Index row = chain.row_of(b), size = chain.size_of(b);
    const Sides<T> sides{R, 0, 1, lanes};
    take_rows(part_of(B, row, 0, size, B.cols()), 0, panel_count<T>(size) * kPanel<T>, sides);
    if (step > 0) pass_on(chain, factor, down ? b - 1 : b, down, last, R, lanes);
    substitute_link(link(chain, factor, b), down, sides, threads);
    give_rows(sides, 0, size, part_of(out, row, 0, size, B.cols()));
    std::swap(R, last);
  }
}

template <class T>
ConstMatrix<T> constant(const Matrix<T>& X) {
  return ConstMatrix<T>(X.data(), X.rows(), X.cols(), Strides(X.rowStride(), X.colStride()));
}

template <class T>
void solve_link(const Factor<T>& L, Half half, const Sides<T>& R, int threads) {
  if (half != Half::Upper) substitute_link(L, true, R, threads);
  if (half != Half::Lower) substitute_link(L, false, R, threads);
}

// F's part of each link, scaled and damped, zero elsewhere; `diagonal` is that of A.
template <class T>
void assemble(const Blocks<T>& blocks, const std::vector<Unit>& units, const Chain<T>& chain,
              const T* F, T scale, const T* shift, T* factor, T* diagonal, int threads) {
  constexpr Index W = kPanel<T>;
  run_in_order(chain.entries < (Index{1} << 17) ? 1 : threads, chain.count, [&](Index b, int) {
    const Unit& unit = units[static_cast<std::size_t>(b)];
    T* triangle = link(chain, factor, b).triangle;
    read_unit(blocks, unit, F, scale, triangle);
    for (Index j = 0; j < unit.size; ++j) {
      T& d = triangle[triangle_at<T>(j, j)];
      d += shift[unit.row + j];
      diagonal[unit.row + j] = d;
    }
    if (!chain.has_next(b)) return;
    T* panels = panel_of_W(chain, factor, b, 0);
    const Index stride = chain.stride(b);
    std::fill_n(panels, panel_count<T>(chain.size_of(b + 1)) * stride, T(0));
    const Index across = blocks.size_of(unit.last - 1), below = blocks.size_of(unit.last);
    const T* from = F + blocks.beside_of(unit.last - 1);
    for (Index r = 0; r < below; ++r)
      for (Index c = 0; c < across; ++c)
        panels[r / W * stride + (unit.size - across + c) * W + r % W] =
            scale * from[r * across + c];
  });
}

// What factoring says of link b, with the row of the whole matrix.
template <class T>
Report factor_link(const Chain<T>& chain, Index b, const T* diagonal, double tolerance, T* factor,
                   int threads) {
  const Factor<T> A = link(chain, factor, b);
  Report report = cholesky<T>(A.triangle, A.params, 1.0, nullptr, tolerance, threads,
                              diagonal + chain.row_of(b));
  if (!report.ok()) report.row = report.col = report.row + chain.row_of(b);
  return report;
}

// A symmetric matrix in panels over all its rows, from its triangle.
template <class T>
void spread_triangle(const T* triangle, Index size, T* full) {
  constexpr Index W = kPanel<T>;
  const Index stride = panel_count<T>(size) * W * W;
  for (Index i = 0; i < panel_count<T>(size); ++i)
    for (Index c = 0; c < std::min((i + 1) * W, size); ++c)
      for (Index r = std::max(c, i * W); r < std::min((i + 1) * W, size); ++r) {
        const T x = triangle[triangle_at<T>(r, c)];
        full[i * stride + c * W + r % W] = full[c / W * stride + r * W + c % W] = x;
      }
}

}  // namespace

template <class T>
Chain<T>::Chain(const Index* sizes, Index links, bool with_neighbours)
    : count(links), tridiagonal(with_neighbours), size(sizes, sizes + links) {
  for (Index b = 0; b < count; ++b) {
    row.push_back(rows), diagonal.push_back(entries);
    rows += sizes[b];
    entries += triangle_size<T>(sizes[b]);
    largest = std::max(largest, sizes[b]);
  }
  for (Index b = 0; has_next(b); ++b) {
    beside.push_back(entries);
    entries += panel_count<T>(sizes[b + 1]) * stride(b);
  }
}

template <class T>
std::vector<Index> links_of(const Blocks<T>& blocks) {
  std::vector<Index> sizes;
  for (const Unit& unit : units_of(blocks)) sizes.push_back(unit.size);
  return sizes;
}

template <class T>
Report tridiagonal_factor(const Blocks<T>& blocks, const Chain<T>& chain, const T* F, double scale,
                          const T* shift, double tolerance, T* factor, int threads) {
  const std::vector<Unit> units = units_of(blocks);
  threads = team_size(threads);
  Buffer<T> diagonal(chain.rows);
  assemble(blocks, units, chain, F, static_cast<T>(scale), shift, factor, diagonal.data(), threads);
  if (!chain.tridiagonal) {
    std::vector<Report> reports(static_cast<std::size_t>(chain.count));
    const auto run = [&](Index b, int team) {
      reports[static_cast<std::size_t>(b)] =
          factor_link(chain, b, diagonal.data(), tolerance, factor, team);
    };
    run_in_order(chain.entries < (Index{1} << 14) ? 1 : threads, chain.count, [&](Index b, int) {
      if (chain.size_of(b) < kParallelOrder) run(b, 1);
    });
    for (Index b = 0; b < chain.count; ++b) {
      if (chain.size_of(b) >= kParallelOrder) run(b, threads);
      if (!reports[static_cast<std::size_t>(b)].ok()) return reports[static_cast<std::size_t>(b)];
    }
    return {};
  }
  for (Index b = 0; b < chain.count; ++b) {
    const Report report = factor_link(chain, b, diagonal.data(), tolerance, factor, threads);
    if (!report.ok() || !chain.has_next(b)) return report;
    const Index next = chain.size_of(b + 1), groups = panel_count<T>(next);
    T* W = panel_of_W(chain, factor, b, 0);
    substitute_link(link(chain, factor, b), true,
                    Sides<T>{W, chain.stride(b), groups, panel_rows<T>(groups - 1, next)}, threads);
    multiply_packed(chain.size_of(b), W, chain.stride(b), next, W, chain.stride(b), next, T(-1),
                    true, link(chain, factor, b + 1).triangle, 0, threads);
  }
  return {};
}

template <class T>
void tridiagonal_solve(const Chain<T>& chain, const T* factor, const ConstMatrix<T>& B, Half half,
                       Matrix<T> out, int threads) {
  constexpr Index W = kPanel<T>;
  const Index groups = ceil_div(B.cols(), W), size = panel_count<T>(chain.largest) * W * W;
  // A panel of columns, ...
  const auto columns = [&](const auto& X, Index g) {
    return part_of(X, 0, g * W, X.rows(), std::min(W, X.cols() - g * W));
  };
  // ... and a block's rows.
  const auto rows = [&](const auto& X, Index b) {
    return part_of(X, chain.row_of(b), 0, chain.size_of(b), X.cols());
  };
  // A few right-hand sides of a few blocks are done before a second thread is awake.
  threads = 2 * chain.entries * B.cols() < (Index{1} << 21) ? 1 : team_size(threads);
  if (chain.tridiagonal) {
    const int teams = static_cast<int>(std::clamp<Index>(groups, 1, threads));
    Buffer<T> scratch(2 * teams * size);
    run_in_order(teams, groups, [&](Index g, int thread) {
      T* R = scratch.data() + 2 * thread * size;
      const int team = groups == 1 ? threads : 1;
      if (half != Half::Upper)
        run_down_or_up(chain, factor, true, columns(B, g), columns(out, g), R, R + size, team);
      if (half != Half::Lower)
        run_down_or_up(chain, factor, false, columns(half == Half::Both ? constant(out) : B, g),
                       columns(out, g), R, R + size, team);
    });
    return;
  }
  Buffer<T> scratch(threads * size);
  const auto solve = [&](Index b, Index g, T* R, int team) {
    const ConstMatrix<T> some = rows(columns(B, g), b);
    const Sides<T> sides{R, 0, 1, panel_rows<T>(0, some.cols())};
    take_rows(some, 0, panel_count<T>(some.rows()) * W, sides);
    solve_link(link(chain, factor, b), half, sides, team);
    give_rows(sides, 0, some.rows(), rows(columns(out, g), b));
  };
  run_in_order(threads, chain.count, [&](Index b, int thread) {
    if (chain.size_of(b) >= kParallelOrder) return;
    for (Index g = 0; g < groups; ++g) solve(b, g, scratch.data() + thread * size, 1);
  });
  for (Index b = 0; b < chain.count; ++b)
    if (chain.size_of(b) >= kParallelOrder)
      cholesky_solve<T>(link(chain, factor, b).triangle, rows(B, b), half, rows(out, b), threads);
}

template <class T>
double tridiagonal_logdet(const Chain<T>& chain, const T* factor) {
  double total = 0;
  for (Index b = 0; b < chain.count; ++b)
    total += cholesky_logdet(link(chain, factor, b).triangle, chain.size_of(b));
  return total;
}

template <class T>
void tridiagonal_inverse(const Blocks<T>& blocks, const Chain<T>& chain, const T* factor, T* out,
                         int threads) {
  constexpr Index W = kPanel<T>;
  const std::vector<Unit> units = units_of(blocks);
  const Index most = panel_count<T>(chain.largest), square = most * most * W * W;
  threads = team_size(threads);
  const auto invert = [&](Index b, T* inverse, int team) {
    cholesky_inverse(link(chain, factor, b).triangle, chain.size_of(b), inverse, team);
  };
  if (!chain.tridiagonal) {
    const Index triangle = triangle_size<T>(chain.largest);
    Buffer<T> inverse(threads * triangle);
    run_in_order(chain.entries < (Index{1} << 14) ? 1 : threads, chain.count,
                 [&](Index b, int thread) {
                   if (chain.size_of(b) >= kParallelOrder) return;
                   T* own = inverse.data() + thread * triangle;
                   invert(b, own, 1);
                   add_unit(blocks, units[static_cast<std::size_t>(b)], own, out);
                 });
    for (Index b = 0; b < chain.count; ++b)
      if (chain.size_of(b) >= kParallelOrder) {
        invert(b, inverse.data(), threads);
        add_unit(blocks, units[static_cast<std::size_t>(b)], inverse.data(), out);
      }
    return;
  }
  // Σ of the next link in full, K in panels of its rows and of its columns, M = Σ K like the first.
  Buffer<T> scratch(4 * square), inverse(triangle_size<T>(chain.largest));
  scratch.zero();  // what lies past the last row is multiplied too
  T *Sigma = scratch.data(), *K = Sigma + square, *turned = K + square, *M = turned + square;
  for (Index b = chain.count - 1; b >= 0; --b) {
    const Index size = chain.size_of(b), stride = chain.stride(b);
    const Unit& unit = units[static_cast<std::size_t>(b)];
    invert(b, inverse.data(), threads);
    if (chain.has_next(b)) {
      const Index next = chain.size_of(b + 1), groups = panel_count<T>(next);
      const Index entries = groups * stride, next_stride = groups * W * W;
      std::copy_n(panel_of_W(chain, factor, b, 0), entries, K);
      substitute_link(link(chain, factor, b), false,
                      Sides<T>{K, chain.stride(b), groups, panel_rows<T>(groups - 1, next)},
                      threads);
      std::fill_n(turned, panel_count<T>(size) * next_stride, T(0));
      for (Index r = 0; r < next; ++r)
        for (Index c = 0; c < size; ++c)
          turned[c / W * next_stride + r * W + c % W] = K[r / W * stride + c * W + r % W];
      std::fill_n(M, entries, T(0));
      multiply_turned(next, Sigma, next_stride, next, K, stride, size, T(1), false, M, stride,
                      threads);
      multiply_turned(next, turned, next_stride, size, M, stride, size, T(1), true, inverse.data(),
                      Index{0}, threads);
      const Index across = blocks.size_of(unit.last - 1), below = blocks.size_of(unit.last);
      T* to = out + blocks.beside_of(unit.last - 1);
      for (Index r = 0; r < below; ++r)
        for (Index c = 0; c < across; ++c)
          to[r * across + c] = -M[r / W * stride + (size - across + c) * W + r % W];
    }
    add_unit(blocks, unit, inverse.data(), out);
    spread_triangle(inverse.data(), size, Sigma);
  }
}

template <class T>
double tridiagonal_rcond(const Chain<T>& chain, const T* factor, double norm1, int threads) {
  return reciprocal_condition<T>(chain.rows, norm1, [&](Matrix<T> X) {
    tridiagonal_solve(chain, factor, constant(X), Half::Both, X, threads);
  });
}

#define FASTFISHER_INSTANTIATE(T)                                                          \
  template struct Chain<T>;                                                                \
  template std::vector<Index> links_of(const Blocks<T>&);                                  \
  template Report tridiagonal_factor(const Blocks<T>&, const Chain<T>&, const T*, double,  \
                                     const T*, double, T*, int);                           \
  template void tridiagonal_solve(const Chain<T>&, const T*, const ConstMatrix<T>&, Half,  \
                                  Matrix<T>, int);                                         \
  template double tridiagonal_logdet(const Chain<T>&, const T*);                           \
  template void tridiagonal_inverse(const Blocks<T>&, const Chain<T>&, const T*, T*, int); \
  template double tridiagonal_rcond(const Chain<T>&, const T*, double, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
