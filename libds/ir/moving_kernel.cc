#include "libds/ir/moving_kernel.h"

#include <algorithm>

namespace ds {
namespace {

// What stands for an element: a string's position among all strings of the operands, or the bits of an
// 8-bit or packed number. kUndefined: the operand stays as it is.
DType stand_in(DType dtype) {
  if (dtype == DType::kString) return DType::kI64;
  if (is_float8(dtype) || is_packed(dtype)) return DType::kU8;
  return DType::kUndefined;
}

KernelQuery with_stand_ins(const KernelQuery& query) {
  KernelQuery plain = query;
  for (auto* list : {&plain.inputs, &plain.outputs})
    for (TensorDesc& d : *list)
      if (stand_in(d.dtype) != DType::kUndefined) d.dtype = stand_in(d.dtype);
  for (const Tensor*& t : plain.constants)
    if (t != nullptr && stand_in(t->dtype()) != DType::kUndefined) t = nullptr;
  return plain;
}

bool has_stand_in(const KernelQuery& query) {
  const auto replaced = [](const TensorDesc& d) { return stand_in(d.dtype) != DType::kUndefined; };
  return std::any_of(query.inputs.begin(), query.inputs.end(), replaced);
}

Tensor bytes_of(const Tensor& t) {
  if (!is_packed(t.dtype())) return Tensor(DType::kU8, t.shape(), Buffer::borrow(t.raw(), t.bytes(), t.buffer()));
  const Tensor unpacked = t.unpacked();
  return Tensor(DType::kU8, t.shape(), unpacked.buffer());
}

class MovingKernel final : public Kernel {
 public:
  MovingKernel(const KernelQuery& query, const OpDef& op) : data_dependent_(op.data_dependent) {
    const KernelQuery plain = with_stand_ins(query);
    inner_ = select_kernel(op, plain).def->create(plain);
    for (const TensorDesc& d : query.outputs) outputs_.push_back(d.dtype);
  }

  size_t workspace_bytes() const override { return inner_->workspace_bytes(); }

  void run(const KernelContext& context) override {
    std::vector<const std::string*> strings = {&kNothing};  // 0: what a kernel fills in by itself
    std::vector<Tensor> inputs(context.input_count()), outputs(context.output_count());
    std::vector<const Tensor*> in(inputs.size(), nullptr);
    std::vector<Tensor*> out(outputs.size(), nullptr);
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (!context.has_input(i)) continue;
      const Tensor& t = context.input(i);
      inputs[i] = t.dtype() == DType::kString ? numbered(t, strings) : stand_in(t.dtype()) == DType::kU8 ? bytes_of(t) : t;
      in[i] = &inputs[i];
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!context.has_output(i)) continue;
      const DType plain = stand_in(outputs_[i]);
      if (plain != DType::kUndefined && !data_dependent_) outputs[i] = Tensor::empty(plain, context.output(i).shape(), Tier::kActivations);
      out[i] = plain == DType::kUndefined ? &context.output(i) : &outputs[i];
    }
    inner_->run(KernelContext(in, out, context.workspace()));
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!context.has_output(i) || stand_in(outputs_[i]) == DType::kUndefined) continue;
      if (data_dependent_) context.allocate(i, outputs_[i], outputs[i].shape());
      put_back(outputs[i], strings, context.output(i));
    }
  }

 private:
  static Tensor numbered(const Tensor& t, std::vector<const std::string*>& strings) {
    Tensor numbers = Tensor::empty(DType::kI64, t.shape(), Tier::kActivations);
    int64_t* to = numbers.mutable_data<int64_t>();
    for (const std::string& s : t.strings()) {
      *to++ = static_cast<int64_t>(strings.size());
      strings.push_back(&s);
    }
    return numbers;
  }

  static void put_back(const Tensor& moved, const std::vector<const std::string*>& strings, Tensor& to) {
    if (to.dtype() == DType::kString) {
      const int64_t* numbers = moved.data<int64_t>();
      for (std::string& s : to.strings()) s = *strings[static_cast<size_t>(*numbers++)];
      return;
    }
    const Tensor bits = is_packed(to.dtype()) ? moved.pack_as(to.dtype()) : moved;
    std::copy_n(static_cast<const std::byte*>(bits.raw()), bits.bytes(), static_cast<std::byte*>(to.mutable_raw()));
  }

  static inline const std::string kNothing;
  const bool data_dependent_;
  std::unique_ptr<Kernel> inner_;
  std::vector<DType> outputs_;
};

}  // namespace

void add_moving_kernel(OpDef& op) {
  if (!op.moves_elements || op.kernels.empty()) return;
  const OpDef* self = &op;
  KernelDef k;
  k.name = "moving";
  k.takes_objects = k.takes_packed = true;
  k.decline = [self](const KernelQuery& query) -> std::string {
    if (!has_stand_in(query)) return "plain numbers need no stand-ins";
    const KernelQuery plain = with_stand_ins(query);
    for (const KernelDef& kernel : self->kernels)
      if (why_declined(kernel, plain).empty()) return {};
    return "no kernel moves stand-ins either";
  };
  k.create = [self](const KernelQuery& query) { return std::make_unique<MovingKernel>(query, *self); };
  op.kernels.push_back(std::move(k));
}

}  // namespace ds
