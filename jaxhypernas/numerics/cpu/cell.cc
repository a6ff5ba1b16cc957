// A cell of a target network on one core, and its gradient; and a ReLU, convolution, BatchNorm alone. Bound to XLA.
#include "layers.h"
#include "xla/ffi/api/ffi.h"

namespace jaxhypernas {
namespace {

namespace ffi = xla::ffi;

enum Kind : Int { kSkip, kAverage, kMaximum, kLayers };

// The ops of a space, from the flat list of numbers that Python sends: kind, number of layers, then for each layer the
// depthwise kernel and dilation (0, 0: none) and the dense kernel's height and width.
struct Op {
  Kind kind;
  std::vector<Layer> layers;
  Int weights;  // index of its first array
};

std::vector<Op> parse(ffi::Span<const Int> numbers) {
  std::vector<Op> ops;
  Int weights = 0;
  for (size_t i = 0; i < numbers.size();) {
    Op op{Kind(numbers[i]), {}, weights};
    const Int layers = numbers[i + 1];
    i += 2;
    for (Int l = 0; l < layers; ++l, i += 4) {
      op.layers.push_back({numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3], 1});
      weights += numbers[i] > 0 ? 2 : 1;
    }
    ops.push_back(op);
  }
  return ops;
}

// What all nodes of a cell share.
template <class T>
struct Cell {
  Int N, S, I, B, H, W, C;  // nodes, states, those that are inputs
  const int32_t *op_NxO, *read_NxS;
  ffi::Span<const Int> write_N;
  std::vector<Op> ops;
  std::vector<const T*> weights;  // the arrays of all nodes
  std::vector<Int> sizes;         // of one node's

  Int values() const { return B * H * W * C; }
  Int reads(Int node) const { return S - std::count(read_NxS + node * S, read_NxS + (node + 1) * S, 0); }
  // Whether the node applies the op: to nothing, all ops give 0.
  bool applies(Int node, Int op) const { return op_NxO[node * Int(ops.size()) + op] != 0 && reads(node) > 0; }
  const T* weight(Int at, Int node) const { return weights[at] + node * sizes[at]; }
  Images<T> images(const T* data) const { return {data, B, H, W, C, C, true}; }
};

// The layers of an op, run on x: the images that each reads, and what it computes.
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
      outputs.push_back(run.own_output(int(outputs.size())));
      run.forward(weights.back(), outputs.back());
      const Output<T>& out = outputs.back();
      images = {out.y, cell.B, cell.H, cell.W, cell.C, out.stride, true, out.mean, out.scale};
    }
  }
};

// to = or += what BatchNorm makes of y.
template <class T>
void add_normalised(const Output<T>& out, Int positions, Int C, bool fresh, T* to) {
  if (out.stride == C) {
    for (Int i = 0; i < positions; ++i)
      for (Int c = 0; c < C; c += kLanes<T>) {
        const V<T> v = (load(out.y + i * C + c) - load(out.mean + c)) * load(out.scale + c);
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
  for (Int i = 0; i < n; ++i) to[i] = fresh ? times * from[i] : to[i] + times * from[i];
}

// The sum of the states that a node reads: the state itself if it is one.
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
      add_times(states + std::max<Int>(first, 0) * cell.values(), T(first >= 0), cell.values(), true, sum);
    }
    add_times(states + s * cell.values(), T(weight_S[s]), cell.values(), false, sum);
  }
  return sum != nullptr ? sum : states + std::max<Int>(first, 0) * cell.values();
}

template <class T>
void run_cell(const Cell<T>& cell, const T* inputs, T* states) {
  const Int n = cell.values(), image = cell.H * cell.W * cell.C, O = Int(cell.ops.size());
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
        add_normalised(run.outputs.back(), cell.B * cell.H * cell.W, cell.C, fresh, state);
      } else {
        T* row = scratch<T>(kRow, (cell.W + 2) * cell.C);
        T* pooled = scratch<T>(kBetween, image);
        for (Int b = 0; b < cell.B; ++b) {
          if (op.kind == kAverage) {
            pool_image<T, false>(x + b * image, cell.H, cell.W, cell.C, row, pooled);
            divide(cell.H, cell.W, cell.C, pooled);
          } else {
            pool_image<T, true>(x + b * image, cell.H, cell.W, cell.C, row, pooled);
          }
          add(pooled, image, fresh, state + b * image);
        }
      }
    }
}

// g_x of an op, added to `g_x` (or written there); its weights' gradients are written to dw.
template <class T>
void op_gradient(const Cell<T>& cell, const Op& op, Int node, const T* x, const T* g, const std::vector<T*>& dw,
                 bool fresh, T* g_x) {
  const Int n = cell.values(), H = cell.H, W = cell.W, C = cell.C, image = H * W * C;
  if (op.kind == kSkip) return add(g, n, fresh, g_x);
  if (op.kind == kLayers) {
    OpRun<T> run(cell, op, node, x);
    Int at = op.weights + (op.layers[0].deep > 0 ? 2 : 1) * Int(op.layers.size());
    Int stride = C;
    for (Int l = Int(op.layers.size()) - 1; l >= 0; --l) {
      --at;
      T* dense = dw[at] + node * cell.sizes[at];
      if (op.layers[l].deep > 0) --at;
      T* deep = dw[at] + node * cell.sizes[at];  // not written where there is none
      const Int padded_image = H * W * padded<T>(C);
      T* between = l > 0 ? scratch<T>(kBetween + l % 2, cell.B * padded_image) : nullptr;
      const auto take = [&](Int b, const T* dx, Int dx_stride) {
        if (l > 0) {
          std::copy_n(dx, padded_image, between + b * padded_image);
        } else if (dx_stride == C) {
          add(dx, image, fresh, g_x + b * image);
        } else {
          for (Int i = 0; i < H * W; ++i) add(dx + i * dx_stride, C, fresh, g_x + b * image + i * C);
        }
      };
      LayerRun<T>(op.layers[l], run.inputs[l], C)
          .backward(run.weights[l], run.outputs[l], g, stride, deep, dense, take);
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
      T* rows = scratch<T>(kImage, image);  // the largest of three rows
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

// g_states: with respect to the states that the cell gives; g_inputs and dw are written.
template <class T>
void cell_gradient(const Cell<T>& cell, const T* states, const T* g_states, T* g_inputs, const std::vector<T*>& dw) {
  const Int n = cell.values(), O = Int(cell.ops.size());
  T* sums = scratch<T>(kReadGradient, cell.S * n);
  std::copy_n(g_states, cell.S * n, sums);
  for (size_t i = 0; i < dw.size(); ++i) std::fill_n(dw[i], cell.N * cell.sizes[i], T(0));
  for (Int node = cell.N - 1; node >= 0; --node) {
    const int32_t* weight_S = cell.read_NxS + node * cell.S;
    const Int only = std::find_if(weight_S, weight_S + cell.S, [](int32_t w) { return w != 0; }) - weight_S;
    const bool direct = cell.reads(node) == 1 && weight_S[only] == 1;
    T* g_x = direct ? sums + only * n : scratch<T>(kReadGradient + 1, n);
    bool fresh = !direct;
    for (Int o = 0; o < O; ++o) {
      if (!cell.applies(node, o)) continue;
      op_gradient(cell, cell.ops[o], node, read(cell, node, states), sums + cell.write_N[node] * n, dw, fresh, g_x);
      fresh = false;
    }
    if (!direct && !fresh)
      for (Int s = 0; s < cell.S; ++s)
        if (weight_S[s] != 0) add_times(g_x, T(weight_S[s]), n, false, sums + s * n);
  }
  std::copy_n(sums, cell.I * n, g_inputs);
}

// --- Bindings --------------------------------------------------------------------------------------------------------

// For the type of `buffer`: f(T()).
template <class F>
ffi::Error dispatch(const ffi::AnyBuffer& buffer, F f) {
  if (buffer.element_type() == ffi::F32) return f(float()), ffi::Error::Success();
  if (buffer.element_type() == ffi::F64) return f(double()), ffi::Error::Success();
  return ffi::Error::InvalidArgument("jaxhypernas: images must be float32 or float64");
}

using Numbers = ffi::Span<const Int>;

template <class T>
T* values(ffi::AnyBuffer x) {
  return reinterpret_cast<T*>(x.untyped_data());
}

template <class T>
Cell<T> make_cell(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read, ffi::Span<const Int> image, Int inputs,
                  ffi::RemainingArgs weights, Numbers write, Numbers ops) {
  Cell<T> cell{op.dimensions()[0], read.dimensions()[1], inputs, image[0],   image[1], image[2], image[3],
               op.typed_data(),    read.typed_data(),    write,  parse(ops), {},       {}};
  for (size_t i = 0; i < weights.size(); ++i) {
    const ffi::AnyBuffer w = weights.get<ffi::AnyBuffer>(i).value();
    cell.weights.push_back(values<T>(w));
    cell.sizes.push_back(Int(w.element_count()) / cell.N);
  }
  return cell;
}

ffi::Error cell(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read, ffi::AnyBuffer inputs, ffi::RemainingArgs weights,
                ffi::Result<ffi::AnyBuffer> states, Numbers write, Numbers ops) {
  return dispatch(inputs, [&](auto zero) {
    using T = decltype(zero);
    const auto shape = inputs.dimensions();
    const auto c = make_cell<T>(op, read, Numbers(shape.begin() + 1, 4), shape[0], weights, write, ops);
    run_cell(c, values<T>(inputs), values<T>(*states));
  });
}

ffi::Error cell_grad(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read, ffi::AnyBuffer states,
                     ffi::AnyBuffer g_states, ffi::RemainingArgs weights, ffi::Result<ffi::AnyBuffer> g_inputs,
                     ffi::RemainingRets g_weights, Numbers write, Numbers ops) {
  return dispatch(states, [&](auto zero) {
    using T = decltype(zero);
    const auto shape = states.dimensions();
    const Int inputs = g_inputs->dimensions()[0];
    const auto c = make_cell<T>(op, read, Numbers(shape.begin() + 1, 4), inputs, weights, write, ops);
    std::vector<T*> dw;
    for (size_t i = 0; i < g_weights.size(); ++i) dw.push_back(values<T>(*g_weights.get<ffi::AnyBuffer>(i).value()));
    cell_gradient(c, values<T>(states), values<T>(g_states), values<T>(*g_inputs), dw);
  });
}

template <class T>
Images<T> images_of(ffi::AnyBuffer x, bool relu) {
  const auto d = x.dimensions();
  return {values<T>(x), d[0], d[1], d[2], d[3], d[3], relu};
}

// y, mean and scale (padded channels): what the gradients need to know.
ffi::Error conv_norm(ffi::AnyBuffer x, ffi::AnyBuffer w, ffi::Result<ffi::AnyBuffer> z, ffi::Result<ffi::AnyBuffer> y,
                     ffi::Result<ffi::AnyBuffer> mean, ffi::Result<ffi::AnyBuffer> scale, Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = w.dimensions();
    const auto images = images_of<T>(x, relu);
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images, k[3]);
    const auto out = run.output(values<T>(*y), values<T>(*mean), values<T>(*scale));
    run.forward({nullptr, values<T>(w)}, out);
    add_normalised(out, images.B * out.H * out.W, k[3], true, values<T>(*z));
  });
}

ffi::Error conv_norm_dx(ffi::AnyBuffer x, ffi::AnyBuffer w, ffi::AnyBuffer y, ffi::AnyBuffer mean, ffi::AnyBuffer scale,
                        ffi::AnyBuffer g, ffi::Result<ffi::AnyBuffer> dx, Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = w.dimensions();
    const auto images = images_of<T>(x, relu);
    const Int positions = images.H * images.W;
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images, k[3]);
    const auto take = [&](Int b, const T* of, Int step) {
      for (Int i = 0; i < positions; ++i)
        std::copy_n(of + i * step, images.C, values<T>(*dx) + (b * positions + i) * images.C);
    };
    run.backward({nullptr, values<T>(w)}, run.output(values<T>(y), values<T>(mean), values<T>(scale)), values<T>(g),
                 k[3], nullptr, nullptr, take);
  });
}

ffi::Error conv_norm_dw(ffi::AnyBuffer x, ffi::AnyBuffer y, ffi::AnyBuffer mean, ffi::AnyBuffer scale, ffi::AnyBuffer g,
                        ffi::Result<ffi::AnyBuffer> dw, Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = dw->dimensions();
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images_of<T>(x, relu), k[3]);
    run.backward({nullptr, nullptr}, run.output(values<T>(y), values<T>(mean), values<T>(scale)), values<T>(g), k[3],
                 nullptr, values<T>(*dw), nullptr);
  });
}

}  // namespace
}  // namespace jaxhypernas

using xla::ffi::AnyBuffer;
using xla::ffi::Buffer;
using xla::ffi::Ffi;
using Ints = Buffer<xla::ffi::S32>;
using Numbers = xla::ffi::Span<const int64_t>;

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_cell, jaxhypernas::cell,
                              Ffi::Bind()
                                  .Arg<Ints>()
                                  .Arg<Ints>()
                                  .Arg<AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<AnyBuffer>()
                                  .Attr<Numbers>("write")
                                  .Attr<Numbers>("ops"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_cell_grad, jaxhypernas::cell_grad,
                              Ffi::Bind()
                                  .Arg<Ints>()
                                  .Arg<Ints>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .RemainingArgs()
                                  .Ret<AnyBuffer>()
                                  .RemainingRets()
                                  .Attr<Numbers>("write")
                                  .Attr<Numbers>("ops"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_conv_norm, jaxhypernas::conv_norm,
                              Ffi::Bind()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Attr<int64_t>("stride")
                                  .Attr<bool>("relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_conv_norm_dx, jaxhypernas::conv_norm_dx,
                              Ffi::Bind()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Attr<int64_t>("stride")
                                  .Attr<bool>("relu"));
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_conv_norm_dw, jaxhypernas::conv_norm_dw,
                              Ffi::Bind()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Attr<int64_t>("stride")
                                  .Attr<bool>("relu"));
