#include "kernels/onednn.h"

#include <algorithm>
#include <cstdlib>

#include "kernels/onednn_program.h"
#include "libds/base/cpu.h"
#include "libds/base/error.h"
#include "libds/base/parallel.h"

namespace ds::kernels::onednn {
namespace {

constexpr size_t kAlignment = 64;

void limit_isa() {
  switch (cpu_isa()) {
    case Isa::kPortable: break;  // kernels that use oneDNN need kAvx2
    case Isa::kAvx2: dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2); break;
    case Isa::kAvx512: dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core); break;
    case Isa::kVnni: dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx512_core_bf16); break;
    case Isa::kAmx: break;
  }
}

void check(dnnl_status_t status) {
  if (status != dnnl_success) fail(ExitCode::kInternal, "oneDNN fails with status {}", static_cast<int>(status));
}

// What reordering depends on: both descriptors, byte for byte.
std::string form_of(const dnnl::memory::desc& given, const dnnl::memory::desc& wanted) {
  std::string form = "onednn ";
  for (const dnnl::memory::desc* desc : {&given, &wanted}) form.append(reinterpret_cast<const char*>(&desc->data), sizeof desc->data);
  return form;
}

}  // namespace

dnnl::engine& engine() {
  static dnnl::engine e = [] {
    limit_isa();
    return dnnl::engine(dnnl::engine::kind::cpu, 0);
  }();
  num_threads();  // makes the calling thread's OpenMP setting ours before oneDNN reads it
  return e;
}

namespace {
thread_local int probes = 0;
}

Probe::Probe() { ++probes; }
Probe::~Probe() { --probes; }
bool probing() { return probes > 0; }

// --- Program -----------------------------------------------------------------------------------

Program::Program(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Program::~Program() = default;
size_t Program::workspace_bytes() const { return impl_->workspace; }
size_t Program::packed_bytes() const { return impl_->packed_size; }
const std::string& Program::implementation() const { return impl_->implementation; }

bool Program::reads(int slot) const {
  return std::any_of(impl_->bound.begin(), impl_->bound.end(), [&](const Impl::Bound& b) { return b.where == slot; });
}

void Program::run(const void* const* inputs, void* output, std::byte* workspace) {
  num_threads();
  for (const Impl::Bound& b : impl_->bound) {
    void* address = b.where >= 0               ? const_cast<void*>(inputs[b.where])
                    : b.where == Impl::kOutput ? output
                                               : static_cast<void*>(workspace + b.offset);
    check(dnnl_memory_set_data_handle(b.memory, address));
  }
  for (const Impl::Step& step : impl_->steps)
    check(dnnl_primitive_execute(step.primitive.get(), impl_->stream.get(), static_cast<int>(step.arguments.size()),
                                 step.arguments.data()));
  check(dnnl_stream_wait(impl_->stream.get()));
}

// --- Impl --------------------------------------------------------------------------------------

dnnl::memory Program::Impl::bind(const dnnl::memory::desc& desc, int where, size_t offset) {
  dnnl::memory m(desc, engine(), DNNL_MEMORY_NONE);
  memories.push_back(m);
  bound.push_back({m.get(), where, offset});
  return m;
}

dnnl::memory Program::Impl::input(int slot, const dnnl::memory::desc& desc) { return bind(desc, slot, 0); }
dnnl::memory Program::Impl::output(const dnnl::memory::desc& desc) { return bind(desc, kOutput, 0); }

dnnl::memory Program::Impl::scratch(const dnnl::memory::desc& desc) {
  const size_t offset = workspace;
  workspace += (desc.get_size() + kAlignment - 1) / kAlignment * kAlignment;
  return bind(desc, kWorkspace, offset);
}

void Program::Impl::add(const dnnl::primitive& primitive, const dnnl::memory::desc& scratchpad,
                        std::vector<std::pair<int, dnnl::memory>> arguments) {
  if (scratchpad.get_size() > 0) arguments.emplace_back(DNNL_ARG_SCRATCHPAD, scratch(scratchpad));
  Step step{primitive, {}};
  for (const auto& [index, memory] : arguments) {
    memories.push_back(memory);
    step.arguments.push_back({index, memory.get()});
  }
  steps.push_back(std::move(step));
}

void Program::Impl::add_reorder(const dnnl::memory& from, const dnnl::memory& to) {
  const dnnl::reorder::primitive_desc pd(engine(), from.get_desc(), engine(), to.get_desc(), attributes());
  add(dnnl::reorder(pd), pd.scratchpad_desc(), {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}});
}

dnnl::memory Program::Impl::input_as(int slot, const dnnl::memory::desc& given, const dnnl::memory::desc& wanted) {
  const dnnl::memory from = input(slot, given);
  if (given == wanted) return from;
  const dnnl::memory to = scratch(wanted);
  add_reorder(from, to);
  return to;
}

dnnl::memory Program::Impl::weights_as(int slot, const Content& content, const dnnl::memory::desc& given,
                                       const dnnl::memory::desc& wanted) {
  if (!content || given == wanted) return input_as(slot, given, wanted);
  const size_t bytes = (wanted.get_size() + kAlignment - 1) / kAlignment * kAlignment;
  const auto reordered = [&]() -> Content::Bytes {
    const Content::Bytes plain = content.plain();
    if (plain == nullptr) return nullptr;
    void* buffer = std::aligned_alloc(kAlignment, bytes);
    if (buffer == nullptr) fail(ExitCode::kOsError, "out of memory for {} bytes of packed weights", bytes);
    Content::Bytes owner(buffer, [](const void* p) { std::free(const_cast<void*>(p)); });
    dnnl::memory from(given, engine(), const_cast<void*>(plain.get())), to(wanted, engine(), buffer);
    dnnl::reorder(from, to).execute(stream, from, to);
    stream.wait();
    return owner;
  };
  bool made = true;
  Content::Bytes buffer = content.share ? content.share(form_of(given, wanted), reordered, made) : reordered();
  if (made) packed_size += bytes;
  if (buffer == nullptr) return bind(wanted, slot, 0);
  dnnl::memory to(wanted, engine(), const_cast<void*>(buffer.get()));
  packed.push_back(std::move(buffer));
  memories.push_back(to);
  return to;
}

dnnl::memory Program::Impl::output_from(const dnnl::memory::desc& given, const dnnl::memory::desc& made) {
  return given == made ? output(given) : scratch(made);
}

void Program::Impl::finish_output(const dnnl::memory& made, const dnnl::memory::desc& given) {
  if (made.get_desc() != given) add_reorder(made, output(given));
}

// --- descriptors -------------------------------------------------------------------------------

dnnl::primitive_attr attributes(const Epilogue& epilogue) {
  using A = Activation;
  using dnnl::algorithm;
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  if (epilogue.add) ops.append_sum(1.0f);
  switch (epilogue.activation) {
    case A::kNone: break;
    case A::kRelu: ops.append_eltwise(1.0f, algorithm::eltwise_relu, 0.0f, 0.0f); break;
    case A::kClip: ops.append_eltwise(1.0f, algorithm::eltwise_clip, epilogue.low, epilogue.high); break;
    case A::kSigmoid: ops.append_eltwise(1.0f, algorithm::eltwise_logistic, 0.0f, 0.0f); break;
    case A::kHardSwish: ops.append_eltwise(1.0f, algorithm::eltwise_hardswish, 0.0f, 0.0f); break;
    case A::kGelu: ops.append_eltwise(1.0f, algorithm::eltwise_gelu_erf, 0.0f, 0.0f); break;
    case A::kGeluTanh: ops.append_eltwise(1.0f, algorithm::eltwise_gelu_tanh, 0.0f, 0.0f); break;
    case A::kTanh: ops.append_eltwise(1.0f, algorithm::eltwise_tanh, 0.0f, 0.0f); break;
    case A::kSilu: ops.append_eltwise(1.0f, algorithm::eltwise_swish, 1.0f, 0.0f); break;
  }
  if (epilogue.scale != 1 || epilogue.shift != 0) ops.append_eltwise(1.0f, algorithm::eltwise_linear, epilogue.scale, epilogue.shift);
  attr.set_post_ops(ops);
  return attr;
}

dnnl::memory::desc activation_desc(const std::vector<int64_t>& dims, int block) {
  using Tag = dnnl::memory::format_tag;
  if (block == 1) return plain_desc(dims);
  DS_CHECK(dims.size() >= 3 && dims.size() <= 5 && (block == kChannelsLast || block == 8 || block == 16));
  if (block == kChannelsLast) {
    constexpr Tag kLast[] = {Tag::nwc, Tag::nhwc, Tag::ndhwc};
    return {dims, dnnl::memory::data_type::f32, kLast[dims.size() - 3]};
  }
  constexpr Tag kTags[2][3] = {{Tag::nCw8c, Tag::nChw8c, Tag::nCdhw8c}, {Tag::nCw16c, Tag::nChw16c, Tag::nCdhw16c}};
  return {dims, dnnl::memory::data_type::f32, kTags[block == 8 ? 0 : 1][dims.size() - 3]};
}

dnnl::memory::desc any_desc(const std::vector<int64_t>& dims) {
  return {dims, dnnl::memory::data_type::f32, dnnl::memory::format_tag::any};
}

dnnl::memory::desc plain_desc(const std::vector<int64_t>& dims) {
  dnnl::memory::dims strides(dims.size());
  int64_t stride = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = stride;
    stride *= dims[i];
  }
  return {dims, dnnl::memory::data_type::f32, strides};
}

std::unique_ptr<Program> reorder(const std::vector<int64_t>& dims, int from_block, int to_block) {
  auto impl = std::make_unique<Program::Impl>();
  if (!probing()) impl->add_reorder(impl->input(0, activation_desc(dims, from_block)), impl->output(activation_desc(dims, to_block)));
  impl->implementation = "reorder";
  return std::make_unique<Program>(std::move(impl));
}

}  // namespace ds::kernels::onednn
