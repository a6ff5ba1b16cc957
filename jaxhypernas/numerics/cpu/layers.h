// Layers of target networks for one core: ReLU, convolution, BatchNorm by the batch's statistics, pooling; NHWC.
// Positions of a row times one or two vectors of output channels are kept in registers; an image's inputs stay in
// cache.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <vector>

namespace jaxhypernas {

using Int = int64_t;

template <class T>
struct Vector;
template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(32)));
};
template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(32)));
};
template <class T>
using V = typename Vector<T>::type;
template <class T>
constexpr Int kLanes = 32 / sizeof(T);

template <class T>
inline V<T> load(const T* from) {
  V<T> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T>
inline void store(T* to, V<T> v) {
  std::memcpy(to, &v, sizeof v);
}

template <class T>
Int padded(Int channels) {
  return (channels + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

#ifdef __AVX512VL__
constexpr int kPositions = 8;  // 32 registers
#else
constexpr int kPositions = 4;
#endif

// Memory of this thread that lives on from call to call.
template <class T>
T* scratch(size_t slot, size_t size) {
  static thread_local std::vector<std::vector<T>> slots(32);
  if (slots[slot].size() < size) slots[slot].resize(size);
  return slots[slot].data();
}
enum Slot {
  kImage,
  kDeep,
  kKernel,
  kFlipped,
  kGradient,
  kGradientImage,
  kDeepGradient,
  kWide,
  kTaps,
  kTapsGradient,
  kRow,
  kTileInputs,
  kTileProducts,
  kMean,
  kScale = kMean + 4,
  kOutput = kScale + 4,
  kBetween = kOutput + 4,
  kRead = kBetween + 2,
  kReadGradient
};

// The sum of n vectors, four sums at a time.
template <class T, class F>
inline V<T> add_up(Int n, F of) {
  V<T> sum[4] = {};
  Int i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) sum[k] += of(i + k);
  for (; i < n; ++i) sum[0] += of(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// Images in memory, and what is done to their values when they are read: minus shift, times scale, ReLU.
template <class T>
struct Images {
  const T* data;
  Int B, H, W, C, stride;  // stride: from one position to the next
  bool relu = false;
  const T *shift = nullptr, *scale = nullptr;  // of `padded` channels, as stride then is

  const T* image(Int b) const { return data + b * H * W * stride; }
};

// One image with zeros around it, of the same stride. The border is the caller's.
template <class T>
void fill(const Images<T>& x, Int b, Int above, Int left, Int across, Int stride, T* out) {
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

// --- Convolutions of one image ---------------------------------------------------------------------------------------

// 3 x 3 convolutions of even images by Winograd's F(2x2, 3x3) (Lavin and Gray 2016): 16 products for four outputs, not
// 36. What is transformed is 4 x 4 inputs, which overlap by two, and 4 x 4 products.
constexpr int kTile = 16, kTiles = 8;  // values of a tile, tiles at once

// A kernel K x L x I x O as blocks of one or two vectors of outputs; `flip`: that of the gradient with respect to x.
template <class T>
struct Kernel {
  Int K, L, I, O, block;
  bool winograd;  // [tile value][block][I][in block], else [block][K][L][I][in block]
  T* data;

  Kernel(const T* w, Int K, Int L, Int I_, Int O_, Int H, Int W, Int stride, bool flip)
      : K(K), L(L), I(flip ? O_ : I_), O(padded<T>(flip ? I_ : O_)) {
    block = O % (2 * kLanes<T>) == 0 ? 2 * kLanes<T> : kLanes<T>;
    winograd =
        K == 3 && L == 3 && stride == 1 && H % 2 == 0 && W % 2 == 0 && I % kLanes<T> == 0 && I >= 16 && H * W >= 64;
    data = scratch<T>(flip ? kFlipped : kKernel, (winograd ? kTile : K * L) * I * O);
    const Int outputs = flip ? I_ : O_;
    const auto value = [&](Int k, Int l, Int i, Int o) {
      if (o >= outputs) return T(0);
      return flip ? w[(((K - 1 - k) * L + L - 1 - l) * I_ + o) * O_ + i] : w[((k * L + l) * I_ + i) * O_ + o];
    };
    for (Int start = 0; start < O; start += block)
      for (Int i = 0; i < I; ++i)
        for (Int o = start; o < start + block; ++o) {
          if (winograd) {
            T rows[4][3];
            for (int l = 0; l < 3; ++l)
              by_four(value(0, l, i, o), value(1, l, i, o), value(2, l, i, o), &rows[0][l], 3);
            T* to = data + start * I + i * block + o - start;
            for (int r = 0; r < 4; ++r) by_four(rows[r][0], rows[r][1], rows[r][2], to + r * 4 * I * O, I * O);
          } else {
            for (Int k = 0; k < K; ++k)
              for (Int l = 0; l < L; ++l)
                data[start * K * L * I + ((k * L + l) * I + i) * block + o - start] = value(k, l, i, o);
          }
        }
  }

 private:
  static void by_four(T a, T b, T c, T* to, Int apart) {
    to[0] = a, to[apart] = (a + b + c) / 2, to[2 * apart] = (a - b + c) / 2, to[3 * apart] = c;
  }
};

// Where P positions are read, in pairs that lie `step` apart.
template <class T, int P>
struct Places {
  const T* pair[(P + 1) / 2];
  Int step;
};

template <class T, int P, int N>
inline void positions(Places<T, P> at, Int row, Int pixel, Int K, Int L, Int I, const T* w, T* y, Int stride) {
  V<T> sum[P][N] = {};
  constexpr int kPairs = (P + 1) / 2;
  for (Int k = 0; k < K; ++k)
    for (Int l = 0; l < L; ++l) {
      const T* from[kPairs];
      for (int t = 0; t < kPairs; ++t) from[t] = at.pair[t] + k * row + l * pixel;
      for (const T* end = w + I * N * kLanes<T>; w != end; w += N * kLanes<T>) {
        V<T> of[N];
        for (int n = 0; n < N; ++n) of[n] = load(w + n * kLanes<T>);
        for (int p = 0; p < P; ++p) {
          const T value = from[p / 2][p % 2 * at.step];
          for (int n = 0; n < N; ++n) sum[p][n] += value * of[n];
        }
        for (int t = 0; t < kPairs; ++t) {
          ++from[t];
          asm("" : "+r"(from[t]));  // or the compiler computes one from the other
        }
      }
    }
  for (int p = 0; p < P; ++p)
    for (int n = 0; n < N; ++n) store(y + p * stride + n * kLanes<T>, sum[p][n]);
}

// `positions` of n positions; `place(i)` is where the i-th, i even, and the one behind it are read.
template <class T, int N, class Place>
void line(Int n, Place place, Int step, Int row, Int pixel, Int K, Int L, Int I, const T* w, T* y, Int stride) {
  Int at = 0;
  auto run = [&](auto P) {
    for (; at + P <= n; at += P) {
      Places<T, P> places{{}, step};
      for (int t = 0; t < (P + 1) / 2; ++t) places.pair[t] = place(at + 2 * t);
      positions<T, P, N>(places, row, pixel, K, L, I, w, y + at * stride, stride);
    }
  };
  if (N == 1 && kPositions == 8) run(std::integral_constant<int, 16>());
  run(std::integral_constant<int, kPositions>());
  run(std::integral_constant<int, 4>());
  run(std::integral_constant<int, 2>());
  run(std::integral_constant<int, 1>());
}

template <class T, int N>
void conv_direct(const T* x, Int across, Int pixel, Int stride, const Kernel<T>& w, Int H, Int W, T* y) {
  const bool joined = pixel == w.I;  // a row of the kernel reads what lies in a row
  const Int L = joined ? 1 : w.L, I = joined ? w.L * w.I : w.I, row = across * pixel, step = stride * pixel;
  const Int lines = W % 2 == 0 ? 1 : H;  // no pair of positions crosses the end of a row
  const Int n = H * W / lines;
  for (Int start = 0; start < w.O; start += w.block)
    for (Int h = 0; h < lines; ++h) {
      const auto place = [&](Int i) { return x + (h * n + i) / W * stride * row + (h * n + i) % W * step; };
      line<T, N>(n, place, step, row, pixel, w.K, L, I, w.data + start * w.K * w.L * w.I, y + h * n * w.O + start, w.O);
    }
}

template <class T, int N>
void conv_winograd(const T* x, Int across, Int pixel, const Kernel<T>& w, Int H, Int W, T* y) {
  T* inputs = scratch<T>(kTileInputs, kTile * kTiles * w.I);
  T* products = scratch<T>(kTileProducts, kTile * kTiles * w.O);
  const Int tiles = H / 2 * (W / 2);
  for (Int first = 0; first < tiles; first += kTiles) {
    const Int n = std::min<Int>(kTiles, tiles - first);
    for (Int t = 0; t < n; ++t) {
      const T* from = x + ((first + t) / (W / 2) * 2 * across + (first + t) % (W / 2) * 2) * pixel;
      for (Int c = 0; c < w.I; c += kLanes<T>) {
        V<T> rows[4][4];
        for (int l = 0; l < 4; ++l) {
          const auto at = [&](int k) { return load(from + (k * across + l) * pixel + c); };
          rows[0][l] = at(0) - at(2), rows[1][l] = at(1) + at(2), rows[2][l] = at(2) - at(1),
          rows[3][l] = at(1) - at(3);
        }
        for (int k = 0; k < 4; ++k) {
          const V<T>(&r)[4] = rows[k];
          const V<T> values[4] = {r[0] - r[2], r[1] + r[2], r[2] - r[1], r[1] - r[3]};
          for (int l = 0; l < 4; ++l) store(inputs + ((k * 4 + l) * kTiles + t) * w.I + c, values[l]);
        }
      }
    }
    for (int v = 0; v < kTile; ++v)
      for (Int start = 0; start < w.O; start += w.block) {
        const auto place = [&](Int t) { return inputs + (v * kTiles + t) * w.I; };
        line<T, N>(n, place, w.I, 0, 0, 1, 1, w.I, w.data + v * w.I * w.O + start * w.I,
                   products + v * kTiles * w.O + start, w.O);
      }
    for (Int t = 0; t < n; ++t) {
      T* to = y + ((first + t) / (W / 2) * 2 * W + (first + t) % (W / 2) * 2) * w.O;
      for (Int o = 0; o < w.O; o += kLanes<T>) {
        V<T> rows[2][4];
        for (int l = 0; l < 4; ++l) {
          const auto at = [&](int k) { return load(products + ((k * 4 + l) * kTiles + t) * w.O + o); };
          rows[0][l] = at(0) + at(1) + at(2), rows[1][l] = at(1) - at(2) - at(3);
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

// y: H x W x w.O of an image with a border, `across` positions in a row, `pixel` values in each.
template <class T>
void conv_image(const T* x, Int across, Int pixel, Int stride, const Kernel<T>& w, Int H, Int W, T* y) {
  const bool two = w.block == 2 * kLanes<T>;
  if (w.winograd)
    two ? conv_winograd<T, 2>(x, across, pixel, w, H, W, y) : conv_winograd<T, 1>(x, across, pixel, w, H, W, y);
  else
    two ? conv_direct<T, 2>(x, across, pixel, stride, w, H, W, y)
        : conv_direct<T, 1>(x, across, pixel, stride, w, H, W, y);
}

template <class T, int M, int N>
inline void taps(const T* x, Int x_step, Int x_row, const T* g, Int g_step, Int g_row, Int H, Int W, T* dw, Int O) {
  V<T> sum[M][N] = {};
  for (Int h = 0; h < H; ++h)
    for (Int w = 0; w < W; ++w) {
      V<T> of[N];
      for (int n = 0; n < N; ++n) of[n] = load(g + h * g_row + w * g_step + n * kLanes<T>);
      const T* from = x + h * x_row + w * x_step;
      for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) sum[m][n] += from[m] * of[n];
    }
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < N; ++n) store(dw + m * O + n * kLanes<T>, load(dw + m * O + n * kLanes<T>) + sum[m][n]);
}

// Adds the gradient with respect to a kernel, K x L x I x O (padded), of one image: x with a border of `across`
// positions in a row, g of H x W positions `g_step` apart, in rows `g_row` apart.
template <class T>
void conv_taps(const T* x, Int across, Int pixel, Int stride, const T* g, Int g_step, Int g_row, Int H, Int W, Int K,
               Int L, Int I, Int O, T* dw) {
  constexpr Int kLong = 32;  // positions for which sums stay in registers
  const Int rows = std::max<Int>(1, kLong / W), x_step = stride * pixel, x_row = stride * across * pixel;
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
                taps<T, M, 2>(from, x_step, x_row, g + h * g_row + o, g_step, g_row, height, W, to, O);
              else
                taps<T, M, 1>(from, x_step, x_row, g + h * g_row + o, g_step, g_row, height, W, to, O);
            }
          };
          run(std::integral_constant<int, kPositions>());
          run(std::integral_constant<int, 4>());
          run(std::integral_constant<int, 1>());
          o += two ? 2 * kLanes<T> : kLanes<T>;
        }
  }
}

// Depthwise, K x K taps of `stride` channels each, `dilation` positions apart.
template <class T>
void deep_image(const T* x, Int across, Int stride, const T* w, Int K, Int dilation, Int H, Int W, T* y) {
  for (Int h = 0; h < H; ++h)
    for (Int p = 0; p < W; ++p)
      for (Int c = 0; c < stride; c += kLanes<T>) {
        V<T> sum = {};
        for (Int k = 0; k < K; ++k)
          for (Int l = 0; l < K; ++l)
            sum += load(x + ((h + k * dilation) * across + p + l * dilation) * stride + c) *
                   load(w + (k * K + l) * stride + c);
        store(y + (h * W + p) * stride + c, sum);
      }
}

// Adds the gradient with respect to those taps; g has no border.
template <class T>
void deep_taps(const T* x, Int across, Int stride, const T* g, Int K, Int dilation, Int H, Int W, T* dw) {
  for (Int k = 0; k < K; ++k)
    for (Int l = 0; l < K; ++l)
      for (Int c = 0; c < stride; c += kLanes<T>) {
        V<T> sum = {};
        for (Int h = 0; h < H; ++h)
          for (Int p = 0; p < W; ++p)
            sum += load(x + ((h + k * dilation) * across + p + l * dilation) * stride + c) *
                   load(g + (h * W + p) * stride + c);
        store(dw + (k * K + l) * stride + c, load(dw + (k * K + l) * stride + c) + sum);
      }
}

// --- ReLU, (depthwise convolution,) convolution, BatchNorm -----------------------------------------------------------

struct Layer {
  Int deep, dilation;  // the depthwise convolution's kernel size, 0: there is none
  Int K, L, stride;    // of the dense one
};

template <class T>
struct Weights {
  const T *deep, *dense;
};

constexpr double kEpsilon = 1e-5;

// What a layer computed before BatchNorm, and BatchNorm's statistics; all of padded channels.
template <class T>
struct Output {
  T *y, *mean, *scale;
  Int H, W, stride;
};

// An image of the input with its border, and what the dense convolution reads.
template <class T>
struct Input {
  const T* image;
  Int across, pixel;
};

// Where ReLU lets gradients through: dx of one image, positions `stride` apart, becomes 0 elsewhere.
template <class T>
void mask(const Images<T>& x, Int b, T* dx, Int stride) {
  const T* of = x.image(b);
  if (stride == x.stride && x.shift == nullptr) {
    for (Int i = 0; i < x.H * x.W * stride; ++i) dx[i] = of[i] > 0 ? dx[i] : 0;
    return;
  }
  for (Int i = 0; i < x.H * x.W; ++i)
    for (Int c = 0; c < x.C; ++c)
      if (!(of[i * x.stride + c] > (x.shift != nullptr ? x.shift[c] : T(0)))) dx[i * stride + c] = 0;
}

template <class T>
class LayerRun {
 public:
  LayerRun(const Layer& layer, const Images<T>& x, Int O) : layer_(layer), x_(x), O_(O) {
    reach_ = layer.deep > 0 ? layer.deep / 2 * layer.dilation : 0;
    above_ = layer.deep > 0 ? reach_ : layer.K / 2;
    left_ = layer.deep > 0 ? reach_ : layer.L / 2;
    stride_ = layer.deep > 0 || x.shift != nullptr ? padded<T>(x.C) : x.stride;
    across_ = x.W + 2 * left_;
    const size_t size = (x.H + 2 * above_) * across_ * stride_;
    image_ = scratch<T>(kImage, size);
    std::memset(image_, 0, size * sizeof(T));
    H_ = (x.H + layer.stride - 1) / layer.stride, W_ = (x.W + layer.stride - 1) / layer.stride;
  }

  // Where `forward` may write; `which`: of the layers of an op, at most 4, all of which stay in memory.
  Output<T> own_output(int which) const {
    const Int O = padded<T>(O_);
    return output(scratch<T>(kOutput + which, x_.B * H_ * W_ * O), scratch<T>(kMean + which, O),
                  scratch<T>(kScale + which, O));
  }

  Output<T> output(T* y, T* mean, T* scale) const { return {y, mean, scale, H_, W_, padded<T>(O_)}; }

  void forward(const Weights<T>& w, const Output<T>& out) {
    const Int O = out.stride, n = H_ * W_;
    const Kernel<T> kernel(w.dense, layer_.K, layer_.L, x_.C, O_, H_, W_, layer_.stride, false);
    spread(w.deep);
    std::vector<double> mean(x_.B * O), deviation(x_.B * O);
    for (Int b = 0; b < x_.B; ++b) {
      T* y = out.y + b * n * O;
      const Input<T> in = input(b);
      conv_image(in.image, in.across, in.pixel, layer_.stride, kernel, H_, W_, y);
      moments(y, n, O, &mean[b * O], &deviation[b * O]);
    }
    for (Int o = 0; o < O; ++o) {  // of images: Chan's way of adding up means and squared deviations
      double sum = 0, squares = 0;
      for (Int b = 0; b < x_.B; ++b) sum += mean[b * O + o];
      sum /= x_.B;
      for (Int b = 0; b < x_.B; ++b) squares += deviation[b * O + o] + n * std::pow(mean[b * O + o] - sum, 2);
      out.mean[o] = T(sum);
      out.scale[o] = T(1 / std::sqrt(squares / (double(n) * x_.B) + kEpsilon));
    }
  }

  // Gradients: of the weights, written to d_deep and d_dense, and of x, given image by image to `take(b, dx, stride)`,
  // `padded` channels; no d_dense, or nullptr to take: they aren't wanted. g: with respect to what BatchNorm gives,
  // B x H x W x O, positions `g_stride` apart.
  template <class Take>
  void backward(const Weights<T>& w, const Output<T>& out, const T* g, Int g_stride, T* d_deep, T* d_dense, Take take) {
    const Int O = out.stride, n = H_ * W_, s = layer_.stride;
    constexpr bool kTake = !std::is_same_v<Take, std::nullptr_t>;
    spread(w.deep);
    std::vector<T> mean_g(O), mean_gy(O);
    gradient_means(out, g, g_stride, mean_g.data(), mean_gy.data());

    const Int height = x_.H + layer_.K - 1, across = x_.W + layer_.L - 1;
    T* g_image = scratch<T>(kGradient, height * across * O);
    std::memset(g_image, 0, height * across * O * sizeof(T));
    T* first = g_image + (layer_.K / 2 * across + layer_.L / 2) * O;
    const Int deep_size = layer_.deep * layer_.deep * stride_, dense_size = layer_.K * layer_.L * x_.C * O;
    std::vector<T> deep(deep_size), dense(dense_size);
    std::optional<Kernel<T>> flipped;
    T* dx = nullptr;
    if constexpr (kTake) {
      flipped.emplace(w.dense, layer_.K, layer_.L, x_.C, O_, x_.H, x_.W, 1, true);
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
                  scale * (load(of + at) - load(&mean_g[c]) - centred * load(&mean_gy[c])));
          }
      if (d_dense != nullptr) {
        const Input<T> in = input(b);
        conv_taps(in.image, in.across, in.pixel, s, first, s * O, s * across * O, H_, W_, layer_.K, layer_.L, x_.C, O,
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
      for (Int i = 0; i < layer_.K * layer_.L * x_.C; ++i) std::copy_n(&dense[i * O], O_, d_dense + i * O_);
    for (Int i = 0; i < layer_.deep * layer_.deep; ++i) std::copy_n(&deep[i * stride_], x_.C, d_deep + i * x_.C);
  }

 private:
  // The depthwise kernel with padded channels.
  void spread(const T* deep) {
    if (layer_.deep == 0) return;
    const Int size = layer_.deep * layer_.deep;
    taps_ = scratch<T>(kTaps, size * stride_);
    std::fill_n(taps_, size * stride_, T(0));
    for (Int i = 0; i < size; ++i) std::copy_n(deep + i * x_.C, x_.C, taps_ + i * stride_);
  }

  Input<T> input(Int b) {
    fill(x_, b, above_, left_, 2 * left_, stride_, image_);
    if (layer_.deep == 0) return {image_, across_, stride_};
    T* deep = scratch<T>(kDeep, x_.H * x_.W * stride_);
    deep_image(image_, across_, stride_, taps_, layer_.deep, layer_.dilation, x_.H, x_.W, deep);
    return {deep, x_.W, stride_};
  }

  // From the gradient of what the depthwise convolution gives to that of what it reads; adds that of its kernel.
  void through_deep(T* g, T* d_deep) {
    deep_taps(image_, across_, stride_, g, layer_.deep, layer_.dilation, x_.H, x_.W, d_deep);
    const Int size = layer_.deep * layer_.deep;
    T* border = scratch<T>(kDeepGradient, (x_.H + 2 * reach_) * across_ * stride_);
    std::memset(border, 0, (x_.H + 2 * reach_) * across_ * stride_ * sizeof(T));
    fill(Images<T>{g, 1, x_.H, x_.W, stride_, stride_}, 0, reach_, reach_, 2 * reach_, stride_, border);
    T* mirrored = scratch<T>(kTapsGradient, size * stride_);
    for (Int i = 0; i < size; ++i) std::copy_n(taps_ + (size - 1 - i) * stride_, stride_, mirrored + i * stride_);
    deep_image(border, across_, stride_, mirrored, layer_.deep, layer_.dilation, x_.H, x_.W, g);
  }

  static void moments(const T* y, Int n, Int O, double* mean, double* deviation) {
    for (Int c = 0; c < O; c += kLanes<T>) {
      const auto at = [&](Int i) { return load(y + i * O + c); };
      const V<T> centre = add_up<T>(n, at) / T(n);
      const V<T> squares = add_up<T>(n, [&](Int i) { return (at(i) - centre) * (at(i) - centre); });
      for (Int k = 0; k < kLanes<T>; ++k) mean[c + k] = centre[k], deviation[c + k] = squares[k];
    }
  }

  // Positions O values apart.
  static const T* wide(const T* g, Int n, Int stride, Int O) {
    if (stride == O) return g;
    T* to = scratch<T>(kWide, n * O);
    std::fill_n(to, n * O, T(0));
    for (Int i = 0; i < n; ++i) std::copy_n(g + i * stride, std::min(stride, O), to + i * O);
    return to;
  }

  void gradient_means(const Output<T>& out, const T* g, Int g_stride, T* mean_g, T* mean_gy) {
    const Int O = out.stride, n = H_ * W_;
    std::vector<double> sum(O), product(O);
    for (Int b = 0; b < x_.B; ++b) {
      const T* of = wide(g + b * n * g_stride, n, g_stride, O);
      const T* y = out.y + b * n * O;
      for (Int c = 0; c < O; c += kLanes<T>) {
        const V<T> mean = load(out.mean + c), scale = load(out.scale + c);
        const auto at = [&](Int i) { return load(of + i * O + c); };
        const V<T> a = add_up<T>(n, at);
        const V<T> ay = add_up<T>(n, [&](Int i) { return at(i) * (load(y + i * O + c) - mean); }) * scale;
        for (Int k = 0; k < kLanes<T>; ++k) sum[c + k] += a[k], product[c + k] += ay[k];
      }
    }
    for (Int o = 0; o < O; ++o) mean_g[o] = T(sum[o] / (n * x_.B)), mean_gy[o] = T(product[o] / (n * x_.B));
  }

  const Layer layer_;
  const Images<T> x_;
  const Int O_;
  Int reach_, above_, left_, stride_, across_, H_, W_;
  T *image_, *taps_ = nullptr;
};

// --- Pooling of one image, 3 x 3, stride 1 -------------------------------------------------------------------------

inline Int inside(Int i, Int n) { return 1 + (i > 0) + (i + 1 < n); }

// Sums of windows, or their largest values; `row` has (W + 2) * C values.
template <class T, bool kMax>
void pool_image(const T* x, Int H, Int W, Int C, T* row, T* out) {
  const T outside = kMax ? -std::numeric_limits<T>::infinity() : T(0);
  const Int n = W * C;
  std::fill_n(row, n + 2 * C, outside);
  for (Int h = 0; h < H; ++h) {
    const T *here = x + h * n, *up = h > 0 ? here - n : nullptr, *down = h + 1 < H ? here + n : nullptr;
    T* middle = row + C;
    std::copy_n(here, n, middle);
    for (const T* other : {up, down})
      if (other != nullptr)
        for (Int i = 0; i < n; ++i) middle[i] = kMax ? std::max(middle[i], other[i]) : middle[i] + other[i];
    T* to = out + h * n;
    for (Int i = 0; i < n; ++i)
      to[i] = kMax ? std::max(std::max(row[i], row[i + C]), row[i + 2 * C]) : row[i] + row[i + C] + row[i + 2 * C];
  }
}

// Divides by how many positions of the window lie inside the image.
template <class T>
void divide(Int H, Int W, Int C, T* x) {
  for (Int h = 0; h < H; ++h)
    for (Int w = 0; w < W; ++w) {
      const T by = T(1) / T(inside(h, H) * inside(w, W));
      for (Int c = 0; c < C; ++c) x[(h * W + w) * C + c] *= by;
    }
}

// The gradient of the largest of three along one axis, taken two at a time: where two are equal, each gets half.
template <class T>
void max_gradient(const T* x, const T* g, Int lines, Int length, Int step, Int apart, Int C, T* dx) {
  const T outside = -std::numeric_limits<T>::infinity();
  const auto share = [](T a, T b) { return a > b ? T(1) : a < b ? T(0) : T(0.5); };
  std::fill_n(dx, lines * length * C, T(0));
  for (Int j = 0; j < lines; ++j)
    for (Int i = 0; i < length; ++i)
      for (Int c = 0; c < C; ++c) {
        const Int at = j * apart + i * step + c;
        const T a = i > 0 ? x[at - step] : outside, b = x[at], d = i + 1 < length ? x[at + step] : outside;
        const T first = share(std::max(a, b), d), of_a = first * share(a, b);
        if (i > 0) dx[at - step] += g[at] * of_a;
        dx[at] += g[at] * (first - of_a);
        if (i + 1 < length) dx[at + step] += g[at] * (1 - first);
      }
}

}  // namespace jaxhypernas
