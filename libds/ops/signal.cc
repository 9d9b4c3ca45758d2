// DFT and STFT.
#include "kernels/fft.h"
#include "libds/ops/int_args.h"
#include "libds/ops/operands.h"
#include "libds/ops/register.h"

namespace ds {
namespace {

using kernels::DftShape;
using kernels::Fft;
using kernels::StftShape;
using ops::IntArgs;

constexpr int64_t kLongest = int64_t{1} << 30;  // keeps index arithmetic far from overflow

// The only element of an integer argument; nullopt when it is not given.
std::optional<int64_t> one_int(const std::optional<std::vector<int64_t>>& values, const char* what) {
  if (!values) return std::nullopt;
  if (values->size() != 1) bad_data("{} has {} elements, expected one", what, values->size());
  return (*values)[0];
}

int64_t positive(int64_t value, const char* what) {
  if (value < 1 || value > kLongest) bad_data("{} is {}", what, value);
  return value;
}

std::string declines_half(const KernelQuery& q) {
  return ops::require(!is_half(q.in(0).dtype), "16-bit floats");
}

// --- DFT: (x, length?, axis?) -> y ------------------------------------------------------------------

struct DftFlags {
  bool inverse, onesided;
  explicit DftFlags(const Node& n)
      : inverse(n.attr_int("inverse", 0) != 0), onesided(n.attr_int("onesided", 0) != 0) {}
};

int64_t dft_axis(std::optional<int64_t> axis, int64_t rank) {
  if (rank < 2) bad_data("its input has rank {}, at least [signal, components] is needed", rank);
  const int64_t a = ops::normalize_axis(axis.value_or(-2), rank);
  if (a == rank - 1) bad_data("the last axis holds real and imaginary parts and cannot be transformed");
  return a;
}

int64_t dft_components(const DftFlags& f, int64_t last) {
  if (last != 1 && last != 2) bad_data("the last axis has size {}, expected 1 (real) or 2 (complex)", last);
  if (f.onesided && !f.inverse && last != 1)
    bad_data("the one-sided transform of a complex signal is not defined");
  return f.onesided && f.inverse ? 1 : 2;
}

int64_t dft_length(const DftFlags& f, std::optional<int64_t> given, int64_t axis_size) {
  return positive(given.value_or(f.onesided && f.inverse ? 2 * (axis_size - 1) : axis_size),
                  "the length of the transform");
}

void infer_dft(InferContext& c) {
  ops::require_float(c, 0);
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  const DftFlags flags(c.node());
  Dims out = c.dims(0);
  if (out.size() < 2) c.error("the signal has rank {}; an axis to transform and one of components are needed", out.size());
  const Dim last = out.back();
  out.back() = last.known() ? dft_components(flags, last.raw) : flags.onesided && flags.inverse ? 1 : 2;
  const auto axes = c.has_input(2) ? c.concrete_ints(2) : std::vector<int64_t>{-2};
  if (!axes) {  // not known where, so any of them may change
    for (size_t i = 0; i + 1 < out.size(); ++i) out[i] = c.fresh_dim();
    return c.set_output(0, c.dtype(0), std::move(out));
  }
  const auto axis = static_cast<size_t>(dft_axis(one_int(axes, "axis"), static_cast<int64_t>(out.size())));
  const bool plain = !c.has_input(1) && !flags.onesided;  // keeps its length, symbol or not
  const auto given = c.has_input(1) ? one_int(c.concrete_ints(1), "dft_length") : std::nullopt;
  if (given || (!c.has_input(1) && out[axis].known())) {
    const int64_t n = dft_length(flags, given, out[axis].known() ? out[axis].raw : 0);
    out[axis] = flags.onesided && !flags.inverse ? n / 2 + 1 : n;
  } else if (!plain) {
    out[axis] = c.fresh_dim();
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

ops::RunFn plan_dft(const DftFlags& flags, const Shape& in, const IntArgs& args) {
  const auto rank = static_cast<int64_t>(in.size());
  const int64_t axis = dft_axis(one_int(args.size() > 2 ? args[2] : std::nullopt, "axis"), rank);
  DftShape s;
  for (int64_t i = 0; i < rank - 1; ++i)
    if (i != axis) (i < axis ? s.outer : s.inner) *= in[static_cast<size_t>(i)];
  s.in_length = in[static_cast<size_t>(axis)];
  s.in_components = in.back();
  s.length = dft_length(flags, one_int(args.size() > 1 ? args[1] : std::nullopt, "dft_length"), s.in_length);
  s.out_components = dft_components(flags, in.back());
  s.out_length = flags.onesided && !flags.inverse ? s.length / 2 + 1 : s.length;
  s.inverse = flags.inverse;
  s.half_input = flags.inverse && flags.onesided;
  return [s, fft = std::make_shared<const Fft>(s.length)](const KernelContext& c) {
    dispatch_float(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      kernels::dft<T>(s, *fft, c.input(0).data<T>(), c.output(0).mutable_data<T>());
    });
  };
}

// --- gradients ---------------------------------------------------------------------------------------

// The axis cut, or padded with zeros at its end, to `size`.
ValueId resized(GradContext& g, ValueId x, int64_t axis, int64_t size) {
  const Shape shape = g.shape(x);
  const int64_t now = shape[static_cast<size_t>(axis)];
  if (now > size) return g.emit("Slice", {x, g.ints({0}), g.ints({size}), g.ints({axis})});
  if (now == size) return x;
  std::vector<int64_t> pads(2 * shape.size(), 0);
  pads[shape.size() + static_cast<size_t>(axis)] = size - now;
  return g.emit("Pad", {x, g.ints(pads)});
}

ValueId transform(GradContext& g, ValueId x, int64_t length, int64_t axis, bool inverse, bool onesided) {
  const ValueId at = g.rewriter().add_constant("axis", Tensor::scalar(axis));
  const ValueId n = g.rewriter().add_constant("dft_length", Tensor::scalar(length));
  return g.emit("DFT", {x, n, at}, {{"inverse", int64_t{inverse}}, {"onesided", int64_t{onesided}}});
}

// The adjoint of the forward transform of `length` elements, applied to a spectrum, whole or half: the
// inverse without its factor. Real and imaginary parts.
ValueId adjoint(GradContext& g, ValueId d, int64_t axis, int64_t length) {
  const ValueId back = transform(g, resized(g, d, axis, length), length, axis, true, false);
  return g.emit("Mul", {back, g.scalar(static_cast<double>(length), g.dtype(d))});
}

std::optional<int64_t> constant_int(GradContext& g, size_t i, const char* what) {
  if (g.input(i) == kNone) return std::nullopt;
  const Tensor* t = g.rewriter().graph().value(g.input(i)).constant.get();
  if (t == nullptr) fail(ExitCode::kUnsupported, "{} is computed at run time", what);
  return one_int(t->to_ints(), what);
}

void grad_dft(GradContext& g) {
  if (!g.needs(0)) return;
  const DftFlags flags(g.node());
  const Shape in = g.shape(g.input(0));
  const int64_t axis = dft_axis(constant_int(g, 2, "axis"), static_cast<int64_t>(in.size()));
  const int64_t n = dft_length(flags, constant_int(g, 1, "dft_length"), in[static_cast<size_t>(axis)]);
  ValueId d = g.d_output(0);
  if (!flags.inverse) {
    d = adjoint(g, d, axis, n);
  } else {
    d = transform(g, d, n, axis, false, flags.onesided);
    // All but a half spectrum's elements that mirror themselves stand for two.
    std::vector<double> weight(static_cast<size_t>(g.shape(d)[static_cast<size_t>(axis)]),
                               1.0 / static_cast<double>(n));
    for (size_t k = 1; flags.onesided && 2 * k < static_cast<size_t>(n); ++k) weight[k] *= 2;
    Shape along(in.size(), 1);
    along[static_cast<size_t>(axis)] = static_cast<int64_t>(weight.size());
    const Tensor factor = Tensor::of<double>(along, weight).cast(g.dtype(d));
    d = g.emit("Mul", {d, g.rewriter().add_constant("weight", factor)});
  }
  d = resized(g, d, axis, in[static_cast<size_t>(axis)]);
  g.set_d_input(0, resized(g, d, static_cast<int64_t>(in.size()) - 1, in.back()));
}

void register_dft(OpRegistry& registry) {
  OpDef def;
  def.name = "DFT";
  def.min_inputs = 1;
  def.max_inputs = 3;
  def.infer = infer_dft;
  def.grad = grad_dft;
  def.shape_inputs = 0b110;
  KernelDef k;
  k.name = "portable/dft";
  k.decline = declines_half;
  k.create = [](const KernelQuery& q) {
    return ops::planned_kernel(q, 0b110, [flags = DftFlags(q.node), in = q.in(0).shape](const IntArgs& args) {
      return plan_dft(flags, in, args);
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

// --- STFT: (signal, frame_step, window?, frame_length?) -> y --------------------------------------------

int64_t stft_frames(int64_t signal, int64_t frame, int64_t step) {
  if (frame > signal) bad_data("a frame has {} elements, the signal {}", frame, signal);
  return (signal - frame) / step + 1;
}

bool stft_onesided(const Node& n) { return n.attr_int("onesided", 1) != 0; }

void check_stft_components(const Node& n, int64_t components) {
  if (components != 1 && components != 2)
    bad_data("the signal's last axis has size {}, expected 1 (real) or 2 (complex)", components);
  if (components == 2 && stft_onesided(n))
    bad_data("the one-sided transform of a complex signal is not defined");
}

// The length of a frame from the argument and the window, or else the signal.
int64_t stft_frame(std::optional<int64_t> given, std::optional<int64_t> window, int64_t signal) {
  if (given && window && *given != *window)
    bad_data("frame_length is {}, the window has {} elements", *given, *window);
  return positive(given ? *given : window.value_or(signal), "the length of a frame");
}

void infer_stft(InferContext& c) {
  ops::require_float(c, 0);
  if (c.has_input(2)) {
    ops::require_type(c, 2, c.dtype(0));
    if (c.has_dims(2)) c.require_rank(2, 1);
  }
  Dims out = {c.fresh_dim(), c.fresh_dim(), c.fresh_dim(), 2};
  Dim signal = c.fresh_dim();
  if (c.has_dims(0)) {
    c.require_rank(0, 3);
    out[0] = c.dims(0)[0];
    signal = c.dims(0)[1];
    if (c.dims(0)[2].known()) check_stft_components(c.node(), c.dims(0)[2].raw);
  }
  const auto step = one_int(c.concrete_ints(1), "frame_step");
  const auto given = c.has_input(3) ? one_int(c.concrete_ints(3), "frame_length") : std::nullopt;
  const bool frame_known = c.has_input(3)   ? given.has_value()
                           : c.has_input(2) ? c.has_dims(2) && c.dims(2)[0].known()
                                            : signal.known();
  if (step) positive(*step, "frame_step");
  if (frame_known) {
    const std::optional<int64_t> window =
        c.has_dims(2) && c.dims(2)[0].known() ? std::optional(c.dims(2)[0].raw) : std::nullopt;
    const int64_t frame = stft_frame(given, window, signal.known() ? signal.raw : 0);
    out[2] = stft_onesided(c.node()) ? frame / 2 + 1 : frame;
    if (step && signal.known()) out[1] = stft_frames(signal.raw, frame, *step);
  }
  c.set_output(0, c.dtype(0), std::move(out));
}

ops::RunFn plan_stft(bool onesided, const Shape& in, std::optional<int64_t> window, const IntArgs& args) {
  StftShape s;
  s.batch = in[0];
  s.length = in[1];
  s.components = in[2];
  s.step = positive(one_int(args[1], "frame_step").value_or(0), "frame_step");
  s.frame = stft_frame(one_int(args.size() > 3 ? args[3] : std::nullopt, "frame_length"), window, s.length);
  s.frames = stft_frames(s.length, s.frame, s.step);
  s.bins = onesided ? s.frame / 2 + 1 : s.frame;
  return [s, fft = std::make_shared<const Fft>(s.frame)](const KernelContext& c) {
    dispatch_float(c.input(0).dtype(), [&](auto tag) {
      using T = decltype(tag);
      kernels::stft<T>(s, *fft, c.input(0).data<T>(), c.has_input(2) ? c.input(2).data<T>() : nullptr,
                       c.output(0).mutable_data<T>());
    });
  };
}

// Legend: B sequences, F frames of W elements, C components.
void grad_stft(GradContext& g) {
  const Shape in = g.shape(g.input(0)), out = g.shape(g.output(0));
  const int64_t B = in[0], C = in[2], F = out[1];
  const int64_t step = constant_int(g, 1, "frame_step").value_or(0);
  const bool windowed = g.input(2) != kNone;
  const std::optional<int64_t> window = windowed ? std::optional(g.shape(g.input(2))[0]) : std::nullopt;
  const int64_t W = stft_frame(constant_int(g, 3, "frame_length"), window, in[1]);
  const std::vector<int64_t> channels_first = {0, 2, 1};
  // Gradient of the windowed frames, as columns of blocks: [B, C * W, F].
  ValueId d = resized(g, adjoint(g, g.d_output(0), 2, W), 3, C);
  d = g.emit("Transpose", {d}, {{"perm", std::vector<int64_t>{0, 3, 2, 1}}});
  const Attributes strides = {{"strides", std::vector<int64_t>{step}}};
  if (windowed && g.needs(2)) {
    Attributes blocks = strides;
    blocks["block_shape"] = std::vector<int64_t>{W};
    const ValueId frames =
        g.emit("Im2Col", {g.emit("Transpose", {g.input(0)}, {{"perm", channels_first}})}, blocks);
    const ValueId product = g.emit("Mul", {g.emit("Reshape", {frames, g.ints({B, C, W, F})}), d});
    g.set_d_input(2, g.emit("ReduceSum", {product, g.ints({0, 1, 3})}, {{"keepdims", int64_t{0}}}));
  }
  if (!g.needs(0)) return;
  if (windowed) d = g.emit("Mul", {d, g.emit("Reshape", {g.input(2), g.ints({W, 1})})});
  d = g.emit("Reshape", {d, g.ints({B, C * W, F})});
  d = g.emit("Col2Im", {d, g.ints({in[1]}), g.ints({W})}, strides);
  g.set_d_input(0, g.emit("Transpose", {d}, {{"perm", channels_first}}));
}

void register_stft(OpRegistry& registry) {
  OpDef def;
  def.name = "STFT";
  def.min_inputs = 2;
  def.max_inputs = 4;
  def.infer = infer_stft;
  def.grad = grad_stft;
  def.shape_inputs = 0b1010;
  KernelDef k;
  k.name = "portable/stft";
  k.decline = declines_half;
  k.create = [](const KernelQuery& q) {
    check_stft_components(q.node, q.in(0).dim(2));
    const std::optional<int64_t> window = q.in(2).defined() ? std::optional(q.in(2).dim(0)) : std::nullopt;
    return ops::planned_kernel(
        q, 0b1010, [onesided = stft_onesided(q.node), in = q.in(0).shape, window](const IntArgs& args) {
          return plan_stft(onesided, in, window, args);
        });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_signal_ops(OpRegistry& registry) {
  register_dft(registry);
  register_stft(registry);
}

}  // namespace ds
