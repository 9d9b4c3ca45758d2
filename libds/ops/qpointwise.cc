// Internal 8-bit operators that look at one element or one window at a time (passes/fuse_qdq.h, passes/fuse_qpointwise.h).
// Scales, zero points and bounds: as in ops/qfused.cc.
//
//   QAdd     a, b -> y                 QTable   x, table u8[256] -> y
//   QAffine  x, scale f32, shift f32 -> y: per position of the last axis, x * scale + shift
//   QBinary  a, b -> y: attribute `function` (Add, Sub, Mul, Div), with broadcasting
//   QMaxPool x -> y                    QGlobalAveragePool  x -> y [N, 1, 1, C]
#include <algorithm>
#include <string>
#include <tuple>
#include <utility>

#include "kernels/quant.h"
#include "kernels/quant_pointwise.h"
#include "libds/base/parallel.h"
#include "libds/ops/qparams.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

using ops::kQuantized;
using ops::quant_bounds;
using ops::quant_params;
using ops::quantized_output;
using ops::Window;

// Calls f with a byte of the right signedness.
template <typename F>
void dispatch_bytes(DType dtype, F&& f) {
  if (dtype == DType::kI8) f(int8_t{});
  else f(uint8_t{});
}

void register_qadd(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QAdd";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kQuantized);
    if (c.dtype(1) != c.dtype(0) || quantized_output(c.node()) != c.dtype(0)) c.error("operands and result differ in type");
    if (c.has_dims(0) && c.has_dims(1) && all_known(c.dims(0)) && all_known(c.dims(1)) && c.dims(0) != c.dims(1)) c.error("operands differ in shape");
    ops::infer_same_as_input(c);
  };
  KernelDef k;
  k.name = "portable/qadd";
  k.in_place = {{0, 0}, {1, 0}};
  k.create = [](const KernelQuery& q) {
    const auto a = quant_params(q.node, "a"), b = quant_params(q.node, "b"), y = quant_params(q.node, "y");
    return make_kernel([a, b, y, bounds = quant_bounds(q.node)](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_add(c.input(0).numel(), c.input(0).data<T>(), a, c.input(1).data<T>(), b, y, bounds.first, bounds.second, c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef vectors = k;
  vectors.name = "avx2/qadd";
  vectors.isa = Isa::kAvx2;
  vectors.create = [](const KernelQuery& q) {
    const auto a = quant_params(q.node, "a"), b = quant_params(q.node, "b"), y = quant_params(q.node, "y");
    return make_kernel([a, b, y, bounds = quant_bounds(q.node)](const KernelContext& c) {
      parallel_for(c.input(0).numel(), 1 << 15, [&](int64_t begin, int64_t end) {
        if (c.input(0).dtype() == DType::kI8)
          kernels::quant_add_i8_avx2(end - begin, c.input(0).data<int8_t>() + begin, a, c.input(1).data<int8_t>() + begin, b, y,
                                     bounds.first, bounds.second, c.output(0).mutable_data<int8_t>() + begin);
        else
          kernels::quant_add_u8_avx2(end - begin, c.input(0).data<uint8_t>() + begin, a, c.input(1).data<uint8_t>() + begin, b, y,
                                     bounds.first, bounds.second, c.output(0).mutable_data<uint8_t>() + begin);
      });
    });
  };
  def.kernels = {vectors, k};
  registry.add(std::move(def));
}

void register_qtable(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QTable";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kQuantized);
    c.require_dtype(1, {DType::kU8});
    if (c.has_dims(1) && c.dims(1) != Dims{256}) c.error("the table must have 256 entries");
    c.set_output(0, quantized_output(c.node()), c.input(0).dims);
  };
  KernelDef k;
  k.name = "portable/qtable";
  k.in_place = {{0, 0}};
  k.create = [](const KernelQuery&) {
    return make_kernel([](const KernelContext& c) {
      kernels::byte_table(c.input(0).numel(), static_cast<const uint8_t*>(c.input(0).raw()), c.input(1).data<uint8_t>(),
                          static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  const auto by = [&](const char* name, Isa isa, auto function) {
    KernelDef vectors = k;
    vectors.name = name;
    vectors.isa = isa;
    vectors.create = [function](const KernelQuery&) {
      return make_kernel([function](const KernelContext& c) {
        const auto* x = static_cast<const uint8_t*>(c.input(0).raw());
        auto* y = static_cast<uint8_t*>(c.output(0).mutable_raw());
        parallel_for(c.input(0).numel(), 1 << 16, [&](int64_t begin, int64_t end) { function(end - begin, x + begin, c.input(1).data<uint8_t>(), y + begin); });
      });
    };
    return vectors;
  };
  KernelDef large = by("avx512/qtable", Isa::kAvx512, kernels::byte_table_avx512);
  large.decline = [](const KernelQuery&) { return ops::require(kernels::cpu_has_vbmi(), "the CPU has no VBMI"); };
  def.kernels = {large, by("avx2/qtable", Isa::kAvx2, kernels::byte_table_avx2), k};
  registry.add(std::move(def));
}

// Type of an operand or the result as kernels want it.
kernels::QBytesType bytes_type(const Node& node, const char* prefix, DType dtype) {
  const bool is_signed = dtype == DType::kI8;
  return {quant_params(node, prefix), is_signed, is_signed ? -128 : 0, is_signed ? 127 : 255};
}
kernels::QBytesType result_type(const Node& node) {
  kernels::QBytesType y = bytes_type(node, "y", quantized_output(node));
  std::tie(y.lo, y.hi) = quant_bounds(node);
  return y;
}

void check_bytes_result(InferContext& c) {
  const DType out = quantized_output(c.node());
  if (out != DType::kU8 && out != DType::kI8) c.error("output type {} is not supported", dtype_name(out));
}

void register_qaffine(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QAffine";
  def.min_inputs = def.max_inputs = 3;
  def.infer = [](InferContext& c) {
    c.require_dtype(0, kQuantized);
    check_bytes_result(c);
    for (size_t i : {1, 2}) {
      c.require_dtype(i, {DType::kF32});
      c.require_rank(i, 1);
      if (c.has_dims(0) && c.dims(0).empty()) c.error("a scalar has no axis");
      if (c.has_dims(0) && c.has_dims(i) && c.dims(0).back().known() && c.dims(i)[0].known() && c.dims(0).back() != c.dims(i)[0])
        c.error("{} scales or shifts for {} positions", c.dims(i)[0].raw, c.dims(0).back().raw);
    }
    c.set_output(0, quantized_output(c.node()), c.input(0).dims);
  };
  const auto by = [](const char* name, Isa isa, auto function) {
    KernelDef k;
    k.name = name;
    k.isa = isa;
    k.in_place = {{0, 0}};
    k.create = [function](const KernelQuery& q) {
      const int64_t n = q.in(0).dim(-1), rows = n == 0 ? 0 : q.in(0).numel() / n;
      return make_kernel([function, n, rows, px = bytes_type(q.node, "x", q.in(0).dtype), py = result_type(q.node)](const KernelContext& c) {
        const auto* x = static_cast<const uint8_t*>(c.input(0).raw());
        auto* y = static_cast<uint8_t*>(c.output(0).mutable_raw());
        parallel_for(rows, (1 << 14) / (n + 1) + 1, [&](int64_t begin, int64_t end) {
          function(end - begin, n, x + begin * n, px, c.input(1).data<float>(), c.input(2).data<float>(), py, y + begin * n);
        });
      });
    };
    return k;
  };
  def.kernels = {by("avx512/qaffine", Isa::kAvx512, kernels::quant_affine_avx512), by("avx2/qaffine", Isa::kAvx2, kernels::quant_affine_avx2),
                 by("portable/qaffine", Isa::kPortable, kernels::quant_affine)};
  registry.add(std::move(def));
}

kernels::QBinaryOp binary_function(const Node& node) {
  const std::string name = node.attr_string("function", "");
  for (const auto& [known, function] : {std::pair{"Add", kernels::QBinaryOp::kAdd}, {"Sub", kernels::QBinaryOp::kSub},
                                        {"Mul", kernels::QBinaryOp::kMul}, {"Div", kernels::QBinaryOp::kDiv}})
    if (name == known) return function;
  bad_data("there is no function '{}'", name);
}

// The broadcasting of two operands as rows of n, of which each operand has an inner step of 0 or 1, and axes of rows, the
// innermost last. Neighbouring axes that are one for both operands are merged.
struct BroadcastRows {
  int64_t n = 1, a_step = 1, b_step = 1;
  Shape outer, a_strides, b_strides;

  BroadcastRows(const Shape& a, const Shape& b, const Shape& y) {
    int64_t a_size = 1, b_size = 1;  // elements of the axes passed
    bool first = true;
    for (size_t d = 0; d < y.size(); ++d) {
      const int64_t size = y[y.size() - 1 - d];
      const auto of = [&](const Shape& s) { return d < s.size() ? s[s.size() - 1 - d] : 1; };
      if (size == 1) continue;
      const int64_t a_stride = of(a) != 1 ? a_size : 0, b_stride = of(b) != 1 ? b_size : 0;
      a_size *= of(a);
      b_size *= of(b);
      if (first) {
        n = size;
        a_step = a_stride;
        b_step = b_stride;
        first = false;
      } else if (outer.empty() && a_stride == a_step * n && b_stride == b_step * n) {
        n *= size;
      } else if (!outer.empty() && a_stride == a_strides[0] * outer[0] && b_stride == b_strides[0] * outer[0]) {
        outer[0] *= size;
      } else {
        outer.insert(outer.begin(), size);
        a_strides.insert(a_strides.begin(), a_stride);
        b_strides.insert(b_strides.begin(), b_stride);
      }
    }
    if (outer.empty()) outer = a_strides = b_strides = {1};
  }
  int64_t rows() const { return checked_numel(outer); }
  // Offset of row r under strides.
  int64_t at(int64_t r, const Shape& strides) const {
    int64_t offset = 0;
    for (size_t d = outer.size(); d-- > 0; r /= outer[d]) offset += r % outer[d] * strides[d];
    return offset;
  }
};

void register_qbinary(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "QBinary";
  def.min_inputs = def.max_inputs = 2;
  def.infer = [](InferContext& c) {
    for (size_t i : {0, 1}) c.require_dtype(i, kQuantized);
    check_bytes_result(c);
    binary_function(c.node());
    c.set_output(0, quantized_output(c.node()), ops::broadcast_inputs(c));
  };
  const auto by = [](const char* name, Isa isa, auto function) {
    KernelDef k;
    k.name = name;
    k.isa = isa;
    k.create = [function](const KernelQuery& q) {
      return make_kernel([function, op = binary_function(q.node), lines = BroadcastRows(q.in(0).shape, q.in(1).shape, q.out(0).shape),
                          pa = bytes_type(q.node, "a", q.in(0).dtype), pb = bytes_type(q.node, "b", q.in(1).dtype),
                          py = result_type(q.node)](const KernelContext& c) {
        if (c.output(0).numel() == 0) return;
        const auto *a = static_cast<const uint8_t*>(c.input(0).raw()), *b = static_cast<const uint8_t*>(c.input(1).raw());
        auto* y = static_cast<uint8_t*>(c.output(0).mutable_raw());
        // Pieces of long rows, or several short rows that lie evenly.
        constexpr int64_t kGrain = 1 << 14;
        const int64_t parts = (lines.n + kGrain - 1) / kGrain, together = std::min(lines.outer.back(), kGrain / lines.n + 1);
        const int64_t groups = (lines.outer.back() + together - 1) / together, outer = lines.rows() / lines.outer.back();
        parallel_for(outer * groups * parts, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            const int64_t from = i % parts * kGrain, n = parts == 1 ? lines.n : std::min(kGrain, lines.n - from);
            const int64_t group = i / parts % groups, rows = parts == 1 ? std::min(together, lines.outer.back() - group * together) : 1;
            const int64_t r = i / parts / groups * lines.outer.back() + group * together;
            function({op, rows, n, a + lines.at(r, lines.a_strides) + from * lines.a_step, lines.a_strides.back(), lines.a_step,
                      b + lines.at(r, lines.b_strides) + from * lines.b_step, lines.b_strides.back(), lines.b_step, y + r * lines.n + from}, pa, pb, py);
          }
        });
      });
    };
    return k;
  };
  def.kernels = {by("avx512/qbinary", Isa::kAvx512, kernels::quant_binary_avx512), by("avx2/qbinary", Isa::kAvx2, kernels::quant_binary_avx2),
                 by("portable/qbinary", Isa::kPortable, kernels::quant_binary)};
  registry.add(std::move(def));
}

kernels::QPoolShape pool_shape(const KernelQuery& q) {
  const Shape &x = q.in(0).shape, &y = q.out(0).shape;
  const Window w = ops::resolve_padding(ops::window_of(q.node, q.node.attr_ints("kernel_shape")), Shape{x[1], x[2]});
  return {x[0], x[1], x[2], x[3], y[1], y[2], w.kernel[0], w.kernel[1], w.stride[0], w.stride[1], w.dilation[0], w.dilation[1], w.pad_begin[0], w.pad_begin[1]};
}

void register_qpool(OpRegistry& registry) {
  OpDef max;
  max.domain = Graph::kInternalDomain;
  max.name = "QMaxPool";
  max.min_inputs = max.max_inputs = 1;
  max.infer = [](InferContext& c) {
    c.require_dtype(0, kQuantized);
    c.require_rank(0, 4);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    const Dims x = c.dims(0);
    const Window window = ops::window_of(c.node(), c.node().attr_ints("kernel_shape"));
    c.set_output(0, c.dtype(0), Dims{x[0], ops::output_dim(c, window, 0, x[1]), ops::output_dim(c, window, 1, x[2]), x[3]});
  };
  KernelDef k;
  k.name = "portable/qmax_pool";
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = pool_shape(q)](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_max_pool(s, c.input(0).data<T>(), c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef vectors = k;
  vectors.name = "avx2/qmax_pool";
  vectors.isa = Isa::kAvx2;
  vectors.create = [](const KernelQuery& q) {
    return make_kernel([s = pool_shape(q)](const KernelContext& c) {
      kernels::quant_max_pool_avx2(s, c.input(0).dtype() == DType::kI8, static_cast<const uint8_t*>(c.input(0).raw()),
                                   static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  max.kernels = {vectors, k};
  registry.add(std::move(max));

  OpDef mean;
  mean.domain = Graph::kInternalDomain;
  mean.name = "QGlobalAveragePool";
  mean.min_inputs = mean.max_inputs = 1;
  mean.infer = [](InferContext& c) {
    c.require_dtype(0, kQuantized);
    c.require_rank(0, 4);
    if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
    c.set_output(0, c.dtype(0), Dims{c.dims(0)[0], 1, 1, c.dims(0)[3]});
  };
  KernelDef m;
  m.name = "portable/qglobal_average_pool";
  m.create = [](const KernelQuery& q) {
    const Shape x = q.in(0).shape;
    return make_kernel([x, px = quant_params(q.node, "x"), py = quant_params(q.node, "y")](const KernelContext& c) {
      dispatch_bytes(c.input(0).dtype(), [&](auto tag) {
        using T = decltype(tag);
        kernels::quant_global_average(x[0], x[1] * x[2], x[3], c.input(0).data<T>(), px, py, c.output(0).mutable_data<T>());
      });
    });
  };
  KernelDef summed = m;
  summed.name = "avx2/qglobal_average_pool";
  summed.isa = Isa::kAvx2;
  summed.decline = [](const KernelQuery& q) {
    return ops::require(q.in(0).dim(1) * q.in(0).dim(2) < kernels::kMostAveragedPixels, "sums of more than 32 bits");
  };
  summed.create = [](const KernelQuery& q) {
    const Shape x = q.in(0).shape;
    return make_kernel([x, px = quant_params(q.node, "x"), py = quant_params(q.node, "y")](const KernelContext& c) {
      kernels::quant_global_average_avx2(x[0], x[1] * x[2], x[3], c.input(0).dtype() == DType::kI8, static_cast<const uint8_t*>(c.input(0).raw()),
                                         px, py, static_cast<uint8_t*>(c.output(0).mutable_raw()));
    });
  };
  mean.kernels = {summed, m};
  registry.add(std::move(mean));
}

}  // namespace

void register_qpointwise_ops(OpRegistry& registry) {
  register_qadd(registry);
  register_qtable(registry);
  register_qaffine(registry);
  register_qbinary(registry);
  register_qpool(registry);
}

}  // namespace ds
