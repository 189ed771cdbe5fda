// Patches: gathered into panels by turning squares of an image in registers.
#include "patches.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "parallel.hpp"
#include "product.hpp"
#include "schedule.hpp"

namespace fastfisher {

namespace {

// Padded pieces of an image are staged in about this many bytes before they are gathered, so that
// they stay in the second-level cache beside what is packed.
constexpr Index kStageBytes = Index{1} << 17;

// out[i] = x[at + i·stride] for i < count, zero where that lies outside [0, size); `along` numbers
// lie between the entries of x.
template <class T, class S>
void copy_clipped(const S* x, Index along, Index size, Index at, Index stride, Index count,
                  T* out) {
  constexpr Index L = kLanes<T>;
  Index low = std::max<Index>(-at, 0), high = size - at;
  if (stride > 1) low = ceil_div(low, stride), high = high > 0 ? ceil_div(high, stride) : 0;
  low = std::min(low, count), high = std::clamp(high, low, count);
  const S* from = x + at * along;
  const Index step = stride * along;
  for (Index i = 0; i < low; ++i) out[i] = T(0);
  Index i = low;
  if (step == 1)
    for (; i + L <= high; i += L) Vec<T>::load(from + i).store(out + i);
  for (; i < high; ++i) out[i] = static_cast<T>(from[i * step]);
  for (; i < count; ++i) out[i] = T(0);
}

template <class T, class S>
class Images final : public Patches<T> {
 public:
  Images(const S* x, const Index (&strides)[4], const Geometry& geometry)
      : Patches<T>(geometry),
        x_(x),
        down_(geometry.grid(0)),
        across_(geometry.grid(1)),
        positions_(down_ * across_) {
    std::copy_n(strides, 4, strides_);
    const Geometry& g = geometry;
    plain_ = g.window() == 1 && g.padding[0] == 0 && g.padding[1] == 0;
    along_ = strides_[3] * g.stride[1];
    run_ = across_;
    if (across_ == 1 || down_ == 1 || strides_[2] * g.stride[0] == across_ * along_) {
      if (across_ == 1) along_ = strides_[2] * g.stride[0];
      run_ = positions_;
    }
    if (positions_ == 1) along_ = strides_[0];
    if (positions_ == 1 || g.samples == 1 || (run_ == positions_ && strides_[0] == run_ * along_))
      if (run_ == positions_) run_ = positions_ * g.samples;
  }

  Index room() const override {
    if (plain_) return 0;
    return std::max(kStageBytes / static_cast<Index>(sizeof(T)),
                    stage_size(most_channels(), 1, kLanes<T>));
  }

  void pack_rows(const T* scale, Index k0, Index depth, Index panel0, Index panels, T* out,
                 Index stride, T* room) const override {
    const Index gathered = geometry().gathered();
    const Index some = std::min(panels, panel_count<T>(gathered) - panel0);
    for (Index i = 0; i < some; i += kTilePanels) {
      const Index part = std::min(kTilePanels, some - i);
      T* to = out + i * stride;
      if (plain_)
        pack_plain(scale, k0, depth, panel0 + i, part, to, stride);
      else
        pack_staged(scale, k0, depth, panel0 + i, part, to, stride, room);
    }
    const Index last = gathered / W - panel0, r = gathered % W;
    if (!geometry().ones || last < 0 || last >= panels) return;
    T* to = out + last * stride;
    for (Index k = 0; k < depth; ++k, to += W) {
      to[r] = scale ? scale[k0 + k] : T(1);
      std::fill(to + r + 1, to + W, T(0));
    }
  }

  void pack_columns(Index first, Index count, Index k0, Index depth, Index panel0, Index panels,
                    T* out, Index stride) const override {
    const Geometry& g = geometry();
    const Index some = std::min(depth, g.gathered() - k0);
    if (some > 0 && plain_ && run_ == g.rows()) {
      const Operand<T, S> Y{
          ConstMatrix<S>(x_ + first * along_, g.channels, count, Strides(strides_[1], along_))};
      pack_panels(Y, k0, some, panel0, panels, out, stride);
    } else {
      for (Index i = 0; i < panels; ++i)
        pack_turned(first + (panel0 + i) * W, std::min(W, count - (panel0 + i) * W), k0, some,
                    out + i * stride);
    }
    for (Index i = 0; some < depth && i < panels; ++i) {
      T* to = out + i * stride + std::max<Index>(some, 0) * W;
      const Index width = std::min(W, count - (panel0 + i) * W);
      std::fill_n(to, width, T(1));
      std::fill(to + width, to + W, T(0));
    }
  }

  Report find_nonfinite(int threads) const override {
    const Index n = geometry().samples, channels = geometry().channels, height = geometry().size[0],
                width = geometry().size[1], image = height * width;
    if (n * channels * image == 0) return {};
    const Index inner = width == 1 ? strides_[2] : strides_[3];
    const bool line = width == 1 || height == 1 || strides_[2] == width * strides_[3];
    if (line && (image == 1 || channels == 1 || strides_[1] == image * inner)) {
      const Index step = image == 1 ? strides_[1] : inner;
      Report report = fastfisher::find_nonfinite(
          ConstMatrix<S>(x_, n, channels * image, Strides(strides_[0], step)), threads);
      if (!report.ok()) report.col /= image;
      return report;
    }
    std::atomic<bool> finite{true};
    const auto at = [&](Index i) {
      for (Index y = 0; y < (line ? 1 : height); ++y) {
        const Report report = fastfisher::find_nonfinite(
            ConstMatrix<S>(x_ + i * strides_[0] + y * strides_[2], channels, line ? image : width,
                           Strides(strides_[1], line ? inner : strides_[3])),
            1);
        if (!report.ok()) return Report{report.status, i, report.row, report.value};
      }
      return Report{};
    };
    run_in_order(useful_threads(threads, 4.0 * static_cast<double>(n * channels * image)), n,
                 [&](Index i, int) {
                   if (!at(i).ok()) finite.store(false, std::memory_order_relaxed);
                 });
    for (Index i = 0; !finite.load() && i < n; ++i) {
      const Report report = at(i);
      if (!report.ok()) return report;
    }
    return {};
  }

  void sum_positions(double scale, Matrix<T> out, int threads) const override {
    const Geometry& g = geometry();
    const Index kw = g.kernel[1];
    threads = useful_threads(threads, 4.0 * static_cast<double>(g.samples * g.channels * kw) *
                                          static_cast<double>(g.size[0] * across_));
    Buffer<double> lines(threads * g.size[0] * kw);
    run_in_order(threads, g.samples, [&](Index i, int thread) {
      double* line = lines.data() + thread * g.size[0] * kw;
      for (Index c = 0; c < g.channels; ++c) {
        for (Index y = 0; y < g.size[0]; ++y)
          for (Index kc = 0; kc < kw; ++kc)
            line[y * kw + kc] = line_sum(x_ + i * strides_[0] + c * strides_[1] + y * strides_[2],
                                         kc * g.dilation[1] - g.padding[1]);
        for (Index kr = 0; kr < g.kernel[0]; ++kr)
          for (Index kc = 0; kc < kw; ++kc) {
            double sum = 0;
            for (Index oy = 0; oy < down_; ++oy) {
              const Index y = oy * g.stride[0] + kr * g.dilation[0] - g.padding[0];
              if (y >= 0 && y < g.size[0]) sum += line[y * kw + kc];
            }
            out(i, (c * g.kernel[0] + kr) * kw + kc) = static_cast<T>(scale * sum);
          }
      }
      if (g.ones) out(i, g.gathered()) = static_cast<T>(scale * static_cast<double>(positions_));
    });
  }

 private:
  static constexpr Index W = kPanel<T>;

  const Geometry& geometry() const { return Patches<T>::geometry(); }

  // Σ over the grid of one line of an image, from `at` on.
  double line_sum(const S* line, Index at) const {
    double sum = 0;
    for (Index ox = 0; ox < across_; ++ox, at += geometry().stride[1])
      if (at >= 0 && at < geometry().size[1]) sum += static_cast<double>(line[at * strides_[3]]);
    return sum;
  }

  // Rows whose entries lie `along_` apart in runs of `run_` are strided matrices.
  const S* run_start(Index run) const {
    if (run_ == geometry().rows()) return x_;
    if (run_ == positions_) return x_ + run * strides_[0];
    return x_ + run / down_ * strides_[0] + run % down_ * geometry().stride[0] * strides_[2];
  }
  void pack_plain(const T* scale, Index k0, Index depth, Index panel0, Index panels, T* out,
                  Index stride) const {
    for (Index k = k0, some; k < k0 + depth; k += some) {
      const Index at = k % run_;
      some = std::min(run_ - at, k0 + depth - k);
      Operand<T, S> Y{ConstMatrix<S>(run_start(k / run_), run_, geometry().channels,
                                     Strides(along_, strides_[1]))};
      Y.scale_by_depth = scale ? scale + (k - at) : nullptr;
      pack_panels(Y, at, some, panel0, panels, out + (k - k0) * W, stride);
    }
  }

  // ---- staging: lines of the padded image, each as its `stride` interleaved ones, one by one ----
  Index stage_lines(Index rows) const {
    const Geometry& g = geometry();
    return (rows - 1) * g.stride[0] + (g.kernel[0] - 1) * g.dilation[0] + 1;
  }
  Index stage_length(Index count) const {  // of one of the interleaved lines
    const Geometry& g = geometry();
    return count + (g.kernel[1] - 1) * g.dilation[1] / g.stride[1] + kLanes<T>;
  }
  Index stage_size(Index channels, Index rows, Index count) const {
    return channels * stage_lines(rows) * geometry().stride[1] * stage_length(count);
  }
  Index most_channels() const {
    return std::min(geometry().channels, kTilePanels * W / geometry().window() + 2);
  }

  // `rows` lines of the grid, `count` places across, from (oy, ox) of sample i on.
  void stage(Index i, Index oy, Index ox, Index rows, Index count, Index c0, Index c1,
             T* room) const {
    const Geometry& g = geometry();
    const Index lines = stage_lines(rows), length = stage_length(count), step = g.stride[1];
    for (Index c = c0; c < c1; ++c)
      for (Index l = 0; l < lines; ++l) {
        const Index y = oy * g.stride[0] - g.padding[0] + l;
        const S* line = x_ + i * strides_[0] + c * strides_[1] + y * strides_[2];
        for (Index phase = 0; phase < step; ++phase, room += length)
          if (y >= 0 && y < g.size[0])
            copy_clipped(line, strides_[3], g.size[1], ox * step - g.padding[1] + phase, step,
                         length, room);
          else
            std::fill_n(room, length, T(0));
      }
  }

  // Where columns j … j + W - 1 of a patch begin in the stage, -1 past the last one.
  void find_places(Index j, Index c0, Index rows, Index count, Index* place) const {
    const Geometry& g = geometry();
    const Index length = stage_length(count), line = g.stride[1] * length,
                channel = stage_lines(rows) * line;
    Index c = j / g.window() - c0, kr = j % g.window() / g.kernel[1], kc = j % g.kernel[1];
    for (Index r = 0; r < W; ++r) {
      const Index x = kc * g.dilation[1], down = x / g.stride[1];
      place[r] = c * channel + kr * g.dilation[0] * line + (x - down * g.stride[1]) * length + down;
      if (j + r >= g.gathered()) place[r] = -1;
      if (++kc == g.kernel[1]) kc = 0, ++kr;
      if (kr == g.kernel[0]) kr = 0, ++c;
    }
  }

  void pack_staged(const T* scale, Index k0, Index depth, Index panel0, Index panels, T* out,
                   Index stride, T* room) const {
    const Geometry& g = geometry();
    const Index size = this->room(), end = k0 + depth;
    const Index c0 = panel0 * W / g.window(),
                c1 = (std::min((panel0 + panels) * W, g.gathered()) - 1) / g.window() + 1;
    for (Index k = k0, rows, count; k < end; k += rows * count) {
      const Index i = k / positions_, oy = k % positions_ / across_, ox = k % across_;
      rows = 1, count = std::min(across_ - ox, end - k);
      while (stage_size(c1 - c0, 1, count) > size) count = std::max<Index>(kLanes<T>, count / 2);
      if (count == across_)
        while (oy + rows < down_ && (rows + 1) * count <= end - k &&
               stage_size(c1 - c0, rows + 1, count) <= size)
          ++rows;
      stage(i, oy, ox, rows, count, c0, c1, room);
      for (Index p = 0; p < panels; ++p) {
        Index place[W];
        find_places((panel0 + p) * W, c0, rows, count, place);
        for (Index row = 0; row < rows; ++row)
          gather(room + row * g.stride[0] * g.stride[1] * stage_length(count), place, count,
                 scale ? scale + k + row * count : nullptr,
                 out + p * stride + (k - k0 + row * count) * W);
      }
    }
  }

  // out[b·W + r] = scale[b] · base[place[r] + b] for b < count.
  static void gather(const T* base, const Index* place, Index count, const T* scale, T* out) {
    constexpr Index L = kLanes<T>;
    for (Index b = 0; b < count; b += L) {
      const Index some = std::min(L, count - b);
      for (Index r = 0; r < W; r += L) {
        Vec<T> square[L];
        FASTFISHER_UNROLL
        for (Index l = 0; l < L; ++l)
          square[l] = place[r + l] >= 0 ? Vec<T>::load(base + place[r + l] + b) : Vec<T>::zero();
        transpose(square);
        T* to = out + b * W + r;
        for (Index l = 0; l < some; ++l)
          (scale ? square[l] * Vec<T>::broadcast(scale[b + l]) : square[l]).store(to + l * W);
      }
    }
  }

  // One panel of patches as columns: `width` of them, from row `first` on; entries [k0, k0 +
  // depth).
  void pack_turned(Index first, Index width, Index k0, Index depth, T* out) const {
    const Geometry& g = geometry();
    for (Index r = 0, count; r < width; r += count) {
      const Index k = first + r, i = k / positions_, oy = k % positions_ / across_,
                  ox = k % across_;
      count = std::min(width - r, across_ - ox);
      Index c = k0 / g.window(), kr = k0 % g.window() / g.kernel[1], kc = k0 % g.kernel[1];
      for (Index d = 0; d < depth; ++d) {
        const Index y = oy * g.stride[0] - g.padding[0] + kr * g.dilation[0];
        T* to = out + d * W + r;
        if (y >= 0 && y < g.size[0])
          copy_clipped(x_ + i * strides_[0] + c * strides_[1] + y * strides_[2], strides_[3],
                       g.size[1], ox * g.stride[1] - g.padding[1] + kc * g.dilation[1], g.stride[1],
                       count, to);
        else
          std::fill_n(to, count, T(0));
        if (++kc == g.kernel[1]) kc = 0, ++kr;
        if (kr == g.kernel[0]) kr = 0, ++c;
      }
    }
    for (Index d = 0; width < W && d < depth; ++d)
      std::fill(out + d * W + width, out + (d + 1) * W, T(0));
  }

  const S* x_;
  Index strides_[4];
  Index down_, across_, positions_;
  bool plain_;         // a 1 × 1 kernel without padding,
  Index run_, along_;  // whose rows are then strided matrices of `run_` rows each
};

}  // namespace

template <class T, class S>
std::unique_ptr<Patches<T>> make_patches(const S* x, const Index (&strides)[4],
                                         const Geometry& geometry) {
  return std::make_unique<Images<T, S>>(x, strides, geometry);
}

template <class T>
Buffer<T> spread_weights(const T* weights, Index samples, Index positions, bool root) {
  if (!weights) return {};
  Buffer<T> scale(samples * positions);
  for (Index i = 0; i < samples; ++i)
    std::fill_n(scale.data() + i * positions, positions, root ? std::sqrt(weights[i]) : weights[i]);
  return scale;
}

template <class T>
Report add_moment(const Patches<T>& y, const T* weights, T* triangle, bool fresh, bool check_finite,
                  int threads) {
  const bool undone = fresh || works_by_slabs<T>(y.geometry().rows(), y.width());
  if (check_finite && !undone) {
    const Report report = y.find_nonfinite(threads);
    if (!report.ok()) return report;
  }
  const Buffer<T> roots = spread_weights(weights, y.samples(), y.positions(), true);
  const Report seen =
      symmetric_product(PatchRows<T>(y, roots.data()), triangle, check_finite && undone, threads);
  if (seen.ok()) return seen;
  const Report place = y.find_nonfinite(threads);
  return place.ok() ? seen : place;
}

template <class T>
void cross(const Patches<T>& y, const Patches<T>& z, const T* weights, Matrix<T> out, int threads) {
  const Buffer<T> scale = spread_weights(weights, y.samples(), y.positions(), false);
  product(PatchRows<T>(y, scale.data()), PatchRows<T>(z), out, threads);
}

#define FASTFISHER_INSTANTIATE(S, T) \
  template std::unique_ptr<Patches<T>> make_patches(const S*, const Index(&)[4], const Geometry&);
FASTFISHER_FOR_STORED(FASTFISHER_INSTANTIATE)
#undef FASTFISHER_INSTANTIATE
#define FASTFISHER_INSTANTIATE(T)                                               \
  template Buffer<T> spread_weights(const T*, Index, Index, bool);              \
  template Report add_moment(const Patches<T>&, const T*, T*, bool, bool, int); \
  template void cross(const Patches<T>&, const Patches<T>&, const T*, Matrix<T>, int);
FASTFISHER_INSTANTIATE(double)
FASTFISHER_INSTANTIATE(float)
#undef FASTFISHER_INSTANTIATE

}  // namespace fastfisher
