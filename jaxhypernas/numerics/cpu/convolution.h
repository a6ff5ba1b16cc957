// Dense convolutions of one image, and the gradient of their kernels.
#pragma once

#include <algorithm>
#include <type_traits>

#include "kernel.h"
#include "winograd.h"

namespace jaxhypernas {

template <class T, int N>
void conv_direct(const T* x, Int across, Int pixel, Int stride,
                 const Kernel<T>& w, Int H, Int W, T* y) {
  // Where positions touch, a row of the kernel is one column with L * I inputs.
  const bool joined = pixel == w.I;
  const Int L = joined ? 1 : w.L, I = joined ? w.L * w.I : w.I,
            row = across * pixel, step = stride * pixel;
  // No pair of positions may cross the end of a row.
  const Int lines = W % 2 == 0 ? 1 : H;
  const Int n = H * W / lines;
  for (Int start = 0; start < w.O; start += w.block)
    for (Int h = 0; h < lines; ++h) {
      const auto place = [&](Int i) {
        return x + (h * n + i) / W * stride * row + (h * n + i) % W * step;
      };
      line<T, N>(n, place, step, row, pixel, w.K, L, I,
                 w.data + start * w.K * w.L * w.I, y + h * n * w.O + start,
                 w.O);
    }
}

// y: H x W x w.O of an image with a border, `across` positions in a row,
// `pixel` values in each.
template <class T>
void conv_image(const T* x, Int across, Int pixel, Int stride,
                const Kernel<T>& w, Int H, Int W, T* y) {
  const bool two = w.block == 2 * kLanes<T>;
  if (w.winograd)
    two ? conv_winograd<T, 2>(x, across, pixel, w, H, W, y)
        : conv_winograd<T, 1>(x, across, pixel, w, H, W, y);
  else
    two ? conv_direct<T, 2>(x, across, pixel, stride, w, H, W, y)
        : conv_direct<T, 1>(x, across, pixel, stride, w, H, W, y);
}

// Adds to dw the products of M inputs with N vectors of outputs, summed over H
// x W positions in registers.
template <class T, int M, int N>
inline void taps(const T* x, Int x_step, Int x_row, const T* g, Int g_step,
                 Int g_row, Int H, Int W, T* dw, Int O) {
  V<T> sum[M][N] = {};
  for (Int h = 0; h < H; ++h)
    for (Int w = 0; w < W; ++w) {
      V<T> of[N];
      for (int n = 0; n < N; ++n)
        of[n] = load(g + h * g_row + w * g_step + n * kLanes<T>);
      const T* from = x + h * x_row + w * x_step;
      for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) sum[m][n] += from[m] * of[n];
    }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n)
      store(dw + m * O + n * kLanes<T>,
            load(dw + m * O + n * kLanes<T>) + sum[m][n]);
}

// Adds the gradient with respect to a kernel, K x L x I x O (padded), of one
// image: x with a border, `across` positions in a row; g of H x W positions,
// `g_step` apart, in rows `g_row` apart.
template <class T>
void conv_taps(const T* x, Int across, Int pixel, Int stride, const T* g,
               Int g_step, Int g_row, Int H, Int W, Int K, Int L, Int I, Int O,
               T* dw) {
  // Positions for which sums stay in registers.
  constexpr Int kLong = 32;
  const Int rows = std::max<Int>(1, kLong / W), x_step = stride * pixel,
            x_row = stride * across * pixel;
  for (Int h = 0; h < H; h += rows) {
    const Int height = std::min(rows, H - h);
    for (Int k = 0; k < K; ++k)
      for (Int l = 0; l < L; ++l)
        for (Int o = 0; o < O;) {
          const bool two = o + 2 * kLanes<T> <= O;
          Int i = 0;
          auto run = [&](auto M) {
            for (; i + M <= I; i += M) {
              const T* from = x + h * x_row + (k * across + l) * pixel + i;
              T* to = dw + ((k * L + l) * I + i) * O + o;
              if (two)
                taps<T, M, 2>(from, x_step, x_row, g + h * g_row + o, g_step,
                              g_row, height, W, to, O);
              else
                taps<T, M, 1>(from, x_step, x_row, g + h * g_row + o, g_step,
                              g_row, height, W, to, O);
            }
          };
          run(std::integral_constant<int, kPositions>());
          run(std::integral_constant<int, 4>());
          run(std::integral_constant<int, 1>());
          o += two ? 2 * kLanes<T> : kLanes<T>;
        }
  }
}

}  // namespace jaxhypernas
