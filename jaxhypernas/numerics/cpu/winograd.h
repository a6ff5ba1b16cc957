// 3 x 3 convolutions of even images by Winograd's F(2x2, 3x3) (Lavin and Gray
// 2016): 16 products for four outputs in place of 36. Tiles of 4 x 4 inputs,
// which overlap by two, are transformed, multiplied value by value, summed over
// inputs and transformed back. `Kernel` transforms the weights.
#pragma once

#include <algorithm>

#include "kernel.h"

namespace jaxhypernas {

// y: H x W x w.O, both even, of an image with a border, `across` positions in a
// row, `pixel` values in each.
template <class T, int N>
void conv_winograd(const T* x, Int across, Int pixel, const Kernel<T>& w, Int H,
                   Int W, T* y) {
  T* inputs = scratch<T>(kTileInputs, kTile * kTiles * w.I);
  T* products = scratch<T>(kTileProducts, kTile * kTiles * w.O);
  const Int tiles = H / 2 * (W / 2);
  for (Int first = 0; first < tiles; first += kTiles) {
    const Int n = std::min<Int>(kTiles, tiles - first);
    for (Int t = 0; t < n; ++t) {
      const T* from =
          x + ((first + t) / (W / 2) * 2 * across + (first + t) % (W / 2) * 2) *
                  pixel;
      for (Int c = 0; c < w.I; c += kLanes<T>) {
        V<T> rows[4][4];
        for (int l = 0; l < 4; ++l) {
          const auto at = [&](int k) {
            return load(from + (k * across + l) * pixel + c);
          };
          rows[0][l] = at(0) - at(2), rows[1][l] = at(1) + at(2),
          rows[2][l] = at(2) - at(1), rows[3][l] = at(1) - at(3);
        }
        for (int k = 0; k < 4; ++k) {
          const V<T>(&r)[4] = rows[k];
          const V<T> values[4] = {r[0] - r[2], r[1] + r[2], r[2] - r[1],
                                  r[1] - r[3]};
          for (int l = 0; l < 4; ++l)
            store(inputs + ((k * 4 + l) * kTiles + t) * w.I + c, values[l]);
        }
      }
    }
    for (int v = 0; v < kTile; ++v)
      for (Int start = 0; start < w.O; start += w.block) {
        const auto place = [&](Int t) {
          return inputs + (v * kTiles + t) * w.I;
        };
        line<T, N>(n, place, w.I, 0, 0, 1, 1, w.I,
                   w.data + v * w.I * w.O + start * w.I,
                   products + v * kTiles * w.O + start, w.O);
      }
    for (Int t = 0; t < n; ++t) {
      T* to =
          y + ((first + t) / (W / 2) * 2 * W + (first + t) % (W / 2) * 2) * w.O;
      for (Int o = 0; o < w.O; o += kLanes<T>) {
        V<T> rows[2][4];
        for (int l = 0; l < 4; ++l) {
          const auto at = [&](int k) {
            return load(products + ((k * 4 + l) * kTiles + t) * w.O + o);
          };
          rows[0][l] = at(0) + at(1) + at(2),
          rows[1][l] = at(1) - at(2) - at(3);
        }
        for (int k = 0; k < 2; ++k) {
          const V<T>(&r)[4] = rows[k];
          store(to + k * W * w.O + o, r[0] + r[1] + r[2]);
          store(to + (k * W + 1) * w.O + o, r[1] - r[2] - r[3]);
        }
      }
    }
  }
}

}  // namespace jaxhypernas
