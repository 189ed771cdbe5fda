// Patches: one side of a layer, whose rows are gathered from images while they are packed.
#pragma once

#include <memory>

#include "source.hpp"

namespace fastfisher {

// What a kernel sees of each sample's image (channels, height, width): a patch for each place of
// the grid, zero where it hangs over into the padding. Pairs are (down, across).
struct Geometry {
  Index samples, channels, size[2];
  Index kernel[2], stride[2], padding[2], dilation[2];
  bool ones;  // the patch is followed by a 1

  Index grid(int axis) const {
    return (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) /
               stride[axis] +
           1;
  }
  Index positions() const { return grid(0) * grid(1); }
  Index rows() const { return samples * positions(); }
  Index window() const { return kernel[0] * kernel[1]; }
  Index gathered() const { return channels * window(); }
  Index width() const { return gathered() + (ones ? 1 : 0); }
};

// Rows y_it (rows, width), row i·T + t for position t of sample i, in C order of (channel, kernel
// row, kernel column), then 1 with `ones`: np.lib.stride_tricks.sliding_window_view, never formed.
template <class T>
class Patches {
 public:
  explicit Patches(const Geometry& geometry) : geometry_(geometry) {}
  virtual ~Patches() = default;
  const Geometry& geometry() const { return geometry_; }
  Index samples() const { return geometry_.samples; }
  Index positions() const { return geometry_.positions(); }
  Index width() const { return geometry_.width(); }

  // Numbers of scratch that pack_rows takes.
  virtual Index room() const = 0;
  // As pack_panels: Y[k, j] = scale[k] · y_k[j], scale (rows,) or null.
  virtual void pack_rows(const T* scale, Index k0, Index depth, Index panel0, Index panels, T* out,
                         Index stride, T* room) const = 0;
  // As pack_panels: Y[k, j] = y_{first + j}[k] for j < count.
  virtual void pack_columns(Index first, Index count, Index k0, Index depth, Index panel0,
                            Index panels, T* out, Index stride) const = 0;
  // out[i, :] = scale Σ_t y_it, out (samples, width). Parallel over samples; summed in double.
  virtual void sum_positions(double scale, Matrix<T> out, int threads) const = 0;
  // Names the first sample and channel with a NaN or infinity. One read of x, in parallel.
  virtual Report find_nonfinite(int threads) const = 0;

 private:
  Geometry geometry_;
};

// Patches of images x (samples, channels, height, width) of any element strides, not copied.
template <class T, class S>
std::unique_ptr<Patches<T>> make_patches(const S* x, const Index (&strides)[4],
                                         const Geometry& geometry);

// The rows as they are: (rows, width).
template <class T>
class PatchRows final : public Source<T> {
 public:
  explicit PatchRows(const Patches<T>& y, const T* scale = nullptr) : y_(y), scale_(scale) {}
  Index depth() const override { return y_.geometry().rows(); }
  Index columns() const override { return y_.width(); }
  Index room() const override { return y_.room(); }
  void pack(Index k0, Index depth, Index panel0, Index panels, T* out, Index stride,
            T* room) const override {
    y_.pack_rows(scale_, k0, depth, panel0, panels, out, stride, room);
  }

 private:
  const Patches<T>& y_;
  const T* scale_;
};

// Some rows as columns: (width, count).
template <class T>
class PatchColumns final : public Source<T> {
 public:
  PatchColumns(const Patches<T>& y, Index first, Index count)
      : y_(y), first_(first), count_(count) {}
  explicit PatchColumns(const Patches<T>& y) : PatchColumns(y, 0, y.geometry().rows()) {}
  Index depth() const override { return y_.width(); }
  Index columns() const override { return count_; }
  void pack(Index k0, Index depth, Index panel0, Index panels, T* out, Index stride,
            T*) const override {
    y_.pack_columns(first_, count_, k0, depth, panel0, panels, out, stride);
  }

 private:
  const Patches<T>& y_;
  Index first_, count_;
};

// scale[i·T + t] = weights[i] or its root; empty without weights.
template <class T>
Buffer<T> spread_weights(const T* weights, Index samples, Index positions, bool root);

// triangle += Σ_it w_i y_it y_itᵀ, of size `width`; np.tril(Y.T @ (w[:, None] * Y)).
// On the product engine, packed from the images: rows · width · (width + 1) flops. `fresh` and
// failure as in accumulate (fisher.hpp), where row and column are a sample and a channel. Same bits
// for any thread count.
template <class T>
Report add_moment(const Patches<T>& y, const T* weights, T* triangle, bool fresh, bool check_finite,
                  int threads);

// out = Σ_it w_i y_it z_itᵀ, out (width of y, width of z): Y.T @ (w[:, None] * Z).
template <class T>
void cross(const Patches<T>& y, const Patches<T>& z, const T* weights, Matrix<T> out, int threads);

}  // namespace fastfisher
