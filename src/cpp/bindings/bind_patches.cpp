// Doors of patches, and of the scores of a layer, which two of them make.
#include "../kernels/patches.hpp"

#include <array>

#include "../kernels/layer.hpp"
#include "../kernels/product.hpp"
#include "arrays.hpp"

namespace fastfisher::bindings {

namespace {

// (kernel, stride, padding, dilation), down and across each, and whether a 1 follows.
using Recipe = std::array<Index, 9>;

// Reads a 4-D array of any strides: f(data, strides, shape) with the type it is stored in.
template <class F>
auto with_images(const py::array& x, const char* name, F f) {
  if (x.ndim() != 4) refuse(name, "shape (any, any, any, any)", shape_text(x));
  const auto read = [&](auto zero) {
    using S = decltype(zero);
    Index strides[4], shape[4];
    if (reinterpret_cast<std::uintptr_t>(x.data()) % alignof(S) != 0)
      refuse(name, "an aligned array", "a misaligned one; pass a copy");
    for (int k = 0; k < 4; ++k) {
      shape[k] = x.shape(k);
      strides[k] = shape[k] <= 1 ? 0 : x.strides(k) / static_cast<Index>(sizeof(S));
      if (shape[k] > 1 && x.strides(k) % static_cast<Index>(sizeof(S)) != 0)
        refuse(name, "strides that are whole elements",
               std::to_string(x.strides(k)) + " bytes; pass a copy");
    }
    for (int k = 3; k >= 0; --k)  // an axis of length 1: whatever keeps the array in one run
      if (shape[k] <= 1) strides[k] = k == 3 ? 1 : strides[k + 1] * shape[k + 1];
    return f(static_cast<const S*>(x.data()), strides, shape);
  };
  if (py::isinstance<Array<double>>(x)) return read(double{});
  if (py::isinstance<Array<float>>(x)) return read(float{});
  if (py::isinstance<Array<Float16>>(x)) return read(Float16{});
  if (py::isinstance<Array<BFloat16>>(x)) return read(BFloat16{});
  throw py::type_error(std::string(name) + ": expected float64, float32, float16 or the bits of " +
                       "bfloat16, got " + std::string(py::str(x.dtype())) + ".");
}

template <class T>
std::unique_ptr<Patches<T>> read_patches(const py::array& x, const Recipe& recipe,
                                         const char* name) {
  return with_images(
      x, name,
      [&](const auto* data, const Index(&strides)[4],
          const Index(&shape)[4]) -> std::unique_ptr<Patches<T>> {
        const auto& r = recipe;
        const Geometry geometry{shape[0],     shape[1],     {shape[2], shape[3]}, {r[0], r[1]},
                                {r[2], r[3]}, {r[4], r[5]}, {r[6], r[7]},         r[8] != 0};
        for (int axis = 0; axis < 2; ++axis)
          if (r[axis] < 1 || r[2 + axis] < 1 || r[4 + axis] < 0 || r[6 + axis] < 1 ||
              r[6 + axis] * (r[axis] - 1) + 1 > shape[2 + axis] + 2 * r[4 + axis])
            refuse(name, "a kernel that fits the padded image", shape_text(x));
        using S = std::decay_t<decltype(*data)>;
        if constexpr (sizeof(S) > sizeof(T))
          throw py::type_error(std::string(name) + ": expected float32 or narrower, got float64.");
        else
          return make_patches<T, S>(data, strides, geometry);
      });
}

// Both sides of a layer.
template <class T>
struct Sides {
  std::unique_ptr<Patches<T>> a, g;
  Sides(const py::array& inputs, const Recipe& inputs_recipe, const py::array& gradients,
        const Recipe& gradients_recipe)
      : a(read_patches<T>(inputs, inputs_recipe, "a")),
        g(read_patches<T>(gradients, gradients_recipe, "g")) {
    if (a->samples() != g->samples() || a->positions() != g->positions())
      refuse("g", std::to_string(a->samples()) + " samples of " + std::to_string(a->positions()),
             std::to_string(g->samples()) + " of " + std::to_string(g->positions()));
  }
};

template <class T>
void register_patches_of(py::module_& m) {
  m.def(
      "patches_moment",
      [](const py::array& x, const Recipe& recipe, const OptionalArray<T>& weights,
         Array<T> triangle, bool fresh, bool check_finite, int threads) {
        const auto y = read_patches<T>(x, recipe, "x");
        const T* w = read_vector(weights, y->samples(), "weights");
        T* to = write_vector(triangle, triangle_size<T>(y->width()), "triangle");
        Report report;
        {
          const WithoutGil unlocked;
          report = add_moment(*y, w, to, fresh, check_finite, threads);
        }
        return report_tuple(report);
      },
      py::arg("x"), py::arg("recipe"), array("weights"), array("triangle"), py::arg("fresh"),
      py::arg("check_finite"), py::arg("threads"));
  m.def(
      "patches_cross",
      [](const py::array& a, const Recipe& a_recipe, const py::array& g, const Recipe& g_recipe,
         const OptionalArray<T>& weights, Array<T> out, int threads) {
        const Sides<T> sides(a, a_recipe, g, g_recipe);
        const T* w = read_vector(weights, sides.a->samples(), "weights");
        const auto to = write_matrix(out, sides.a->width(), sides.g->width(), "out");
        const WithoutGil unlocked;
        cross(*sides.a, *sides.g, w, to, threads);
      },
      py::arg("a"), py::arg("a_recipe"), py::arg("g"), py::arg("g_recipe"), array("weights"),
      array("out"), py::arg("threads"));
  m.def(
      "patches_sum",
      [](const py::array& x, const Recipe& recipe, double scale, Array<T> out, int threads) {
        const auto y = read_patches<T>(x, recipe, "x");
        const auto to = write_matrix(out, y->samples(), y->width(), "out");
        const WithoutGil unlocked;
        y->sum_positions(scale, to, threads);
      },
      py::arg("x"), py::arg("recipe"), py::arg("scale"), array("out"), py::arg("threads"));
}

template <class T>
void register_layer_of(py::module_& m) {
  m.def(
      "layer_dot",
      [](const py::array& a, const Recipe& a_recipe, const py::array& g, const Recipe& g_recipe,
         const Array<T>& V, Array<T> out, int threads) {
        const Sides<T> sides(a, a_recipe, g, g_recipe);
        const Index d_out = sides.g->width(), d_in = sides.a->width();
        const auto v = read_matrix(V, d_out * d_in, kAny, "V");
        auto to = write_matrix(out, sides.a->samples(), v.cols(), "out");
        const WithoutGil unlocked;
        for (Index k = 0; k < v.cols(); ++k)
          layer_dot(*sides.a, *sides.g,
                    ConstMatrix<T>(v.data() + k * v.colStride(), d_out, d_in,
                                   Strides(d_in * v.rowStride(), v.rowStride())),
                    to.data() + k * to.colStride(), to.rowStride(), threads);
      },
      py::arg("a"), py::arg("a_recipe"), py::arg("g"), py::arg("g_recipe"), array("V"),
      array("out"), py::arg("threads"));
  m.def(
      "layer_squares",
      [](const py::array& a, const Recipe& a_recipe, const py::array& g, const Recipe& g_recipe,
         const OptionalArray<T>& weights, const OptionalArray<T>& U_g, const OptionalArray<T>& U_a,
         Array<T> out, int threads) {
        const Sides<T> sides(a, a_recipe, g, g_recipe);
        const Index d_out = sides.g->width(), d_in = sides.a->width();
        const T* w = read_vector(weights, sides.a->samples(), "weights");
        auto to = write_matrix(out, d_out, d_in, "out");
        if (!U_a || !U_g) {
          const WithoutGil unlocked;
          return layer_squares(*sides.a, *sides.g, w, to, threads);
        }
        const auto left = read_matrix(*U_g, d_out, d_out, "U_g"),
                   right = read_matrix(*U_a, d_in, d_in, "U_a");
        const WithoutGil unlocked;
        layer_squares_rotated(*sides.a, *sides.g, w, right, left, to, threads);
      },
      py::arg("a"), py::arg("a_recipe"), py::arg("g"), py::arg("g_recipe"), array("weights"),
      array("U_g"), array("U_a"), array("out"), py::arg("threads"));
  m.def(
      "layer_gram",
      [](const py::array& a, const Recipe& a_recipe, const py::array& g, const Recipe& g_recipe,
         Array<T> triangle, int threads) {
        const Sides<T> sides(a, a_recipe, g, g_recipe);
        T* to = write_vector(triangle, triangle_size<T>(sides.a->samples()), "triangle");
        const WithoutGil unlocked;
        layer_gram(*sides.a, *sides.g, to, threads);
      },
      py::arg("a"), py::arg("a_recipe"), py::arg("g"), py::arg("g_recipe"), array("triangle"),
      py::arg("threads"));
}

}  // namespace

void register_patches(py::module_& m) {
  m.def(
      "patches_find_nonfinite",
      [](const py::array& x, int threads) {
        const bool wide = py::isinstance<Array<double>>(x);
        const auto search = [&](auto zero) {
          const auto y = read_patches<decltype(zero)>(x, {1, 1, 1, 1, 0, 0, 1, 1, 0}, "x");
          const WithoutGil unlocked;
          return y->find_nonfinite(threads);
        };
        return report_tuple(wide ? search(double{}) : search(float{}));
      },
      py::arg("x"), py::arg("threads"));
  register_patches_of<double>(m);
  register_patches_of<float>(m);
  register_layer_of<double>(m);
  register_layer_of<float>(m);
}

}  // namespace fastfisher::bindings
