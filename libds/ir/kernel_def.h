// KernelDef: one implementation of an operator; Kernel: that implementation bound to one node at
// concrete shapes.
//
// Selection walks OpDef::kernels from the front and takes the first whose `decline` returns an empty
// string; the reasons of the others are shown by DS_LOG=dispatch. The same selection serves the
// static plan and eager execution, so the two cannot drift.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "libds/base/cpu.h"
#include "libds/ir/graph.h"

namespace ds {

// Memory format of a value inside a plan. kBlockedN: channels in blocks of N, innermost
// (nChw8c, nChw16c), padded with zeros to a whole block; kChannelsLast: [N, spatial..., C] in memory. Values that leave
// a plan are plain.
enum class Layout : uint8_t { kPlain, kBlocked8, kBlocked16, kChannelsLast };

// Where a kernel computes, and where the operands of a node live.
enum class Device : uint8_t { kCpu, kCuda };

struct TensorDesc {
  DType dtype = DType::kUndefined;  // kUndefined: omitted
  Shape shape;
  Layout layout = Layout::kPlain;

  bool defined() const { return dtype != DType::kUndefined; }
  int64_t numel() const { return checked_numel(shape); }
  size_t bytes() const;  // includes the padding of a blocked layout
  // The axes in the order they have in memory, for a layout that keeps them whole (plain, channels last).
  Shape memory_shape() const;
  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  int64_t dim(int64_t i) const { return shape[static_cast<size_t>(i < 0 ? i + rank() : i)]; }
};

// Runs a body of a control-flow node. Keeps what it prepares (plans, kernels) from run to run.
class BodyRunner {
 public:
  virtual ~BodyRunner() = default;
  // Inputs and outputs in the order of the body's.
  virtual std::vector<Tensor> run(std::span<const Tensor> inputs) = 0;
};
// Made by the layer that runs graphs, and shared: a kernel bound anew, for other shapes, gets the
// runner its node had. `attr` names the body.
using MakeBodyRunner = std::function<std::shared_ptr<BodyRunner>(const Node& node, std::string_view attr)>;

class PackedCache;

// A node with everything known: what a kernel may look at to accept and to prepare.
struct KernelQuery {
  const Node& node;
  std::vector<TensorDesc> inputs;
  std::vector<TensorDesc> outputs;       // shapes empty when the op is data dependent
  std::vector<const Tensor*> constants;  // per input: content that will never change, or null
  Isa isa = Isa::kPortable;              // level in force
  int threads = 1;
  Device device = Device::kCpu;          // where the operands are
  MakeBodyRunner body_runner = nullptr;  // for nodes with bodies
  bool for_sizes = false;                // the kernel is made to be measured, and never run
  PackedCache* packed = nullptr;         // weights that kernels of other plans have packed; null: there is none

  const TensorDesc& in(size_t i) const;  // an undefined desc when absent
  const TensorDesc& out(size_t i) const;
  const Tensor* constant(size_t i) const { return i < constants.size() ? constants[i] : nullptr; }
};

// Operands of one execution. Outputs are allocated by the caller, except for data-dependent ops.
class KernelContext {
 public:
  KernelContext(std::span<const Tensor* const> inputs, std::span<Tensor* const> outputs, std::byte* workspace)
      : inputs_(inputs), outputs_(outputs), workspace_(workspace) {}

  size_t input_count() const { return inputs_.size(); }
  size_t output_count() const { return outputs_.size(); }
  bool has_input(size_t i) const { return i < inputs_.size() && inputs_[i] != nullptr && inputs_[i]->defined(); }
  bool has_output(size_t i) const { return i < outputs_.size() && outputs_[i] != nullptr; }
  const Tensor& input(size_t i) const { return *inputs_[i]; }
  Tensor& output(size_t i) const { return *outputs_[i]; }
  // 64-byte aligned, Kernel::workspace_bytes() long, contents undefined.
  std::byte* workspace() const { return workspace_; }
  // Data-dependent ops only: makes output i.
  void allocate(size_t i, DType dtype, Shape shape) const { *outputs_[i] = Tensor::empty(dtype, std::move(shape), Tier::kActivations); }

 private:
  std::span<const Tensor* const> inputs_;
  std::span<Tensor* const> outputs_;
  std::byte* workspace_;
};

// Bound to a node and shapes; holds parsed attributes, primitives, packed weights. run() may be
// called again and again, from one thread at a time.
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual size_t workspace_bytes() const { return 0; }
  virtual size_t packed_bytes() const { return 0; }  // weights kept in a private layout
  virtual void run(const KernelContext& context) = 0;
};

struct InPlace {
  int input, output;
};

struct KernelDef {
  std::string name;  // "portable/conv", "onednn/conv", "avx2/conv_s8"
  Isa isa = Isa::kPortable;
  Device device = Device::kCpu;
  // Empty string: accepts. Otherwise the reason. A null function always accepts.
  std::function<std::string(const KernelQuery&)> decline;
  std::function<std::unique_ptr<Kernel>(const KernelQuery&)> create;
  // Pairs that may share memory when the input dies here (same byte size required).
  std::vector<InPlace> in_place;
  // Layouts this kernel would rather have than plain ones (see compile/layout). The query's inputs have
  // the layouts that their values are in so far, its outputs are plain; the lists come filled with plain
  // and are changed where another layout is wanted. Null: plain only.
  std::function<void(const KernelQuery&, std::vector<Layout>& inputs, std::vector<Layout>& outputs)> preferred_layouts;
  // True for kernels that compute in whatever layout they are given, the same for all operands
  // (elementwise of equal shapes, scalars aside, where padding stays zero).
  bool layout_agnostic = false;
  // The same for layouts that keep every axis whole, so that there is no padding to look after.
  bool order_agnostic = false;
  // Kernels see numbers of whole bytes only, unless they say that they know better: operands of object
  // dtypes (strings, sequences, optionals), and of types for storage only (8-bit floats; 4 and 2 bits).
  bool takes_objects = false;
  bool takes_packed = false;
  // False: 16-bit floats among the operands go to the widened kernel. Set by OpDef::widens_halves.
  bool takes_halves = true;
  // Computes with 16-bit floats itself where the operator's other kernels do not.
  bool native_halves = false;
};

// A kernel without state beyond what the lambda captures.
std::unique_ptr<Kernel> make_kernel(std::function<void(const KernelContext&)> run, size_t workspace_bytes = 0);

// Why `kernel` does not take the node: wrong device, instruction set not available, or its own reason.
// Empty when it does. Every choice of a kernel goes through here.
std::string why_declined(const KernelDef& kernel, const KernelQuery& query);

struct Selection {
  const KernelDef* def = nullptr;
  std::string declined;  // "name: reason; ..." of the kernels passed over
};

// First kernel of `def` that accepts; throws kUnsupported listing all reasons when none does.
Selection select_kernel(const OpDef& def, const KernelQuery& query);

}  // namespace ds
