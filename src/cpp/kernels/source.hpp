// Source: one side of a product that packs itself, whatever its numbers are made from.
#pragma once

#include "pack.hpp"

namespace fastfisher {

// A matrix Y (depth, columns) that exists only in packed pieces. One indirect call per piece of
// some hundred rows costs nothing, and spares an engine for every pair of types.
template <class T>
class Source {
 public:
  virtual ~Source() = default;
  virtual Index depth() const = 0;
  virtual Index columns() const = 0;
  // Numbers of scratch that a thread lends to `pack`.
  virtual Index room() const { return 0; }
  // As pack_panels (pack.hpp): rows [k0, k0 + depth) of panels [panel0, panel0 + panels).
  virtual void pack(Index k0, Index depth, Index panel0, Index panels, T* out, Index stride,
                    T* room) const = 0;
};

// A matrix that lies in memory, weighed and widened while packing.
template <class T, class S = T>
class OperandSource final : public Source<T> {
 public:
  explicit OperandSource(const Operand<T, S>& Y) : Y_(Y) {}
  Index depth() const override { return Y_.depth(); }
  Index columns() const override { return Y_.columns(); }
  void pack(Index k0, Index depth, Index panel0, Index panels, T* out, Index stride,
            T*) const override {
    pack_panels(Y_, k0, depth, panel0, panels, out, stride);
  }

 private:
  Operand<T, S> Y_;
};

// scale[k] · Y[k, j]²; scale null for ones.
template <class T>
class Squares final : public Source<T> {
 public:
  Squares(const Source<T>& Y, const T* scale) : Y_(Y), scale_(scale) {}
  Index depth() const override { return Y_.depth(); }
  Index columns() const override { return Y_.columns(); }
  Index room() const override { return Y_.room(); }
  void pack(Index k0, Index depth, Index panel0, Index panels, T* out, Index stride,
            T* room) const override {
    constexpr Index W = kPanel<T>, L = kLanes<T>, unit = L > kColumns ? L : kColumns;
    Y_.pack(k0, depth, panel0, panels, out, stride, room);
    for (Index i = 0; i < panels; ++i) {
      const Index rest = Y_.columns() - (panel0 + i) * W;
      const Index used = rest >= W ? W : ceil_div(rest, unit) * unit;
      T* row = out + i * stride;
      for (Index k = 0; k < depth; ++k, row += W) {
        const Vec<T> scale = Vec<T>::broadcast(scale_ ? scale_[k0 + k] : T(1));
        for (Index r = 0; r < used; r += L) {
          const Vec<T> y = Vec<T>::load(row + r);
          (y * y * scale).store(row + r);
        }
      }
    }
  }

 private:
  const Source<T>& Y_;
  const T* scale_;
};

// Scratch for the packing of several threads.
template <class T>
class Rooms {
 public:
  Rooms(int threads, Index room) : room_(ceil_div(room, 16) * 16), data_(threads * room_) {}
  T* of(int thread) { return data_.data() + thread * room_; }

 private:
  Index room_;
  Buffer<T> data_;
};

}  // namespace fastfisher
