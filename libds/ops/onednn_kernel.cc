#include "libds/ops/onednn_kernel.h"

#include <cstring>

#include "libds/base/parallel.h"
#include "libds/ir/packed_cache.h"

namespace ds::ops {
namespace {

using kernels::onednn::Program;

constexpr size_t kMostInputs = 8;

class ProgramKernel final : public Kernel {
 public:
  ProgramKernel(std::unique_ptr<Program> program, int addend, size_t addend_bytes)
      : program_(std::move(program)), addend_(addend), addend_bytes_(static_cast<int64_t>(addend_bytes)) {}
  size_t workspace_bytes() const override { return program_->workspace_bytes(); }
  size_t packed_bytes() const override { return program_->packed_bytes(); }
  void run(const KernelContext& c) override {
    const void* inputs[kMostInputs] = {};
    for (size_t i = 0; i < c.input_count() && i < kMostInputs; ++i)
      if (c.has_input(i) && (program_->reads(static_cast<int>(i)) || static_cast<int>(i) == addend_)) inputs[i] = c.input(i).raw();
    if (addend_ >= 0) copy_addend(static_cast<const char*>(inputs[addend_]), static_cast<char*>(c.output(0).mutable_raw()));
    program_->run(inputs, c.output(0).mutable_raw(), c.workspace());
  }

 private:
  void copy_addend(const char* from, char* to) const {
    if (from == nullptr || from == to) return;
    parallel_for(addend_bytes_, 1 << 16, [&](int64_t begin, int64_t end) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
  }

  std::unique_ptr<Program> program_;
  int addend_;
  int64_t addend_bytes_;
};

std::string refuse(const KernelQuery& q) {
  for (const auto* list : {&q.inputs, &q.outputs})
    for (const TensorDesc& d : *list) {
      if (!d.defined()) continue;
      if (d.dtype != DType::kF32) return "not f32";
      if (d.numel() == 0) return "an empty operand";
    }
  return {};
}

}  // namespace

KernelDef onednn_kernel(const char* name, MakeProgram make, int addend) {
  KernelDef k;
  k.name = name;
  k.isa = Isa::kAvx2;
  k.decline = [make](const KernelQuery& q) {
    std::string why = refuse(q);
    if (!why.empty()) return why;
    const kernels::onednn::Probe probe;
    if (make(q, why) == nullptr && why.empty()) why = "refused";
    return why;
  };
  if (addend >= 0) k.in_place = {{addend, 0}};
  k.create = [make, addend](const KernelQuery& q) -> std::unique_ptr<Kernel> {
    std::string why;
    std::unique_ptr<Program> program = make(q, why);
    if (program == nullptr) fail(ExitCode::kInternal, "a oneDNN primitive that was accepted cannot be made: {}", why);
    return std::make_unique<ProgramKernel>(std::move(program), addend, q.out(0).bytes());
  };
  return k;
}

kernels::onednn::Content constant_content(const KernelQuery& query, size_t i) {
  if (query.constant(i) == nullptr) return {};
  kernels::onednn::Content content;
  if (query.for_sizes) {
    content.plain = [] { return std::shared_ptr<const void>(); };
    return content;
  }
  content.plain = [constant = *query.constant(i)] {
    auto plain = std::make_shared<const Tensor>(constant.transient());
    return std::shared_ptr<const void>(plain, plain->raw());
  };
  content.share = share_content(query, i, {});
  return content;
}

kernels::onednn::Content::Share share_content(const KernelQuery& query, size_t i, std::string part) {
  if (query.packed == nullptr || query.constant(i) == nullptr || query.for_sizes) return nullptr;
  return [cache = query.packed, constant = *query.constant(i), part = std::move(part)](const std::string& form, const PackedCache::Make& make, bool& made) {
    return cache->get(constant, form + part, make, made);
  };
}

int block_of(Layout layout) {
  switch (layout) {
    case Layout::kPlain: return 1;
    case Layout::kBlocked8: return 8;
    case Layout::kBlocked16: return 16;
    case Layout::kChannelsLast: return kernels::onednn::kChannelsLast;
  }
  return 1;
}

Layout layout_of(int block) {
  return block == kernels::onednn::kChannelsLast ? Layout::kChannelsLast
         : block == 8                            ? Layout::kBlocked8
         : block == 16                           ? Layout::kBlocked16
                                                 : Layout::kPlain;
}

}  // namespace ds::ops
