// Cells and layers as functions that XLA calls. `FUNCTIONS` in library.py lists
// them.
#include "cell.h"
#include "xla/ffi/api/ffi.h"

namespace jaxhypernas {
namespace {

namespace ffi = xla::ffi;

// Runs f with a zero of the buffer's type.
template <class F>
ffi::Error dispatch(const ffi::AnyBuffer& buffer, F f) {
  if (buffer.element_type() == ffi::F32)
    return f(float()), ffi::Error::Success();
  if (buffer.element_type() == ffi::F64)
    return f(double()), ffi::Error::Success();
  return ffi::Error::InvalidArgument(
      "jaxhypernas: images must be float32 or float64");
}

using Numbers = ffi::Span<const Int>;

template <class T>
T* values(ffi::AnyBuffer x) {
  return reinterpret_cast<T*>(x.untyped_data());
}

template <class T>
Cell<T> make_cell(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read,
                  ffi::Span<const Int> image, Int inputs,
                  ffi::RemainingArgs weights, Numbers write, Numbers ops) {
  Cell<T> cell{op.dimensions()[0],
               read.dimensions()[1],
               inputs,
               image[0],
               image[1],
               image[2],
               image[3],
               op.typed_data(),
               read.typed_data(),
               write,
               parse(ops),
               {},
               {}};
  for (size_t i = 0; i < weights.size(); ++i) {
    const ffi::AnyBuffer w = weights.get<ffi::AnyBuffer>(i).value();
    cell.weights.push_back(values<T>(w));
    cell.sizes.push_back(Int(w.element_count()) / cell.N);
  }
  return cell;
}

ffi::Error cell(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read,
                ffi::AnyBuffer inputs, ffi::RemainingArgs weights,
                ffi::Result<ffi::AnyBuffer> states, Numbers write,
                Numbers ops) {
  return dispatch(inputs, [&](auto zero) {
    using T = decltype(zero);
    const auto shape = inputs.dimensions();
    const auto c = make_cell<T>(op, read, Numbers(shape.begin() + 1, 4),
                                shape[0], weights, write, ops);
    run_cell(c, values<T>(inputs), values<T>(*states));
  });
}

ffi::Error cell_grad(ffi::Buffer<ffi::S32> op, ffi::Buffer<ffi::S32> read,
                     ffi::AnyBuffer states, ffi::AnyBuffer g_states,
                     ffi::RemainingArgs weights,
                     ffi::Result<ffi::AnyBuffer> g_inputs,
                     ffi::RemainingRets g_weights, Numbers write, Numbers ops) {
  return dispatch(states, [&](auto zero) {
    using T = decltype(zero);
    const auto shape = states.dimensions();
    const Int inputs = g_inputs->dimensions()[0];
    const auto c = make_cell<T>(op, read, Numbers(shape.begin() + 1, 4), inputs,
                                weights, write, ops);
    std::vector<T*> dw;
    for (size_t i = 0; i < g_weights.size(); ++i)
      dw.push_back(values<T>(*g_weights.get<ffi::AnyBuffer>(i).value()));
    cell_gradient(c, values<T>(states), values<T>(g_states),
                  values<T>(*g_inputs), dw);
  });
}

template <class T>
Images<T> images_of(ffi::AnyBuffer x, bool relu) {
  const auto d = x.dimensions();
  return {values<T>(x), d[0], d[1], d[2], d[3], d[3], relu};
}

// Gives z, and what the gradients need: y, mean and scale, of padded channels.
ffi::Error conv_norm(ffi::AnyBuffer x, ffi::AnyBuffer w,
                     ffi::Result<ffi::AnyBuffer> z,
                     ffi::Result<ffi::AnyBuffer> y,
                     ffi::Result<ffi::AnyBuffer> mean,
                     ffi::Result<ffi::AnyBuffer> scale, Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = w.dimensions();
    const auto images = images_of<T>(x, relu);
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images, k[3]);
    const auto out =
        run.output(values<T>(*y), values<T>(*mean), values<T>(*scale));
    run.forward({nullptr, values<T>(w)}, out);
    add_normalised(out, images.B * out.H * out.W, k[3], true, values<T>(*z));
  });
}

ffi::Error conv_norm_dx(ffi::AnyBuffer x, ffi::AnyBuffer w, ffi::AnyBuffer y,
                        ffi::AnyBuffer mean, ffi::AnyBuffer scale,
                        ffi::AnyBuffer g, ffi::Result<ffi::AnyBuffer> dx,
                        Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = w.dimensions();
    const auto images = images_of<T>(x, relu);
    const Int positions = images.H * images.W;
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images, k[3]);
    const auto take = [&](Int b, const T* of, Int step) {
      for (Int i = 0; i < positions; ++i)
        std::copy_n(of + i * step, images.C,
                    values<T>(*dx) + (b * positions + i) * images.C);
    };
    run.backward({nullptr, values<T>(w)},
                 run.output(values<T>(y), values<T>(mean), values<T>(scale)),
                 values<T>(g), k[3], nullptr, nullptr, take);
  });
}

ffi::Error conv_norm_dw(ffi::AnyBuffer x, ffi::AnyBuffer y, ffi::AnyBuffer mean,
                        ffi::AnyBuffer scale, ffi::AnyBuffer g,
                        ffi::Result<ffi::AnyBuffer> dw, Int stride, bool relu) {
  return dispatch(x, [&](auto zero) {
    using T = decltype(zero);
    const auto k = dw->dimensions();
    LayerRun<T> run({0, 0, k[0], k[1], stride}, images_of<T>(x, relu), k[3]);
    run.backward({nullptr, nullptr},
                 run.output(values<T>(y), values<T>(mean), values<T>(scale)),
                 values<T>(g), k[3], nullptr, values<T>(*dw), nullptr);
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_conv_norm_dx,
                              jaxhypernas::conv_norm_dx,
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
XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxhypernas_conv_norm_dw,
                              jaxhypernas::conv_norm_dw,
                              Ffi::Bind()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Arg<AnyBuffer>()
                                  .Ret<AnyBuffer>()
                                  .Attr<int64_t>("stride")
                                  .Attr<bool>("relu"));
