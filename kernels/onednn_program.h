// Private to kernels/onednn*.cc: how Programs are put together.
#pragma once

#include <array>
#include <oneapi/dnnl/dnnl.hpp>

#include "kernels/onednn.h"

namespace ds::kernels::onednn {

dnnl::engine& engine();
bool probing();  // a Probe exists

struct Program::Impl {
  static constexpr int kOutput = -1, kWorkspace = -2;
  struct Bound {  // memory whose address is set before each run
    dnnl_memory_t memory;
    int where;      // input slot, kOutput or kWorkspace
    size_t offset;  // into the workspace
  };
  struct Step {
    dnnl::primitive primitive;
    std::vector<dnnl_exec_arg_t> arguments;
  };

  dnnl::stream stream{engine()};
  std::vector<dnnl::memory> memories;  // owners of what Bound and Step point to
  std::vector<Bound> bound;
  std::vector<Step> steps;
  std::vector<std::shared_ptr<const void>> packed;
  size_t workspace = 0, packed_size = 0;
  std::string implementation;

  // --- building ---
  dnnl::memory input(int slot, const dnnl::memory::desc& desc);
  dnnl::memory output(const dnnl::memory::desc& desc);
  dnnl::memory scratch(const dnnl::memory::desc& desc);
  // Adds a step; a non-empty scratchpad goes to the workspace.
  void add(const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad,
           std::vector<std::pair<int, dnnl::memory>> arguments);
  void add_reorder(const dnnl::memory& from, const dnnl::memory& to);
  // `slot` as the primitive wants it: itself, or reordered into the workspace by a step.
  dnnl::memory input_as(int slot, const dnnl::memory::desc& given, const dnnl::memory::desc& wanted);
  // The same for content that never changes: reordered now, kept for the program's life. Programs share what is equal.
  dnnl::memory weights_as(int slot, const Content& content, const dnnl::memory::desc& given, const dnnl::memory::desc& wanted);
  // Where the primitive writes; when formats differ call finish_output() after adding it.
  dnnl::memory output_from(const dnnl::memory::desc& given, const dnnl::memory::desc& made);
  void finish_output(const dnnl::memory& made, const dnnl::memory::desc& given);

 private:
  dnnl::memory bind(const dnnl::memory::desc& desc, int where, size_t offset);
};

// Attributes with a user scratchpad and the epilogue's post-operations.
dnnl::primitive_attr attributes(const Epilogue& epilogue = {});

// Descriptor of [N, C, spatial...] with the given block; `any` lets the primitive choose.
dnnl::memory::desc activation_desc(const std::vector<int64_t>& dims, int block);
dnnl::memory::desc any_desc(const std::vector<int64_t>& dims);
dnnl::memory::desc plain_desc(const std::vector<int64_t>& dims);

// Runs `make`, which returns a finished Impl; oneDNN's refusals and reference implementations become reasons.
template <typename Make>
std::unique_ptr<Program> attempt(std::string& why, Make make) {
  try {
    std::unique_ptr<Program::Impl> impl = make();
    if (impl->implementation.rfind("ref", 0) == 0 || impl->implementation.rfind("simple", 0) == 0) {
      why = "oneDNN has only " + impl->implementation;
      return nullptr;
    }
    return std::make_unique<Program>(std::move(impl));
  } catch (const dnnl::error& e) {
    why = std::string("oneDNN: ") + e.what();
    return nullptr;
  }
}

}  // namespace ds::kernels::onednn
