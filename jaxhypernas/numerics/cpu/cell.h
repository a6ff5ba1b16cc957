// A cell of a target network on one core, and its gradient.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "layer.h"
#include "pooling.h"
#include "scratch.h"
#include "xla/ffi/api/ffi.h"

namespace jaxhypernas {

using xla::ffi::Span;

enum Kind : Int { kSkip, kAverage, kMaximum, kLayers };

struct Op {
  Kind kind;
  std::vector<Layer> layers;
  Int weights;  // Index of its first array.
};

// The ops of a space from the numbers that `NativeOp` in cells.py explains.
inline std::vector<Op> parse(Span<const Int> numbers) {
  std::vector<Op> ops;
  Int weights = 0;
  for (size_t i = 0; i < numbers.size();) {
    Op op{Kind(numbers[i]), {}, weights};
    const Int layers = numbers[i + 1];
    i += 2;
    for (Int l = 0; l < layers; ++l, i += 4) {
      op.layers.push_back(
          {numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3], 1});
      weights += numbers[i] > 0 ? 2 : 1;
    }
    ops.push_back(op);
  }
  return ops;
}

// A cell and its weights.
template <class T>
struct Cell {
  // Nodes, states, states that are inputs; images, height, width, channels.
  Int N, S, I, B, H, W, C;
  const int32_t *op_NxO, *read_NxS;
  Span<const Int> write_N;
  std::vector<Op> ops;
  // Arrays of all nodes, and the number of values that each has for one node.
  std::vector<const T*> weights;
  std::vector<Int> sizes;

  Int values() const { return B * H * W * C; }
  Int reads(Int node) const {
    return S - std::count(read_NxS + node * S, read_NxS + (node + 1) * S, 0);
  }
  // Whether the node applies the op. A node that reads nothing gives 0.
  bool applies(Int node, Int op) const {
    return op_NxO[node * Int(ops.size()) + op] != 0 && reads(node) > 0;
  }
  const T* weight(Int at, Int node) const {
    return weights[at] + node * sizes[at];
  }
  Images<T> images(const T* data) const { return {data, B, H, W, C, C, true}; }
};

// Runs the layers of an op on x; keeps the images that each layer reads, its
// output and its weights.
template <class T>
struct OpRun {
  std::vector<Images<T>> inputs;
  std::vector<Output<T>> outputs;
  std::vector<Weights<T>> weights;

  OpRun(const Cell<T>& cell, const Op& op, Int node, const T* x) {
    Images<T> images = cell.images(x);
    Int at = op.weights;
    for (const Layer& layer : op.layers) {
      const T* deep = layer.deep > 0 ? cell.weight(at++, node) : nullptr;
      weights.push_back({deep, cell.weight(at++, node)});
      inputs.push_back(images);
      LayerRun<T> run(layer, images, cell.C);
      outputs.push_back(run.own_output(outputs.size()));
      run.forward(weights.back(), outputs.back());
      const Output<T>& out = outputs.back();
      images = {out.y,      cell.B, cell.H,   cell.W,   cell.C,
                out.stride, true,   out.mean, out.scale};
    }
  }
};

// Writes the normalised output of a layer to `to`, or adds it where not
// `fresh`.
template <class T>
void add_normalised(const Output<T>& out, Int positions, Int C, bool fresh,
                    T* to) {
  if (out.stride == C) {
    for (Int i = 0; i < positions; ++i)
      for (Int c = 0; c < C; c += kLanes<T>) {
        const V<T> v = (load(out.y + i * C + c) - load(out.mean + c)) *
                       load(out.scale + c);
        store(to + i * C + c, fresh ? v : load(to + i * C + c) + v);
      }
    return;
  }
  for (Int i = 0; i < positions; ++i)
    for (Int c = 0; c < C; ++c) {
      const T v = (out.y[i * out.stride + c] - out.mean[c]) * out.scale[c];
      to[i * C + c] = fresh ? v : to[i * C + c] + v;
    }
}

template <class T>
void add(const T* from, Int n, bool fresh, T* to) {
  if (fresh)
    std::copy_n(from, n, to);
  else
    for (Int i = 0; i < n; ++i) to[i] += from[i];
}

template <class T>
void add_times(const T* from, T times, Int n, bool fresh, T* to) {
  for (Int i = 0; i < n; ++i)
    to[i] = fresh ? times * from[i] : to[i] + times * from[i];
}

// The sum of the states that a node reads; the state itself where it reads one,
// once.
template <class T>
const T* read(const Cell<T>& cell, Int node, const T* states) {
  const int32_t* weight_S = cell.read_NxS + node * cell.S;
  T* sum = nullptr;
  Int first = -1;
  for (Int s = 0; s < cell.S; ++s) {
    if (weight_S[s] == 0) continue;
    if (sum == nullptr && first < 0 && weight_S[s] == 1) {
      first = s;
      continue;
    }
    if (sum == nullptr) {
      sum = scratch<T>(kRead, cell.values());
      add_times(states + std::max<Int>(first, 0) * cell.values(), T(first >= 0),
                cell.values(), true, sum);
    }
    add_times(states + s * cell.values(), T(weight_S[s]), cell.values(), false,
              sum);
  }
  return sum != nullptr ? sum
                        : states + std::max<Int>(first, 0) * cell.values();
}

// Computes all states of a cell.
template <class T>
void run_cell(const Cell<T>& cell, const T* inputs, T* states) {
  const Int n = cell.values(), image = cell.H * cell.W * cell.C,
            O = Int(cell.ops.size());
  std::copy_n(inputs, cell.I * n, states);
  std::vector<bool> written(cell.S);
  for (Int node = 0; node < cell.N; ++node)
    for (Int o = 0; o < O; ++o)
      if (cell.applies(node, o)) written[cell.write_N[node]] = true;
  for (Int s = cell.I; s < cell.S; ++s)
    if (!written[s]) std::fill_n(states + s * n, n, T(0));
  std::fill(written.begin(), written.end(), false);
  for (Int node = 0; node < cell.N; ++node)
    for (Int o = 0; o < O; ++o) {
      if (!cell.applies(node, o)) continue;
      const Op& op = cell.ops[o];
      const T* x = read(cell, node, states);
      const Int to = cell.write_N[node];
      T* state = states + to * n;
      const bool fresh = !written[to];
      written[to] = true;
      if (op.kind == kSkip) {
        add(x, n, fresh, state);
      } else if (op.kind == kLayers) {
        const OpRun<T> run(cell, op, node, x);
        add_normalised(run.outputs.back(), cell.B * cell.H * cell.W, cell.C,
                       fresh, state);
      } else {
        T* row = scratch<T>(kRow, (cell.W + 2) * cell.C);
        T* pooled = scratch<T>(kPooled, image);
        for (Int b = 0; b < cell.B; ++b) {
          if (op.kind == kAverage) {
            pool_image<T, false>(x + b * image, cell.H, cell.W, cell.C, row,
                                 pooled);
            divide(cell.H, cell.W, cell.C, pooled);
          } else {
            pool_image<T, true>(x + b * image, cell.H, cell.W, cell.C, row,
                                pooled);
          }
          add(pooled, image, fresh, state + b * image);
        }
      }
    }
}

// The gradient of an op with respect to its input, added to g_x, or written
// there if `fresh`; gradients of its weights are written to dw.
template <class T>
void op_gradient(const Cell<T>& cell, const Op& op, Int node, const T* x,
                 const T* g, const std::vector<T*>& dw, bool fresh, T* g_x) {
  const Int n = cell.values(), H = cell.H, W = cell.W, C = cell.C,
            image = H * W * C;
  if (op.kind == kSkip) return add(g, n, fresh, g_x);
  if (op.kind == kLayers) {
    OpRun<T> run(cell, op, node, x);
    Int at =
        op.weights + (op.layers[0].deep > 0 ? 2 : 1) * Int(op.layers.size());
    Int stride = C;
    for (Int l = Int(op.layers.size()) - 1; l >= 0; --l) {
      --at;
      T* dense = dw[at] + node * cell.sizes[at];
      if (op.layers[l].deep > 0) --at;
      // Not written where there is no depthwise convolution.
      T* deep = dw[at] + node * cell.sizes[at];
      const Int padded_image = H * W * padded<T>(C);
      T* between =
          l > 0 ? scratch<T>(kBetween, cell.B * padded_image, l % 2) : nullptr;
      const auto take = [&](Int b, const T* dx, Int dx_stride) {
        if (l > 0) {
          std::copy_n(dx, padded_image, between + b * padded_image);
        } else if (dx_stride == C) {
          add(dx, image, fresh, g_x + b * image);
        } else {
          for (Int i = 0; i < H * W; ++i)
            add(dx + i * dx_stride, C, fresh, g_x + b * image + i * C);
        }
      };
      LayerRun<T>(op.layers[l], run.inputs[l], C)
          .backward(run.weights[l], run.outputs[l], g, stride, deep, dense,
                    take);
      g = between, stride = padded<T>(C);
    }
    return;
  }
  T* row = scratch<T>(kRow, (W + 2) * C);
  T* dx = scratch<T>(kDeep, image);
  T* other = scratch<T>(kWide, image);
  for (Int b = 0; b < cell.B; ++b) {
    if (op.kind == kAverage) {
      std::copy_n(g + b * image, image, other);
      divide(H, W, C, other);
      pool_image<T, false>(other, H, W, C, row, dx);
    } else {
      // The largest of three rows.
      T* rows = scratch<T>(kImage, image);
      const T* of = x + b * image;
      for (Int h = 0; h < H; ++h)
        for (Int i = 0; i < W * C; ++i) {
          T most = of[h * W * C + i];
          if (h > 0) most = std::max(most, of[(h - 1) * W * C + i]);
          if (h + 1 < H) most = std::max(most, of[(h + 1) * W * C + i]);
          rows[h * W * C + i] = most;
        }
      max_gradient(rows, g + b * image, H, W, C, W * C, C, other);
      max_gradient(of, other, W, H, W * C, C, C, dx);
    }
    add(dx, image, fresh, g_x + b * image);
  }
}

// Computes gradients from g_states, the gradient with respect to all states;
// g_inputs and dw are written.
template <class T>
void cell_gradient(const Cell<T>& cell, const T* states, const T* g_states,
                   T* g_inputs, const std::vector<T*>& dw) {
  const Int n = cell.values(), O = Int(cell.ops.size());
  T* sums = scratch<T>(kStatesGradient, cell.S * n);
  std::copy_n(g_states, cell.S * n, sums);
  for (size_t i = 0; i < dw.size(); ++i)
    std::fill_n(dw[i], cell.N * cell.sizes[i], T(0));
  for (Int node = cell.N - 1; node >= 0; --node) {
    const int32_t* weight_S = cell.read_NxS + node * cell.S;
    const Int only = std::find_if(weight_S, weight_S + cell.S,
                                  [](int32_t w) { return w != 0; }) -
                     weight_S;
    const bool direct = cell.reads(node) == 1 && weight_S[only] == 1;
    T* g_x = direct ? sums + only * n : scratch<T>(kReadGradient, n);
    bool fresh = !direct;
    for (Int o = 0; o < O; ++o) {
      if (!cell.applies(node, o)) continue;
      op_gradient(cell, cell.ops[o], node, read(cell, node, states),
                  sums + cell.write_N[node] * n, dw, fresh, g_x);
      fresh = false;
    }
    if (!direct && !fresh)
      for (Int s = 0; s < cell.S; ++s)
        if (weight_S[s] != 0)
          add_times(g_x, T(weight_S[s]), n, false, sums + s * n);
  }
  std::copy_n(sums, cell.I * n, g_inputs);
}

}  // namespace jaxhypernas
