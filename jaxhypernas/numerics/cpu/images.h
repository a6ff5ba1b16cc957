// Images, NHWC, as layers read them.
#pragma once

#include <cstring>

#include "vectors.h"

namespace jaxhypernas {

// Images in memory, and the function of their values that layers read:
// (value - shift) * scale where there is a shift, then ReLU if `relu`.
template <class T>
struct Images {
  const T* data;
  Int B, H, W, C;
  Int stride;  // From one position to the next.
  bool relu = false;
  // Of padded channels, as the stride then is; nullptr: values are read as they
  // are.
  const T *shift = nullptr, *scale = nullptr;

  const T* image(Int b) const { return data + b * H * W * stride; }
};

// Writes image b into `out`, where positions are `stride` apart, `above` rows
// and `left` columns from the corner, `across` columns more than the image has.
// The caller sets the border to zero.
template <class T>
void fill(const Images<T>& x, Int b, Int above, Int left, Int across,
          Int stride, T* out) {
  for (Int h = 0; h < x.H; ++h) {
    const T* from = x.image(b) + h * x.W * x.stride;
    T* to = out + ((h + above) * (x.W + across) + left) * stride;
    if (x.shift != nullptr) {
      for (Int w = 0; w < x.W; ++w)
        for (Int c = 0; c < x.stride; c += kLanes<T>) {
          V<T> v = load(from + w * x.stride + c);
          v = (v - load(x.shift + c)) * load(x.scale + c);
          store(to + w * stride + c, x.relu ? (v < 0 ? V<T>{} : v) : v);
        }
    } else if (stride == x.stride) {
      const Int n = x.W * stride;
      if (x.relu)
        for (Int i = 0; i < n; ++i) to[i] = from[i] < 0 ? 0 : from[i];
      else
        std::memcpy(to, from, n * sizeof(T));
    } else {
      for (Int w = 0; w < x.W; ++w)
        for (Int c = 0; c < x.C; ++c) {
          const T v = from[w * x.stride + c];
          to[w * stride + c] = x.relu && v < 0 ? 0 : v;
        }
    }
  }
}

// The gradient of ReLU: sets dx of image b, positions `stride` apart, to 0
// where ReLU gives 0.
template <class T>
void mask(const Images<T>& x, Int b, T* dx, Int stride) {
  const T* of = x.image(b);
  if (stride == x.stride && x.shift == nullptr) {
    for (Int i = 0; i < x.H * x.W * stride; ++i) dx[i] = of[i] > 0 ? dx[i] : 0;
    return;
  }
  for (Int i = 0; i < x.H * x.W; ++i)
    for (Int c = 0; c < x.C; ++c)
      if (!(of[i * x.stride + c] > (x.shift != nullptr ? x.shift[c] : T(0))))
        dx[i * stride + c] = 0;
}

}  // namespace jaxhypernas
