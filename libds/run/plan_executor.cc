#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "libds/run/executor.h"

namespace ds {
namespace {

// A big arena on huge pages: fewer TLB misses while every layer streams through it.
std::shared_ptr<Buffer> allocate_arena(size_t bytes) {
  constexpr size_t kHugePage = 2u << 20;
  std::shared_ptr<Buffer> arena = Buffer::allocate(bytes, Tier::kActivations);
  if (bytes >= 4 * kHugePage) {
    const auto address = reinterpret_cast<uintptr_t>(arena->data());
    const uintptr_t first = (address + kHugePage - 1) / kHugePage * kHugePage;
    const uintptr_t last = (address + bytes) / kHugePage * kHugePage;
    if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: may fail
  }
  return arena;
}

class PlanExecutor final : public Executor {
 public:
  PlanExecutor(std::shared_ptr<const Plan> plan, std::shared_ptr<Arena> shared)
      : plan_(std::move(plan)), shared_(shared ? std::move(shared) : std::make_shared<Arena>()) {
    init_states(*plan_->graph);
    std::shared_ptr<Buffer>& memory = shared_->memory;
    if (memory == nullptr) memory = allocate_arena(plan_->arena_bytes);
    // Shapes that grow step by step do not get a new one for each step.
    else if (memory->bytes() < plan_->arena_bytes) memory = allocate_arena(std::max(plan_->arena_bytes, memory->bytes() + memory->bytes() / 4));
    arena_ = memory;
    tensors_.resize(plan_->slots.size());
    for (size_t i = 0; i < plan_->slots.size(); ++i) bind_fixed(i);
    for (const Step& s : plan_->steps) {
      Operands o;
      for (int in : s.inputs) o.inputs.push_back(in < 0 ? nullptr : &tensors_[static_cast<size_t>(in)]);
      for (int out : s.outputs) o.outputs.push_back(out < 0 ? nullptr : &tensors_[static_cast<size_t>(out)]);
      o.workspace = arena_->data() + s.workspace_offset;
      operands_.push_back(std::move(o));
    }
  }

  std::vector<Tensor> run(std::span<const Tensor> inputs) override {
    check_inputs(*plan_->graph, inputs);
    move_to_arena();
    bind_run(inputs);
    for (size_t i = 0; i < plan_->steps.size(); ++i) run_step(i);
    std::vector<Tensor> outputs = take_outputs();
    update_states();
    for (size_t i : per_run_) tensors_[i] = Tensor();  // let go of the caller's memory
    return outputs;
  }

  void enable_profile() override {
    if (!times_.empty()) return;
    for (const Step& s : plan_->steps) times_.push_back({plan_->graph.get(), s.node, s.def->name, 0, 0, s.cost});
  }
  std::vector<StepTime> profile() const override { return times_; }

 private:
  struct Operands {
    std::vector<const Tensor*> inputs;
    std::vector<Tensor*> outputs;
    std::byte* workspace = nullptr;
  };

  const Slot& root_of(size_t slot) const { return plan_->slots[static_cast<size_t>(plan_->slots[slot].root)]; }

  // A tensor over a buffer large enough for the slot's layout, described by its logical shape.
  static Tensor over(const Slot& s, std::shared_ptr<Buffer> buffer, size_t offset) {
    return Tensor(s.desc.dtype, s.desc.shape, std::move(buffer), offset);
  }

  void bind_fixed(size_t i) {
    const Slot& s = plan_->slots[i];
    const Slot& root = root_of(i);
    switch (root.storage) {
      case Storage::kArena: tensors_[i] = over(s, arena_, root.offset); break;
      case Storage::kConstant: tensors_[i] = plan_->graph->value(root.value).constant->reshaped(s.desc.shape); break;
      case Storage::kState: tensors_[i] = states_[static_cast<size_t>(root.index)].reshaped(s.desc.shape); break;
      case Storage::kInput:
      case Storage::kOutput: per_run_.push_back(i); break;
    }
  }

  // Another executor has put a larger arena in the place of ours.
  void move_to_arena() {
    if (arena_ == shared_->memory) return;
    arena_ = shared_->memory;
    for (size_t i = 0; i < plan_->slots.size(); ++i)
      if (root_of(i).storage == Storage::kArena) tensors_[i] = over(plan_->slots[i], arena_, root_of(i).offset);
    for (size_t i = 0; i < operands_.size(); ++i) operands_[i].workspace = arena_->data() + plan_->steps[i].workspace_offset;
  }

  void bind_run(std::span<const Tensor> inputs) {
    std::vector<std::shared_ptr<Buffer>> outputs(plan_->outputs.size());
    for (size_t i : per_run_) {
      const Slot& s = plan_->slots[i];
      const Slot& root = root_of(i);
      if (root.storage == Storage::kInput) {
        tensors_[i] = inputs[static_cast<size_t>(root.index)].reshaped(s.desc.shape);
      } else {
        std::shared_ptr<Buffer>& buffer = outputs[static_cast<size_t>(root.index)];
        if (!buffer) buffer = shared_->outputs.take(root.desc.bytes());
        tensors_[i] = over(s, buffer, 0);
      }
    }
  }

  void run_step(size_t i) {
    const Step& step = plan_->steps[i];
    const Operands& o = operands_[i];
    const KernelContext context(o.inputs, o.outputs, o.workspace);
    try {
      if (times_.empty()) {
        step.kernel->run(context);
      } else {
        const auto start = std::chrono::steady_clock::now();
        step.kernel->run(context);
        times_[i].seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        times_[i].runs += 1;
      }
    } catch (Error& e) {
      e.prepend(plan_->graph->node(step.node).label());
      throw;
    }
  }

  std::vector<Tensor> take_outputs() {
    std::vector<Tensor> outputs;
    for (int s : plan_->outputs) {
      const Tensor& t = tensors_[static_cast<size_t>(s)];
      // A state changes with the next run: the caller gets a copy.
      const bool is_state = root_of(static_cast<size_t>(s)).storage == Storage::kState;
      outputs.push_back(is_state ? t.clone(Tier::kActivations) : t);
    }
    return outputs;
  }

  void update_states() {
    std::vector<std::pair<size_t, Tensor>> pending;
    for (size_t i = 0; i < plan_->updates.size(); ++i) {
      const auto update = static_cast<size_t>(plan_->updates[i]);
      const Slot& root = root_of(update);
      if (root.storage == Storage::kState && static_cast<size_t>(root.index) == i) continue;  // done in place
      // States that become each other's content must all be read before any is written.
      const bool from_state = root.storage == Storage::kState;
      pending.emplace_back(i, from_state ? tensors_[update].clone() : tensors_[update]);
    }
    for (const auto& [i, content] : pending)
      if (content.bytes() > 0) std::memcpy(states_[i].mutable_raw(), content.raw(), content.bytes());
  }

  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<Arena> shared_;
  std::shared_ptr<Buffer> arena_;    // what tensors_ and operands_ point into
  std::vector<Tensor> tensors_;     // by slot
  std::vector<size_t> per_run_;     // slots bound anew in every run
  std::vector<Operands> operands_;  // by step
  std::vector<StepTime> times_;
};

}  // namespace

std::unique_ptr<Executor> make_plan_executor(std::shared_ptr<const Plan> plan, std::shared_ptr<Arena> shared) {
  return std::make_unique<PlanExecutor>(std::move(plan), std::move(shared));
}

}  // namespace ds
