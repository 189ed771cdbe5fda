// Strassen's products: diagonal blocks classically, blocks below them with sums formed in packing.
#include "strassen.hpp"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "product.hpp"
#include "schedule.hpp"

namespace fastfisher {

namespace {

// One of the blocks that a sum adds up, or a product is added to.
struct Block {
  Index row, column;
  int sign;
};
using Sum = std::vector<Block>;

// The sums in `into` of C += (the sum `left` of Aᵀ)(the sum `right` of B).
struct Product {
  Sum left, right, into;
};

// Strassen's seven: the signs of blocks 11, 12, 21, 22 of the left factor, of the right one, and of
// the product in the blocks of the result (Strassen, Numer. Math. 13 (1969) 354). Winograd's form
// has fewer additions, but longer sums once they are written out, and a bound with 18 for 12.
constexpr int kSigns[7][3][4] = {
    {{1, 0, 0, 1}, {1, 0, 0, 1}, {1, 0, 0, 1}},  {{0, 0, 1, 1}, {1, 0, 0, 0}, {0, 0, 1, -1}},
    {{1, 0, 0, 0}, {0, 1, 0, -1}, {0, 1, 0, 1}}, {{0, 0, 0, 1}, {-1, 0, 1, 0}, {1, 0, 1, 0}},
    {{1, 1, 0, 0}, {0, 0, 0, 1}, {-1, 1, 0, 0}}, {{-1, 0, 1, 0}, {1, 1, 0, 0}, {0, 0, 0, 1}},
    {{0, 1, 0, -1}, {0, 0, 1, 1}, {1, 0, 0, 0}},
};

// Every block of a sum replaced by a signed sum of its quarters.
Sum quartered(const Sum& sum, const int (&signs)[4]) {
  Sum out;
  for (const Block& block : sum)
    for (int at = 0; at < 4; ++at)
      if (signs[at])
        out.push_back({2 * block.row + at / 2, 2 * block.column + at % 2, block.sign * signs[at]});
  return out;
}

// The 7^levels products of a matrix product cut into 2^levels blocks each way.
std::vector<Product> strassen_products(int levels) {
  std::vector<Product> products{{{{0, 0, 1}}, {{0, 0, 1}}, {{0, 0, 1}}}};
  for (; levels > 0; --levels) {
    std::vector<Product> finer;
    for (const Product& product : products)
      for (const auto& signs : kSigns)
        finer.push_back({quartered(product.left, signs[0]), quartered(product.right, signs[1]),
                         quartered(product.into, signs[2])});
    products = std::move(finer);
  }
  return products;
}

// Rows of Y and the panel where a block of it begins, and its sign in a sum.
struct Term {
  Index row, panel;
  int sign;
};
constexpr int kTerms = 4;

// Whole panels of a sum of Count blocks, of rows whose columns lie side by side: as pack_panels,
// which reads one block.
template <class T, class S, int Count, bool Shifted>
void pack_sum_contiguous(const Operand<T, S>& Y, const Term* terms, Index depth, Index panels,
                         T* out, Index stride) {
  constexpr Index W = kPanel<T>, lanes = kLanes<T>, ahead = 8 / Count;
  constexpr Index line = static_cast<Index>(kCacheLine / sizeof(S));
  const Index ld = Y.X.rowStride(), width = panels * W;
  for (Index k = 0; k < depth; ++k) {
    const S* x[Count];
    const T* shift[Count];
    Vec<T> scale[Count];
    FASTFISHER_UNROLL
    for (int t = 0; t < Count; ++t) {
      const Index row = terms[t].row + k;
      x[t] = Y.X.data() + row * ld + terms[t].panel * W;
      shift[t] = Shifted ? Y.shift_by_column + terms[t].panel * W : nullptr;
      scale[t] = Vec<T>::broadcast(static_cast<T>(terms[t].sign) *
                                   (Y.scale_by_depth ? Y.scale_by_depth[row] : T(1)));
      if (k + ahead < depth)
        for (Index j = 0; j < width; j += line) prefetch(x[t] + ahead * ld + j);
    }
    T* to = out + k * W;
    for (Index j = 0; j < width; j += W, to += stride) {
      FASTFISHER_UNROLL
      for (Index r = 0; r < W; r += lanes) {
        Vec<T> sum = Vec<T>::zero();
        FASTFISHER_UNROLL
        for (int t = 0; t < Count; ++t) {
          Vec<T> v = Vec<T>::load(x[t] + j + r);
          if (Shifted) v = v - Vec<T>::load(shift[t] + j + r);
          sum = fma(scale[t], v, sum);
        }
        sum.store(to + r);
      }
    }
  }
}

template <class T, class S, int Count>
void pack_sum_of(const Operand<T, S>& Y, const Term* terms, Index depth, Index panels, T* out,
                 Index stride) {
  return Y.shift_by_column
             ? pack_sum_contiguous<T, S, Count, true>(Y, terms, depth, panels, out, stride)
             : pack_sum_contiguous<T, S, Count, false>(Y, terms, depth, panels, out, stride);
}

// out = Σ ± Y[its rows, its panels], laid out as by pack_panels; in any layout by way of a few
// packed rows of each block.
template <class T, class S>
void pack_sum(const Operand<T, S>& Y, const Term* terms, int count, Index depth, Index panels,
              T* out, Index stride) {
  constexpr Index W = kPanel<T>, run = 16;
  if (count == 1 && terms[0].sign == 1)
    return pack_panels(Y, terms[0].row, depth, terms[0].panel, panels, out, stride);
  static_assert(kTerms == 4, "the cases below are the sums of two levels");
  if (Y.X.colStride() == 1) {
    if (count == 1) return pack_sum_of<T, S, 1>(Y, terms, depth, panels, out, stride);
    if (count == 2) return pack_sum_of<T, S, 2>(Y, terms, depth, panels, out, stride);
    return pack_sum_of<T, S, 4>(Y, terms, depth, panels, out, stride);
  }
  alignas(kCacheLine) T rows[run * W];
  for (Index i = 0; i < panels; ++i)
    for (Index k = 0; k < depth; k += run) {
      const Index some = std::min(run, depth - k);
      Vector<T> sum(out + i * stride + k * W, some * W);
      sum.setZero();
      for (int t = 0; t < count; ++t) {
        pack_panels(Y, terms[t].row + k, some, terms[t].panel + i, 1, rows, run * W);
        sum += static_cast<T>(terms[t].sign) * ConstVector<T>(rows, some * W);
      }
    }
}

// A block below the diagonal: `height` panels of rows from `top`, `width` panels of columns from
// `left`; all of them whole where there are levels.
struct Rectangle {
  Index top, height, left, width;
  int levels;
};

// triangle[rectangle] += YᵀY over rows [row, row + depth), a multiple of 2^levels as its sides are.
// All products stand in one schedule of chunks, and a tile takes them in their order.
template <class T, class S>
void multiply_rectangle(const Operand<T, S>& Y, Index row, Index depth, const Rectangle& C,
                        int levels, T* triangle, int threads) {
  constexpr Index W = kPanel<T>;
  const Index cut = Index{1} << levels, deep = depth / cut, m = C.height / cut, q = C.width / cut;
  if (deep == 0 || m == 0 || q == 0) return;
  const std::vector<Product> products = strassen_products(levels);
  const Index rows = std::min<Index>(kDepth, deep), parts = ceil_div(deep, rows);
  const Index chunks = static_cast<Index>(products.size()) * parts, stride = rows * W;
  // Tiles of one size, four or more each way.
  const auto even = [](Index panels) {
    return ceil_div(panels, std::max<Index>(4, ceil_div(panels, kTilePanels)));
  };
  const Index across = even(m), along = even(q);
  const Index m_groups = ceil_div(m, across), q_groups = ceil_div(q, along);
  Buffer<T> buffer(2 * (m + q) * stride), product(levels > 0 ? m * q * W * W : 0);

  const auto of = [&](Index chunk) -> const Product& {
    return products[static_cast<std::size_t>(chunk / parts)];
  };
  const auto rows_of = [&](Index chunk) { return std::min(rows, deep - chunk % parts * rows); };
  const auto left_data = [&](Index chunk) { return buffer.data() + chunk % 2 * (m + q) * stride; };
  const auto right_data = [&](Index chunk) { return left_data(chunk) + m * stride; };
  // Columns from c of panel i of a block of the result.
  const auto at = [&](const Block& block, Index i, Index c) {
    return triangle + panel_offset<T>(C.top + block.row * m + i) +
           ((C.left + block.column * q) * W + c) * W;
  };
  run_chunks(
      threads, chunks, m_groups + q_groups, m_groups * q_groups,
      [&](Index chunk, Index g, int) {
        const bool left = g < m_groups;
        const Index step = left ? across : along, i0 = (left ? g : g - m_groups) * step;
        Term terms[kTerms];
        int count = 0;
        for (const Block& block : left ? of(chunk).left : of(chunk).right) {
          const Index k = left ? block.column : block.row, i = left ? block.row : block.column;
          terms[count++] = {row + k * deep + chunk % parts * rows,
                            (left ? C.top + i * m : C.left + i * q) + i0, block.sign};
        }
        pack_sum(Y, terms, count, rows_of(chunk), std::min(step, (left ? m : q) - i0),
                 (left ? left_data(chunk) : right_data(chunk)) + i0 * stride, stride);
      },
      [&](Index chunk, Index t) {
        const Index i0 = t % m_groups * across, i1 = std::min(i0 + across, m);
        const Index j0 = t / m_groups * along, j1 = std::min(j0 + along, q);
        const Sum& into = of(chunk).into;
        const bool direct = into.size() == 1 && into[0].sign == 1;
        const auto result = [&](Index i, Index c) {
          return direct ? at(into[0], i, c) : product.data() + (i * q * W + c) * W;
        };
        const Index run = (j1 - j0) * W * W;
        for (Index i = i0; !direct && chunk % parts == 0 && i < i1; ++i)
          std::fill_n(result(i, j0 * W), run, T(0));
        for (Index k = 0; k < rows_of(chunk); k += kDepth) {
          const Index some = std::min(kDepth, rows_of(chunk) - k);
          for (Index j = j0; j < j1; ++j) {
            const T* B = right_data(chunk) + j * stride + k * W;
            Upcoming next{reinterpret_cast<const char*>(B + (j + 1 < q ? stride : 0)),
                          kColumns * static_cast<Index>(sizeof(T)) / (i1 - i0)};
            for (Index c = 0; c < W; c += kColumns)
              for (Index i = i0; i < i1; ++i)
                multiply_panel<T, W, 1>(some, left_data(chunk) + i * stride + k * W, B + c,
                                        result(i, j * W + c), T(1), 0,
                                        panel_rows<T>(C.top + i, Y.columns()), &next);
          }
        }
        if (direct || (chunk + 1) % parts != 0) return;
        for (const Block& block : into)
          for (Index i = i0; i < i1; ++i)
            Vector<T>(at(block, i, j0 * W), run) +=
                static_cast<T>(block.sign) * ConstVector<T>(result(i, j0 * W), run);
      });
}

// Panels [start, start + panels) of the diagonal.
struct Range {
  Index start, panels;
};

// The blocks that a triangle is cut into.
struct Cut {
  std::vector<Range> diagonal;
  std::vector<Rectangle> below;
};

// Halves of whole panels, a multiple of 2^levels of them; the panels left over are a strip below
// both.
template <class T>
void halve(Index start, Index columns, Index depth, Index least, Cut& cut) {
  const Index size = std::min(columns, depth), panels = panel_count<T>(columns);
  const int levels = size >= 2 * least ? 2 : 1;
  const Index half = (columns / kPanel<T> / 2) >> levels << levels;
  if (size < least || half == 0) {
    if (panels > 0) cut.diagonal.push_back({start, panels});
    return;
  }
  cut.below.push_back({start + half, half, start, half, levels});
  halve<T>(start, half * kPanel<T>, depth, least, cut);
  halve<T>(start + half, half * kPanel<T>, depth, least, cut);
  if (panels == 2 * half) return;
  cut.diagonal.push_back({start + 2 * half, panels - 2 * half});
  cut.below.push_back({start + 2 * half, panels - 2 * half, start, 2 * half, 0});
}

// A block on the diagonal classically, in a triangle of its own.
template <class T, class S>
Report add_diagonal_block(const Operand<T, S>& Y, const Range& range, T* triangle,
                          bool check_finite, int threads) {
  constexpr Index W = kPanel<T>;
  const Index first = range.start * W, columns = std::min(range.panels * W, Y.columns() - first);
  const ConstMatrix<S> X(Y.X.data() + first * Y.X.colStride(), Y.depth(), columns,
                         Strides(Y.X.rowStride(), Y.X.colStride()));
  const T* shift = Y.shift_by_column ? Y.shift_by_column + first : nullptr;
  const Operand<T, S> part{X, Y.scale_by_depth, nullptr, nullptr, shift};
  Buffer<T> own(triangle_size<T>(columns));
  own.zero();
  Report report = symmetric_product(part, own.data(), nullptr, check_finite, threads);
  if (report.col >= 0) report.col += first;
  for (Index i = 0; i < range.panels; ++i)
    Vector<T>(triangle + panel_offset<T>(range.start + i) + first * W, (i + 1) * W * W) +=
        ConstVector<T>(own.data() + panel_offset<T>(i), (i + 1) * W * W);
  return report;
}

// With two levels a column of a factor is a sum of four, so a product is at most 16 Σ y² of the
// largest column, and 16 products meet in an entry: 16 · 16, and room for rounding.
constexpr double kGrowth = 1024;

template <class T>
bool sums_are_safe(const T* triangle, Index columns) {
  T largest = 0;
  for (Index j = 0; j < columns; ++j) largest = std::max(largest, triangle[triangle_at<T>(j, j)]);
  return static_cast<double>(largest) <=
         static_cast<double>(std::numeric_limits<T>::max()) / kGrowth;
}

}  // namespace

template <class T, class S>
Report symmetric_product_fast(const Operand<T, S>& Y, T* triangle, Index least, bool check_finite,
                              int threads) {
  const Index depth = Y.depth(), columns = Y.columns();
  if (std::min(depth, columns) < least)
    return symmetric_product(Y, triangle, nullptr, check_finite, threads);
  threads = useful_threads(threads, static_cast<double>(depth) * static_cast<double>(columns) *
                                        static_cast<double>(columns));
  Cut cut;
  halve<T>(0, columns, depth, least, cut);
  Report report;
  for (const Range& range : cut.diagonal) {
    const Report seen = add_diagonal_block(Y, range, triangle, check_finite, threads);
    if (!seen.ok() && (report.ok() || seen.col < report.col)) report = seen;
  }
  if (!report.ok()) return report;
  const bool safe = sums_are_safe(triangle, columns);
  for (const Rectangle& C : cut.below) {
    const int levels = safe ? C.levels : 0;
    const Index even = depth >> levels << levels;
    multiply_rectangle(Y, 0, even, C, levels, triangle, threads);
    multiply_rectangle(Y, even, depth - even, C, 0, triangle, threads);
  }
  return {};
}

#define FASTFISHER_INSTANTIATE(S, T) \
  template Report symmetric_product_fast(const Operand<T, S>&, T*, Index, bool, int);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
