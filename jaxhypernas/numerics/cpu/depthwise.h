// Depthwise convolutions of one image, and the gradient of their kernels.
#pragma once

#include "vectors.h"

namespace jaxhypernas {

// y: H x W x stride of an image with a border, `across` positions in a row: K x
// K taps of `stride` channels each, `dilation` positions apart.
template <class T>
void deep_image(const T* x, Int across, Int stride, const T* w, Int K,
                Int dilation, Int H, Int W, T* y) {
  for (Int h = 0; h < H; ++h)
    for (Int p = 0; p < W; ++p)
      for (Int c = 0; c < stride; c += kLanes<T>) {
        V<T> sum = {};
        for (Int k = 0; k < K; ++k)
          for (Int l = 0; l < K; ++l)
            sum +=
                load(x +
                     ((h + k * dilation) * across + p + l * dilation) * stride +
                     c) *
                load(w + (k * K + l) * stride + c);
        store(y + (h * W + p) * stride + c, sum);
      }
}

// Adds the gradient with respect to the taps to dw; g has no border.
template <class T>
void deep_taps(const T* x, Int across, Int stride, const T* g, Int K,
               Int dilation, Int H, Int W, T* dw) {
  for (Int k = 0; k < K; ++k)
    for (Int l = 0; l < K; ++l)
      for (Int c = 0; c < stride; c += kLanes<T>) {
        V<T> sum = {};
        for (Int h = 0; h < H; ++h)
          for (Int p = 0; p < W; ++p)
            sum +=
                load(x +
                     ((h + k * dilation) * across + p + l * dilation) * stride +
                     c) *
                load(g + (h * W + p) * stride + c);
        store(dw + (k * K + l) * stride + c,
              load(dw + (k * K + l) * stride + c) + sum);
      }
}

}  // namespace jaxhypernas
