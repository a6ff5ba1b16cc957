// A layer: ReLU, perhaps a depthwise convolution, a dense convolution,
// BatchNorm by the statistics of the batch; and its gradients.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "convolution.h"
#include "depthwise.h"
#include "images.h"
#include "scratch.h"

namespace jaxhypernas {

struct Layer {
  // The depthwise convolution: kernel size (0: there is none) and dilation.
  Int deep, dilation;
  // The dense convolution: height and width of its kernel, stride.
  Int K, L, stride;
};

template <class T>
struct Weights {
  const T *deep, *dense;
};

constexpr double kEpsilon = 1e-5;

// The output of a layer's convolution, and BatchNorm's statistics of it; all of
// padded channels.
template <class T>
struct Output {
  T *y, *mean, *scale;
  Int H, W, stride;
};

// One image as the dense convolution reads it, with its border.
template <class T>
struct Input {
  const T* image;
  Int across, pixel;
};

// A layer on a batch of images, with O outputs.
template <class T>
class LayerRun {
 public:
  LayerRun(const Layer& layer, const Images<T>& x, Int O)
      : layer_(layer), x_(x), O_(O) {
    reach_ = layer.deep > 0 ? layer.deep / 2 * layer.dilation : 0;
    above_ = layer.deep > 0 ? reach_ : layer.K / 2;
    left_ = layer.deep > 0 ? reach_ : layer.L / 2;
    stride_ = layer.deep > 0 || x.shift != nullptr ? padded<T>(x.C) : x.stride;
    across_ = x.W + 2 * left_;
    const size_t size = (x.H + 2 * above_) * across_ * stride_;
    image_ = scratch<T>(kImage, size);
    std::memset(image_, 0, size * sizeof(T));
    H_ = (x.H + layer.stride - 1) / layer.stride,
    W_ = (x.W + layer.stride - 1) / layer.stride;
  }

  // Scratch memory where `forward` may write. The outputs of all layers of an
  // op stay in memory: each layer has its index.
  Output<T> own_output(size_t index) const {
    const Int O = padded<T>(O_);
    return output(scratch<T>(kOutput, x_.B * H_ * W_ * O, index),
                  scratch<T>(kMean, O, index), scratch<T>(kScale, O, index));
  }

  Output<T> output(T* y, T* mean, T* scale) const {
    return {y, mean, scale, H_, W_, padded<T>(O_)};
  }

  void forward(const Weights<T>& w, const Output<T>& out) {
    const Int O = out.stride, n = H_ * W_;
    const Kernel<T> kernel(w.dense, layer_.K, layer_.L, x_.C, O_, H_, W_,
                           layer_.stride, false);
    spread(w.deep);
    std::vector<double> mean(x_.B * O), deviation(x_.B * O);
    for (Int b = 0; b < x_.B; ++b) {
      T* y = out.y + b * n * O;
      const Input<T> in = input(b);
      conv_image(in.image, in.across, in.pixel, layer_.stride, kernel, H_, W_,
                 y);
      moments(y, n, O, &mean[b * O], &deviation[b * O]);
    }
    // Chan's way of adding up means and squared deviations of images.
    for (Int o = 0; o < O; ++o) {
      double sum = 0, squares = 0;
      for (Int b = 0; b < x_.B; ++b) sum += mean[b * O + o];
      sum /= x_.B;
      for (Int b = 0; b < x_.B; ++b)
        squares +=
            deviation[b * O + o] + n * std::pow(mean[b * O + o] - sum, 2);
      out.mean[o] = T(sum);
      out.scale[o] = T(1 / std::sqrt(squares / (double(n) * x_.B) + kEpsilon));
    }
  }

  // Computes gradients from g, the gradient with respect to BatchNorm's result,
  // B x H x W x O, positions `g_stride` apart. Those of the weights are written
  // to d_deep and d_dense; no d_dense: only x's is wanted. That of x is given
  // image by image to `take(b, dx, stride)`, padded channels; nullptr: it is
  // not wanted.
  template <class Take>
  void backward(const Weights<T>& w, const Output<T>& out, const T* g,
                Int g_stride, T* d_deep, T* d_dense, Take take) {
    const Int O = out.stride, n = H_ * W_, s = layer_.stride;
    constexpr bool kTake = !std::is_same_v<Take, std::nullptr_t>;
    spread(w.deep);
    std::vector<T> mean_g(O), mean_gy(O);
    gradient_means(out, g, g_stride, mean_g.data(), mean_gy.data());

    const Int height = x_.H + layer_.K - 1, across = x_.W + layer_.L - 1;
    T* g_image = scratch<T>(kGradient, height * across * O);
    std::memset(g_image, 0, height * across * O * sizeof(T));
    T* first = g_image + (layer_.K / 2 * across + layer_.L / 2) * O;
    const Int deep_size = layer_.deep * layer_.deep * stride_,
              dense_size = layer_.K * layer_.L * x_.C * O;
    std::vector<T> deep(deep_size), dense(dense_size);
    std::optional<Kernel<T>> flipped;
    T* dx = nullptr;
    if constexpr (kTake) {
      flipped.emplace(w.dense, layer_.K, layer_.L, x_.C, O_, x_.H, x_.W, 1,
                      true);
      dx = scratch<T>(kGradientImage, x_.H * x_.W * flipped->O);
    }

    for (Int b = 0; b < x_.B; ++b) {
      const T* of = wide(g + b * n * g_stride, n, g_stride, O);
      const T* y = out.y + b * n * O;
      for (Int h = 0; h < H_; ++h)
        for (Int p = 0; p < W_; ++p)
          for (Int c = 0; c < O; c += kLanes<T>) {
            const Int at = (h * W_ + p) * O + c;
            const V<T> scale = load(out.scale + c);
            const V<T> centred = (load(y + at) - load(out.mean + c)) * scale;
            store(first + (h * across + p) * s * O + c,
                  scale * (load(of + at) - load(&mean_g[c]) -
                           centred * load(&mean_gy[c])));
          }
      if (d_dense != nullptr) {
        const Input<T> in = input(b);
        conv_taps(in.image, in.across, in.pixel, s, first, s * O,
                  s * across * O, H_, W_, layer_.K, layer_.L, x_.C, O,
                  dense.data());
      }
      if constexpr (kTake) {
        conv_image(g_image, across, O, 1, *flipped, x_.H, x_.W, dx);
        if (layer_.deep > 0) through_deep(dx, deep.data());
        if (x_.relu) mask(x_, b, dx, flipped->O);
        take(b, dx, flipped->O);
      }
    }
    if (d_dense != nullptr)
      for (Int i = 0; i < layer_.K * layer_.L * x_.C; ++i)
        std::copy_n(&dense[i * O], O_, d_dense + i * O_);
    for (Int i = 0; i < layer_.deep * layer_.deep; ++i)
      std::copy_n(&deep[i * stride_], x_.C, d_deep + i * x_.C);
  }

 private:
  // Copies the depthwise kernel to padded channels.
  void spread(const T* deep) {
    if (layer_.deep == 0) return;
    const Int size = layer_.deep * layer_.deep;
    taps_ = scratch<T>(kTaps, size * stride_);
    std::fill_n(taps_, size * stride_, T(0));
    for (Int i = 0; i < size; ++i)
      std::copy_n(deep + i * x_.C, x_.C, taps_ + i * stride_);
  }

  // Image b, after its depthwise convolution if there is one.
  Input<T> input(Int b) {
    fill(x_, b, above_, left_, 2 * left_, stride_, image_);
    if (layer_.deep == 0) return {image_, across_, stride_};
    T* deep = scratch<T>(kDeep, x_.H * x_.W * stride_);
    deep_image(image_, across_, stride_, taps_, layer_.deep, layer_.dilation,
               x_.H, x_.W, deep);
    return {deep, x_.W, stride_};
  }

  // Turns g, the gradient with respect to the depthwise convolution's output,
  // into that of its input; adds that of its kernel to d_deep.
  void through_deep(T* g, T* d_deep) {
    deep_taps(image_, across_, stride_, g, layer_.deep, layer_.dilation, x_.H,
              x_.W, d_deep);
    const Int size = layer_.deep * layer_.deep;
    T* border =
        scratch<T>(kDeepGradient, (x_.H + 2 * reach_) * across_ * stride_);
    std::memset(border, 0, (x_.H + 2 * reach_) * across_ * stride_ * sizeof(T));
    fill(Images<T>{g, 1, x_.H, x_.W, stride_, stride_}, 0, reach_, reach_,
         2 * reach_, stride_, border);
    T* mirrored = scratch<T>(kTapsGradient, size * stride_);
    for (Int i = 0; i < size; ++i)
      std::copy_n(taps_ + (size - 1 - i) * stride_, stride_,
                  mirrored + i * stride_);
    deep_image(border, across_, stride_, mirrored, layer_.deep, layer_.dilation,
               x_.H, x_.W, g);
  }

  // Mean and sum of squared deviations of each channel of one image.
  static void moments(const T* y, Int n, Int O, double* mean,
                      double* deviation) {
    for (Int c = 0; c < O; c += kLanes<T>) {
      const auto at = [&](Int i) { return load(y + i * O + c); };
      const V<T> centre = add_up<T>(n, at) / T(n);
      const V<T> squares = add_up<T>(
          n, [&](Int i) { return (at(i) - centre) * (at(i) - centre); });
      for (Int k = 0; k < kLanes<T>; ++k)
        mean[c + k] = centre[k], deviation[c + k] = squares[k];
    }
  }

  // g with positions O values apart; copied where they are not.
  static const T* wide(const T* g, Int n, Int stride, Int O) {
    if (stride == O) return g;
    T* to = scratch<T>(kWide, n * O);
    std::fill_n(to, n * O, T(0));
    for (Int i = 0; i < n; ++i)
      std::copy_n(g + i * stride, std::min(stride, O), to + i * O);
    return to;
  }

  // Means over images and positions of g, and of g times the normalised output.
  void gradient_means(const Output<T>& out, const T* g, Int g_stride, T* mean_g,
                      T* mean_gy) {
    const Int O = out.stride, n = H_ * W_;
    std::vector<double> sum(O), product(O);
    for (Int b = 0; b < x_.B; ++b) {
      const T* of = wide(g + b * n * g_stride, n, g_stride, O);
      const T* y = out.y + b * n * O;
      for (Int c = 0; c < O; c += kLanes<T>) {
        const V<T> mean = load(out.mean + c), scale = load(out.scale + c);
        const auto at = [&](Int i) { return load(of + i * O + c); };
        const V<T> a = add_up<T>(n, at);
        const V<T> ay = add_up<T>(n,
                                  [&](Int i) {
                                    return at(i) * (load(y + i * O + c) - mean);
                                  }) *
                        scale;
        for (Int k = 0; k < kLanes<T>; ++k)
          sum[c + k] += a[k], product[c + k] += ay[k];
      }
    }
    for (Int o = 0; o < O; ++o)
      mean_g[o] = T(sum[o] / (n * x_.B)),
      mean_gy[o] = T(product[o] / (n * x_.B));
  }

  const Layer layer_;
  const Images<T> x_;
  const Int O_;
  Int reach_, above_, left_, stride_, across_, H_, W_;
  T *image_, *taps_ = nullptr;
};

}  // namespace jaxhypernas
