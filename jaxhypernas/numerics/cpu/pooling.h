// Pooling of one image, 3 x 3 windows, stride 1, and its gradient.
#pragma once

#include <algorithm>
#include <limits>

#include "vectors.h"

namespace jaxhypernas {

// Positions of a window of three around i that lie in 0 .. n - 1.
inline Int inside(Int i, Int n) { return 1 + (i > 0) + (i + 1 < n); }

// Sums of 3 x 3 windows, or their largest values; `row` has (W + 2) * C values.
template <class T, bool kMax>
void pool_image(const T* x, Int H, Int W, Int C, T* row, T* out) {
  const T outside = kMax ? -std::numeric_limits<T>::infinity() : T(0);
  const Int n = W * C;
  std::fill_n(row, n + 2 * C, outside);
  for (Int h = 0; h < H; ++h) {
    const T *here = x + h * n, *up = h > 0 ? here - n : nullptr,
            *down = h + 1 < H ? here + n : nullptr;
    T* middle = row + C;
    std::copy_n(here, n, middle);
    for (const T* other : {up, down})
      if (other != nullptr)
        for (Int i = 0; i < n; ++i)
          middle[i] =
              kMax ? std::max(middle[i], other[i]) : middle[i] + other[i];
    T* to = out + h * n;
    for (Int i = 0; i < n; ++i)
      to[i] = kMax ? std::max(std::max(row[i], row[i + C]), row[i + 2 * C])
                   : row[i] + row[i + C] + row[i + 2 * C];
  }
}

// Divides sums of windows by the number of their positions inside the image.
template <class T>
void divide(Int H, Int W, Int C, T* x) {
  for (Int h = 0; h < H; ++h)
    for (Int w = 0; w < W; ++w) {
      const T by = T(1) / T(inside(h, H) * inside(w, W));
      for (Int c = 0; c < C; ++c) x[(h * W + w) * C + c] *= by;
    }
}

// The gradient of the largest of three values along one axis: the larger of the
// first two, then of that and the third. Where two are equal, each gets half.
template <class T>
void max_gradient(const T* x, const T* g, Int lines, Int length, Int step,
                  Int apart, Int C, T* dx) {
  const T outside = -std::numeric_limits<T>::infinity();
  const auto share = [](T a, T b) {
    return a > b ? T(1) : a < b ? T(0) : T(0.5);
  };
  std::fill_n(dx, lines * length * C, T(0));
  for (Int j = 0; j < lines; ++j)
    for (Int i = 0; i < length; ++i)
      for (Int c = 0; c < C; ++c) {
        const Int at = j * apart + i * step + c;
        const T a = i > 0 ? x[at - step] : outside, b = x[at],
                d = i + 1 < length ? x[at + step] : outside;
        const T first = share(std::max(a, b), d), of_a = first * share(a, b);
        if (i > 0) dx[at - step] += g[at] * of_a;
        dx[at] += g[at] * (first - of_a);
        if (i + 1 < length) dx[at + step] += g[at] * (1 - first);
      }
}

}  // namespace jaxhypernas
