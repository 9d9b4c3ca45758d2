// Operators on weights packed in 2, 4 or 8 bits, which stay packed in memory: MatMulNBits and GatherBlockQuantized of
// com.microsoft, and ai.ds.WeightOnlyMatMul, which passes/fuse_weight_only.h puts in place of a product with
// dequantized weights:
//
//   x [..., K], w [K, N] or, with trans_b, [N, K], scale, zero?, bias [N]?  -> y [..., N]
//
// w holds 4 or 8 bits, constant like scale and zero. block_size 0: one scale, or one a column; else [blocks, N] or, with
// trans_b, [N, blocks].
#include <algorithm>

#include "kernels/nbits.h"
#include "kernels/nbits_panels.h"
#include "kernels/quant_any.h"
#include "libds/base/parallel.h"
#include "libds/ops/common.h"
#include "libds/ops/register.h"
#include "libds/ops/window.h"

namespace ds {
namespace {

constexpr const char* kDomain = "com.microsoft";
constexpr std::initializer_list<DType> kFloats = {DType::kF32, DType::kF16, DType::kBF16};

// `what`: "b has", "the scales have".
void check_numel(InferContext& c, size_t i, int64_t expected, const char* what) {
  if (!c.has_dims(i) || !all_known(c.dims(i))) return;
  const int64_t n = checked_numel(concrete(c.dims(i)));
  if (n != expected) c.error("{} {} values, expected {}", what, n, expected);
}

int64_t checked_bits(const Node& node, std::initializer_list<int64_t> allowed) {
  const int64_t bits = node.attr_int("bits", 4);
  if (std::find(allowed.begin(), allowed.end(), bits) == allowed.end()) fail(ExitCode::kUnsupported, "weights of {} bits are not supported", bits);
  return bits;
}

int64_t checked_block(const Node& node, int64_t otherwise) {
  const int64_t block = node.attr_int("block_size", otherwise);
  if (block < 16 || (block & (block - 1)) != 0) bad_data("block_size is {}, expected a power of two from 16 on", block);
  return block;
}

// --- MatMulNBits --------------------------------------------------------------------------------

// Geometry by attributes; the pointers are set for each run.
kernels::NBitsWeights weights_of(const Node& node) {
  kernels::NBitsWeights w;
  w.columns = node.attr_int("N", 0);
  w.depth = node.attr_int("K", 0);
  w.bits = static_cast<int>(checked_bits(node, {2, 4, 8}));
  w.block = checked_block(node, 0);
  if (w.columns < 1 || w.depth < 1) bad_data("N is {} and K {}, expected positive numbers", w.columns, w.depth);
  checked_mul(checked_mul(w.columns, w.depth + w.block), 8);
  return w;
}

void infer_matmul_nbits(InferContext& c) {  // a, b, scales, zero points?, g_idx?, bias?
  const kernels::NBitsWeights w = weights_of(c.node());
  c.require_dtype(0, kFloats);
  c.require_dtype(1, {DType::kU8});
  c.require_dtype(2, {c.dtype(0)});
  c.require_dtype(3, {DType::kU8, c.dtype(0)});
  c.require_dtype(4, {DType::kI32});
  c.require_dtype(5, {c.dtype(0)});
  check_numel(c, 1, w.columns * w.blocks() * w.block_bytes(), "b has");
  check_numel(c, 2, w.columns * w.blocks(), "the scales have");
  if (c.has_input(3)) check_numel(c, 3, c.dtype(3) == DType::kU8 ? w.columns * w.zero_bytes() : w.columns * w.blocks(), "the zero points have");
  check_numel(c, 4, c.has_dims(4) && c.dims(4) == Dims{Dim(w.blocks() * w.block)} ? w.blocks() * w.block : w.depth, "g_idx has");
  check_numel(c, 5, w.columns, "bias has");
  if (!c.has_dims(0)) return c.set_output(0, c.dtype(0));
  Dims y = c.dims(0);
  if (y.empty()) c.error("a scalar has no rows");
  if (y.back().known() && y.back().raw != w.depth) c.error("a has rows of {} values, K is {}", y.back().raw, w.depth);
  y.back() = Dim(w.columns);
  c.set_output(0, c.dtype(0), std::move(y));
}

// What needs the 8-bit way of onnxruntime's accuracy_level 4.
constexpr int64_t kRoundedLevel = 4;

class PanelKernel final : public Kernel {
 public:
  // `bias`: which input.
  PanelKernel(kernels::NBitsPanels w, int64_t rows, bool rounded, size_t bias, int threads)
      : w_(std::move(w)), rows_(rows), rounded_(rounded), bias_(bias), threads_(threads) {}
  size_t workspace_bytes() const override { return kernels::nbits_workspace(w_, rows_, rounded_, threads_); }
  size_t packed_bytes() const override { return w_.bytes(); }
  void run(const KernelContext& c) override {
    kernels::matmul_nbits_panels(w_, rows_, c.input(0).data<float>(), c.has_input(bias_) ? c.input(bias_).data<float>() : nullptr, rounded_,
                                 c.output(0).mutable_data<float>(), threads_, c.workspace());
  }

 private:
  kernels::NBitsPanels w_;
  int64_t rows_;
  bool rounded_;
  size_t bias_;
  int threads_;
};

void set_zero(kernels::NBitsWeights& w, const Tensor& zero) {
  if (zero.dtype() == DType::kU8) w.zero = zero.data<uint8_t>();
  else w.float_zero = zero.data<float>();
}

KernelDef nbits_panel_kernel() {
  KernelDef k;
  k.name = "avx512/matmul_nbits";
  k.isa = Isa::kAvx512;
  k.decline = [](const KernelQuery& q) -> std::string {
    if (q.in(0).dtype != DType::kF32) return "not f32";
    if (q.in(4).defined()) return "g_idx";
    for (size_t i = 1; i < 4; ++i)
      if (q.in(i).defined() && q.constant(i) == nullptr) return "weights are not constant";
    if (!q.in(3).defined()) return {};
    kernels::NBitsWeights w = weights_of(q.node);
    set_zero(w, *q.constant(3));
    const char* why = kernels::why_no_panels(w);
    return why != nullptr ? why : std::string();
  };
  k.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    kernels::NBitsWeights w = weights_of(q.node);
    const Tensor data = q.constant(1)->transient();
    w.data = data.data<uint8_t>();
    w.scale = q.constant(2)->data<float>();
    if (q.in(3).defined()) set_zero(w, *q.constant(3));
    const bool rounded = q.node.attr_int("accuracy_level", 0) == kRoundedLevel && q.isa >= Isa::kVnni && w.block <= kernels::kMostRoundedBlock;
    return std::make_unique<PanelKernel>(kernels::pack_nbits(w), q.in(0).numel() / w.depth, rounded, 5, q.threads);
  };
  return k;
}

KernelDef nbits_kernel(const char* name, Isa level, const kernels::NBitsIsa& (*isa)()) {
  KernelDef k;
  k.name = name;
  k.isa = level;
  k.decline = [](const KernelQuery& q) { return ops::require(q.in(0).dtype == DType::kF32, "not f32"); };
  k.create = [isa](const KernelQuery& q) {
    return make_kernel([isa, given = weights_of(q.node)](const KernelContext& c) {
      kernels::NBitsWeights w = given;
      w.data = c.input(1).data<uint8_t>();
      w.scale = c.input(2).data<float>();
      if (c.has_input(3)) set_zero(w, c.input(3));
      if (c.has_input(4)) {
        w.group = c.input(4).data<int32_t>();
        const auto [least, most] = std::minmax_element(w.group, w.group + w.depth);
        if (*least < 0 || *most >= w.blocks()) bad_data("g_idx names group {}, there are {}", *least < 0 ? *least : *most, w.blocks());
      }
      kernels::matmul_nbits(isa(), w, c.input(0).numel() / w.depth, c.input(0).data<float>(),
                            c.has_input(5) ? c.input(5).data<float>() : nullptr, c.output(0).mutable_data<float>());
    });
  };
  return k;
}

void register_matmul_nbits(OpRegistry& registry) {
  OpDef def;
  def.domain = kDomain;
  def.name = "MatMulNBits";
  def.min_inputs = 3;
  def.max_inputs = 6;
  def.infer = infer_matmul_nbits;
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  def.kernels = {nbits_panel_kernel(), nbits_kernel("avx2/matmul_nbits", Isa::kAvx2, kernels::avx2_nbits),
                 nbits_kernel("portable/matmul_nbits", Isa::kPortable, kernels::portable_nbits)};
  registry.add(std::move(def));
}

// --- WeightOnlyMatMul ----------------------------------------------------------------------------

// Weights of a DequantizeLinear as MatMulNBits has them: one row a column, unsigned.
struct OwnedWeights {
  kernels::NBitsWeights w;
  std::vector<uint8_t> data, zero;
  std::vector<float> scale;

  kernels::NBitsWeights view() const {
    kernels::NBitsWeights v = w;
    v.data = data.data();
    v.scale = scale.data();
    v.zero = zero.data();
    return v;
  }
};

std::shared_ptr<OwnedWeights> owned_weights(const KernelQuery& q) {
  auto o = std::make_shared<OwnedWeights>();
  const bool turned = q.node.attr_int("trans_b", 0) != 0;
  const TensorDesc& given = q.in(1);
  kernels::NBitsWeights& w = o->w;
  w.depth = given.dim(turned ? 1 : 0);
  w.columns = given.dim(turned ? 0 : 1);
  w.bits = is_packed(given.dtype) ? 4 : 8;
  const int64_t stated = q.node.attr_int("block_size", 0);
  w.block = stated > 0 ? stated : (w.depth + 1) / 2 * 2;  // of whole bytes
  const int64_t blocks = w.blocks(), row_bytes = blocks * w.block_bytes(), depth = w.depth, columns = w.columns;

  // Signed values become unsigned by half the range.
  const bool is_signed = given.dtype == DType::kI8 || given.dtype == DType::kI4;
  const int half = is_signed ? 1 << (w.bits - 1) : 0, mask = (1 << w.bits) - 1;
  const Tensor bytes = q.constant(1)->transient().unpacked();
  const auto* from = static_cast<const uint8_t*>(bytes.raw());
  o->data.assign(static_cast<size_t>(columns * row_bytes), 0);
  constexpr int64_t kStrip = 64;  // columns at a time: lines of a [K, N] matrix are read whole
  parallel_for((columns + kStrip - 1) / kStrip, 1, [&](int64_t first, int64_t last) {
    for (int64_t strip = first; strip < last; ++strip)
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t n = strip * kStrip; n < std::min(columns, (strip + 1) * kStrip); ++n) {
          const int value = (from[turned ? n * depth + k : k * columns + n] + half) & mask;
          uint8_t& to = o->data[static_cast<size_t>(n * row_bytes + k * w.bits / 8)];
          to = static_cast<uint8_t>(to | value << (k * w.bits % 8));
        }
  });

  // One scale and zero point, one a column, or one a block.
  const std::vector<double> scale = q.constant(2)->to_doubles();
  const std::vector<double> zero = q.constant(3) != nullptr ? q.constant(3)->to_doubles() : std::vector<double>{0};
  const auto at = [&](const std::vector<double>& values, int64_t n, int64_t b) {
    if (values.size() == 1) return values[0];
    if (stated == 0) return values[static_cast<size_t>(n)];
    return values[static_cast<size_t>(turned ? n * blocks + b : b * columns + n)];
  };
  o->scale.resize(static_cast<size_t>(columns * blocks));
  o->zero.assign(static_cast<size_t>(columns * w.zero_bytes()), 0);
  for (int64_t n = 0; n < columns; ++n)
    for (int64_t b = 0; b < blocks; ++b) {
      o->scale[static_cast<size_t>(n * blocks + b)] = static_cast<float>(at(scale, n, b));
      uint8_t& to = o->zero[static_cast<size_t>(n * w.zero_bytes() + b * w.bits / 8)];
      to = static_cast<uint8_t>(to | ((static_cast<int>(at(zero, n, b)) + half) & mask) << (b * w.bits % 8));
    }
  return o;
}

std::string declines_weight_only(const KernelQuery& q) {
  for (size_t i = 1; i < 4; ++i)
    if (q.in(i).defined() && q.constant(i) == nullptr) return "weights are not constant";
  return ops::require(q.in(0).dtype == DType::kF32, "not f32");
}

void infer_weight_only(InferContext& c) {
  c.require_dtype(0, {DType::kF32, DType::kF16, DType::kBF16});
  c.require_dtype(1, {DType::kU8, DType::kI8, DType::kU4, DType::kI4});
  c.require_rank(1, 2);
  if (!c.has_dims(0) || !c.has_dims(1)) return c.set_output(0, c.dtype(0));
  const size_t turned = c.node().attr_int("trans_b", 0) != 0 ? 1 : 0;
  Dims y = c.dims(0);
  const Dim depth = c.dims(1)[turned], columns = c.dims(1)[1 - turned];
  if (y.empty()) c.error("a scalar has no rows");
  if (y.back().known() && depth.known() && y.back().raw != depth.raw) c.error("weights expect rows of {} values, x has {}", depth.raw, y.back().raw);
  y.back() = columns;
  c.set_output(0, c.dtype(0), std::move(y));
}

KernelDef weight_only_kernel(const char* name, Isa level, const kernels::NBitsIsa& (*isa)()) {
  KernelDef k;
  k.name = name;
  k.isa = level;
  k.takes_packed = true;
  k.decline = declines_weight_only;
  k.create = [isa](const KernelQuery& q) {
    return make_kernel([isa, o = owned_weights(q)](const KernelContext& c) {
      const kernels::NBitsWeights w = o->view();
      kernels::matmul_nbits(isa(), w, c.input(0).numel() / w.depth, c.input(0).data<float>(), c.has_input(4) ? c.input(4).data<float>() : nullptr,
                            c.output(0).mutable_data<float>());
    });
  };
  return k;
}

void register_weight_only(OpRegistry& registry) {
  OpDef def;
  def.domain = Graph::kInternalDomain;
  def.name = "WeightOnlyMatMul";
  def.min_inputs = 3;
  def.max_inputs = 5;
  def.infer = infer_weight_only;
  def.cost = [](const KernelQuery& q) {
    return Cost{2 * checked_mul(q.out(0).numel(), q.in(0).dim(-1)), ops::operand_bytes(q)};
  };
  def.widens_halves = true;
  KernelDef panels;
  panels.name = "avx512/weight_only_matmul";
  panels.isa = Isa::kAvx512;
  panels.takes_packed = true;
  panels.decline = declines_weight_only;
  panels.create = [](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    const auto o = owned_weights(q);
    return std::make_unique<PanelKernel>(kernels::pack_nbits(o->view()), q.in(0).numel() / o->w.depth, false, 4, q.threads);
  };
  def.kernels = {panels, weight_only_kernel("avx2/weight_only_matmul", Isa::kAvx2, kernels::avx2_nbits),
                 weight_only_kernel("portable/weight_only_matmul", Isa::kPortable, kernels::portable_nbits)};
  registry.add(std::move(def));
}

// --- GatherBlockQuantized -----------------------------------------------------------------------

// Rows of data [rows, ..., depth], quantized in blocks along the last axis.
struct GatherShape {
  DType stored = DType::kU4;  // of the values, which bytes may hold packed
  int64_t block = 128, depth = 0, blocks = 0;
  int64_t rows = 0, inner = 0;  // of axis 0; of the axes between
};

GatherShape gather_shape(const Node& node, DType dtype, const Shape& data) {
  GatherShape s;
  const int64_t bits = checked_bits(node, {4, 8});
  s.stored = dtype != DType::kU8 || bits == 8 ? dtype : DType::kU4;
  s.block = checked_block(node, 128);
  s.depth = data.back() * (s.stored == DType::kU4 && dtype == DType::kU8 ? 2 : 1);
  s.blocks = (s.depth + s.block - 1) / s.block;
  s.rows = data[0];
  s.inner = checked_numel(Shape(data.begin() + 1, data.end() - 1));
  return s;
}

void infer_gather(InferContext& c) {  // data, indices, scales, zero points?
  c.require_dtype(0, {DType::kU8, DType::kU4, DType::kI4});
  c.require_dtype(1, {DType::kI32, DType::kI64});
  c.require_dtype(2, kFloats);
  c.require_dtype(3, {c.dtype(0)});
  if (c.dtype(0) != DType::kU8 && c.node().attr_int("bits", 4) != 4) c.error("bits is {}, the data {}", c.node().attr_int("bits", 4), dtype_name(c.dtype(0)));
  if (!c.has_dims(0) || !c.has_dims(1) || !all_known(c.dims(0))) return c.set_output(0, c.dtype(2));
  const Shape data = concrete(c.dims(0));
  const auto rank = static_cast<int64_t>(data.size());
  if (rank < 2) c.error("data has rank {}, expected two or more", rank);
  if (ops::normalize_axis(c.node().attr_int("gather_axis", 0), rank) != 0 || ops::normalize_axis(c.node().attr_int("quantize_axis", 1), rank) != rank - 1)
    fail(ExitCode::kUnsupported, "only gathering along the first axis of blocks along the last is supported");
  const GatherShape s = gather_shape(c.node(), c.dtype(0), data);
  check_numel(c, 2, s.rows * s.inner * s.blocks, "the scales have");
  if (c.has_input(3)) check_numel(c, 3, s.rows * s.inner * (c.dtype(0) == DType::kU8 && s.stored == DType::kU4 ? (s.blocks + 1) / 2 : s.blocks), "the zero points have");
  Dims y = c.dims(1);
  for (int64_t i = 1; i + 1 < rank; ++i) y.push_back(Dim(data[static_cast<size_t>(i)]));
  y.push_back(Dim(s.depth));
  c.set_output(0, c.dtype(2), std::move(y));
}

void gather_rows(const GatherShape& s, const Tensor& data, const std::vector<int64_t>& indices, const Tensor& scale, const Tensor* zero, Tensor& y) {
  const bool in_bytes = data.dtype() == DType::kU8;
  const int64_t zero_row = in_bytes && s.stored == DType::kU4 ? (s.blocks + 1) / 2 * 2 : s.blocks;  // with its padding
  const float middle = !in_bytes ? 0.0f : s.stored == DType::kU4 ? 8.0f : 128.0f;
  parallel_for(static_cast<int64_t>(indices.size()) * s.inner, (1 << 14) / (s.depth + 1) + 1, [&](int64_t begin, int64_t end) {
    std::vector<float> step(static_cast<size_t>(s.blocks)), shift(static_cast<size_t>(s.blocks), middle);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = indices[static_cast<size_t>(i / s.inner)] * s.inner + i % s.inner;
      float* out = y.mutable_data<float>() + i * s.depth;
      kernels::load_floats(s.stored, data.raw(), row * s.depth, s.depth, out);
      kernels::load_floats(scale.dtype(), scale.raw(), row * s.blocks, s.blocks, step.data());
      if (zero != nullptr) kernels::load_floats(s.stored, zero->raw(), row * zero_row, s.blocks, shift.data());
      for (int64_t k = 0; k < s.depth; ++k) {
        const auto b = static_cast<size_t>(k / s.block);
        out[k] = (out[k] - shift[b]) * step[b];
      }
    }
  });
}

void register_gather_block_quantized(OpRegistry& registry) {
  OpDef def;
  def.domain = kDomain;
  def.name = "GatherBlockQuantized";
  def.min_inputs = 3;
  def.max_inputs = 4;
  def.infer = infer_gather;
  KernelDef k;
  k.name = "portable/gather_block_quantized";
  k.takes_packed = true;
  k.decline = [](const KernelQuery& q) { return ops::require(q.out(0).dtype == DType::kF32, "not f32"); };
  k.create = [](const KernelQuery& q) {
    return make_kernel([s = gather_shape(q.node, q.in(0).dtype, q.in(0).shape)](const KernelContext& c) {
      std::vector<int64_t> indices = c.input(1).to_ints();
      for (int64_t& i : indices) {
        if (i < -s.rows || i >= s.rows) bad_data("index {} is outside the {} rows", i, s.rows);
        if (i < 0) i += s.rows;
      }
      gather_rows(s, c.input(0), indices, c.input(2), c.has_input(3) ? &c.input(3) : nullptr, c.output(0));
    });
  };
  def.kernels = {k};
  registry.add(std::move(def));
}

}  // namespace

void register_nbits_ops(OpRegistry& registry) {
  register_matmul_nbits(registry);
  register_weight_only(registry);
  register_gather_block_quantized(registry);
}

}  // namespace ds
