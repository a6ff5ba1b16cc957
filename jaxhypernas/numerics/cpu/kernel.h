// Kernels laid out for vectors, and products of positions with them.
#pragma once

#include <type_traits>

#include "scratch.h"
#include "vectors.h"

namespace jaxhypernas {

// Winograd's F(2x2, 3x3): values of a tile, and tiles that are computed at
// once.
constexpr int kTile = 16;
constexpr int kTiles = 8;

// A kernel K x L x I x O, its outputs in blocks of one or two vectors. With
// `flip` it is the kernel of the gradient with respect to images: mirrored, and
// inputs and outputs change places.
template <class T>
struct Kernel {
  Int K, L, I, O, block;
  bool winograd;
  // [tile value][block][I][in block] with Winograd's transform, otherwise
  // [block][K][L][I][in block].
  T* data;

  Kernel(const T* w, Int K, Int L, Int I_, Int O_, Int H, Int W, Int stride,
         bool flip)
      : K(K), L(L), I(flip ? O_ : I_), O(padded<T>(flip ? I_ : O_)) {
    block = O % (2 * kLanes<T>) == 0 ? 2 * kLanes<T> : kLanes<T>;
    winograd = K == 3 && L == 3 && stride == 1 && H % 2 == 0 && W % 2 == 0 &&
               I % kLanes<T> == 0 && I >= 16 && H * W >= 64;
    data = scratch<T>(flip ? kFlipped : kKernel,
                      (winograd ? kTile : K * L) * I * O);
    const Int outputs = flip ? I_ : O_;
    const auto value = [&](Int k, Int l, Int i, Int o) {
      if (o >= outputs) return T(0);
      return flip ? w[(((K - 1 - k) * L + L - 1 - l) * I_ + o) * O_ + i]
                  : w[((k * L + l) * I_ + i) * O_ + o];
    };
    for (Int start = 0; start < O; start += block)
      for (Int i = 0; i < I; ++i)
        for (Int o = start; o < start + block; ++o) {
          if (winograd) {
            T rows[4][3];
            for (int l = 0; l < 3; ++l)
              by_four(value(0, l, i, o), value(1, l, i, o), value(2, l, i, o),
                      &rows[0][l], 3);
            T* to = data + start * I + i * block + o - start;
            for (int r = 0; r < 4; ++r)
              by_four(rows[r][0], rows[r][1], rows[r][2], to + r * 4 * I * O,
                      I * O);
          } else {
            for (Int k = 0; k < K; ++k)
              for (Int l = 0; l < L; ++l)
                data[start * K * L * I + ((k * L + l) * I + i) * block + o -
                     start] = value(k, l, i, o);
          }
        }
  }

 private:
  // One axis of the transform: four values, `apart` from each other, of three
  // taps.
  static void by_four(T a, T b, T c, T* to, Int apart) {
    to[0] = a, to[apart] = (a + b + c) / 2, to[2 * apart] = (a - b + c) / 2,
    to[3 * apart] = c;
  }
};

// Where P positions are read: in pairs, the second `step` behind the first.
template <class T, int P>
struct Places {
  const T* pair[(P + 1) / 2];
  Int step;
};

// Products of P positions with N vectors of outputs, summed over the kernel in
// registers. `row` and `pixel`: from one row and one column of the kernel to
// the next in the image.
template <class T, int P, int N>
inline void positions(Places<T, P> at, Int row, Int pixel, Int K, Int L, Int I,
                      const T* w, T* y, Int stride) {
  V<T> sum[P][N] = {};
  constexpr int kPairs = (P + 1) / 2;
  for (Int k = 0; k < K; ++k)
    for (Int l = 0; l < L; ++l) {
      const T* from[kPairs];
      for (int t = 0; t < kPairs; ++t)
        from[t] = at.pair[t] + k * row + l * pixel;
      for (const T* end = w + I * N * kLanes<T>; w != end; w += N * kLanes<T>) {
        V<T> of[N];
        for (int n = 0; n < N; ++n) of[n] = load(w + n * kLanes<T>);
        for (int p = 0; p < P; ++p) {
          const T value = from[p / 2][p % 2 * at.step];
          for (int n = 0; n < N; ++n) sum[p][n] += value * of[n];
        }
        for (int t = 0; t < kPairs; ++t) {
          ++from[t];
          // Keeps one pointer per pair: otherwise the compiler computes one
          // from the other in every step.
          asm("" : "+r"(from[t]));
        }
      }
    }
  for (int p = 0; p < P; ++p)
    for (int n = 0; n < N; ++n)
      store(y + p * stride + n * kLanes<T>, sum[p][n]);
}

// `positions` of n positions. `place(i)`: where the i-th, i even, is read; the
// next is read `step` behind it.
template <class T, int N, class Place>
void line(Int n, Place place, Int step, Int row, Int pixel, Int K, Int L, Int I,
          const T* w, T* y, Int stride) {
  Int at = 0;
  auto run = [&](auto P) {
    for (; at + P <= n; at += P) {
      Places<T, P> places{{}, step};
      for (int t = 0; t < (P + 1) / 2; ++t) places.pair[t] = place(at + 2 * t);
      positions<T, P, N>(places, row, pixel, K, L, I, w, y + at * stride,
                         stride);
    }
  };
  if (N == 1 && kPositions == 8) run(std::integral_constant<int, 16>());
  run(std::integral_constant<int, kPositions>());
  run(std::integral_constant<int, 4>());
  run(std::integral_constant<int, 2>());
  run(std::integral_constant<int, 1>());
}

}  // namespace jaxhypernas
