#include "libds/tasks/verify/verify.h"

#include <algorithm>
#include <filesystem>

#include "libds/base/file.h"
#include "libds/data/dataset.h"
#include "libds/ir/onnx_import.h"
#include "libds/passes/pipeline.h"
#include "libds/run/input_shapes.h"
#include "libds/run/random_inputs.h"
#include "libds/tasks/verify/run_model.h"

namespace ds {
namespace {

// Inputs of one round, in the model's order.
struct RoundInputs {
  std::string source;
  std::vector<Tensor> inputs;
};

// `tensor` in the type another model wants for it.
Tensor converted(const Tensor& tensor, DType dtype) {
  const bool both_float = is_float(tensor.dtype()) && is_float(dtype), both_int = is_int(tensor.dtype()) && is_int(dtype);
  return tensor.dtype() != dtype && (both_float || both_int) ? tensor.cast(dtype) : tensor;
}

// The inputs of `model` as inputs of `reference`: by name, else by position.
std::vector<Tensor> inputs_for(const Graph& reference, const Graph& model, const std::vector<Tensor>& inputs) {
  const auto position = [&](const std::string& name) {
    for (size_t i = 0; i < model.inputs().size(); ++i)
      if (model.value(model.inputs()[i]).name == name) return static_cast<int64_t>(i);
    return int64_t{-1};
  };
  const std::vector<ValueId>& theirs = reference.inputs();
  const bool by_name = std::all_of(theirs.begin(), theirs.end(), [&](ValueId id) { return position(reference.value(id).name) >= 0; });
  if (!by_name && theirs.size() != inputs.size())
    bad_data("has {} inputs, the model {}, and their names differ", theirs.size(), inputs.size());
  std::vector<Tensor> list;
  for (size_t i = 0; i < theirs.size(); ++i) {
    const Value& v = reference.value(theirs[i]);
    list.push_back(converted(inputs[by_name ? static_cast<size_t>(position(v.name)) : i], v.dtype));
  }
  return list;
}

// Outputs of a reference model under the names of the model's outputs: by name, else by position.
NamedTensors renamed_outputs(NamedTensors expected, const Graph& model) {
  const auto known = [&](const std::string& name) {
    return std::any_of(model.outputs().begin(), model.outputs().end(), [&](ValueId id) { return model.value(id).name == name; });
  };
  if (std::all_of(expected.begin(), expected.end(), [&](const auto& entry) { return known(entry.first); })) return expected;
  if (expected.size() != model.outputs().size())
    bad_data("has {} outputs, the model {}, and their names differ", expected.size(), model.outputs().size());
  for (size_t i = 0; i < expected.size(); ++i) expected[i].first = model.value(model.outputs()[i]).name;
  return expected;
}

class Verifier {
 public:
  explicit Verifier(const VerifyOptions& options) : options_(options) {
    report_.model = options.model;
    report_.reference = options.reference;
    report_.tolerance = options.tolerance;
  }

  VerifyReport run() {
    check_usage();
    model_ = load_model(options_.model);
    session_ = std::make_unique<Session>(model_, options_.session);
    open_reference();
    for (const RoundInputs& round : rounds()) {
      VerifyRound r;
      r.source = round.source;
      for (size_t i = 0; i < round.inputs.size(); ++i)
        r.inputs.emplace_back(model_->value(model_->inputs()[i]).name, round.inputs[i].shape());
      compare_round(round, r);
      const bool differs = !all_ok(r.outputs);
      report_.rounds.push_back(std::move(r));
      const bool found = !report_.bisections.empty() && report_.bisections.back().first;
      if (options_.bisect && !found && (differs || options_.reference.empty())) find_divergence(round);
    }
    return std::move(report_);
  }

 private:
  void check_usage() const {
    one_standard_input({&options_.model, &options_.input, &options_.data, &options_.reference});
    const int sources = !options_.input.empty() + !options_.data.empty() + !options_.shapes.empty();
    if (sources > 1) fail(ExitCode::kUsage, "--input, --data and --shape exclude each other");
    if (options_.reference.empty() && !options_.bisect) fail(ExitCode::kUsage, "--reference is missing");
  }

  void open_reference() {
    const std::string& path = options_.reference;
    if (path.empty()) return;
    std::error_code error;
    if (std::filesystem::is_directory(path, error)) fail(ExitCode::kUnsupported, "{}: folders are not supported as a reference", path);
    if (path == "-" || looks_like_zip(MappedFile::open(path)->bytes())) {
      if (options_.input.empty() && options_.data.empty()) fail(ExitCode::kUsage, "expected outputs need the inputs they are for: --input or --data");
      expected_ = read_npz(path);
      return;
    }
    reference_ = load_model(path);
    reference_session_ = std::make_unique<Session>(reference_, options_.session);
  }

  std::vector<RoundInputs> rounds() {
    if (!options_.input.empty())
      return {{options_.input, with_context([&] { return options_.input; }, [&] { return order_inputs(*model_, read_npz(options_.input)); })}};
    if (!options_.data.empty()) {
      const Feed feed(open_dataset(options_.data), input_specs(*model_));
      return {{options_.data, feed.range(0, std::min(options_.batch, feed.size())).inputs}};
    }
    report_.random = true;
    std::vector<RoundInputs> list;
    for (const std::vector<std::string>& shapes : shape_rounds(options_.shapes))
      list.push_back({fmt::format("random numbers (seed {})", options_.seed),
                      random_inputs(*model_, resolve_input_shapes(*model_, shapes).shapes, options_.seed)});
    return list;
  }

  void compare_round(const RoundInputs& round, VerifyRound& r) {
    if (options_.reference.empty()) {
      const NamedTensors got = run_own(round);
      Session plain(model_, unoptimized());
      r.outputs = compare_outputs(got, name_outputs(*model_, plain.run(round.inputs)), options_.tolerance);
      return;
    }
    NamedTensors expected;
    if (reference_ != nullptr) {
      expected = with_context([&] { return options_.reference; }, [&] {
        return renamed_outputs(name_outputs(*reference_, reference_session_->run(inputs_for(*reference_, *model_, round.inputs))), *model_);
      });
    }
    const NamedTensors got = run_own(round);
    r.outputs = with_context([&] { return options_.reference; }, [&] {
      return compare_outputs(got, reference_ != nullptr ? expected : expected_, options_.tolerance);
    });
  }

  NamedTensors run_own(const RoundInputs& round) {
    return with_context([&] { return options_.model; }, [&] { return name_outputs(*model_, session_->run(round.inputs)); });
  }

  // The graph as the file states it, node by node.
  SessionOptions as_stated() const {
    SessionOptions o;
    o.pipeline.clear();
    o.static_plan = false;
    o.layouts = false;
    o.threads = options_.session.threads;
    return o;
  }
  // The same on the kernels that everything else is checked against.
  SessionOptions unoptimized() const {
    SessionOptions o = as_stated();
    o.isa = Isa::kPortable;
    return o;
  }

  // First the two files as they are; when they agree, what our own passes and kernels make of the model.
  void find_divergence(const RoundInputs& round) {
    BisectOptions options;
    options.tolerance = options_.tolerance;
    options.memory = options_.bisect_memory;
    if (reference_ != nullptr) {
      const BisectSide got{model_, as_stated(), round.inputs};
      const BisectSide expected{reference_, as_stated(), inputs_for(*reference_, *model_, round.inputs)};
      report_.bisections.push_back(bisect(got, expected, pair_models(*model_, *reference_), options));
      report_.bisections.back().reference = options_.reference;
      if (report_.bisections.back().first) return;
    }
    auto optimized = std::make_shared<Graph>(*model_);
    PipelineOptions passes;
    passes.disabled = options_.session.disabled_passes;
    passes.evaluate = evaluate_node;
    if (!options_.session.pipeline.empty()) run_pipeline(*optimized, options_.session.pipeline, passes);
    SessionOptions ready = options_.session;
    ready.pipeline.clear();
    const BisectSide got{optimized, ready, round.inputs}, expected{model_, unoptimized(), round.inputs};
    const std::vector<ValuePair> pairs = pair_rewritten(*optimized, *model_);
    report_.bisections.push_back(bisect(got, expected, pairs, options));
    report_.bisections.back().reference = "the unoptimized model on portable kernels";
  }

  const VerifyOptions& options_;
  VerifyReport report_;
  std::shared_ptr<const Graph> model_, reference_;
  std::unique_ptr<Session> session_, reference_session_;
  NamedTensors expected_;
};

}  // namespace

bool VerifyReport::ok() const {
  return std::all_of(rounds.begin(), rounds.end(), [](const VerifyRound& r) { return all_ok(r.outputs); }) &&
         std::none_of(bisections.begin(), bisections.end(), [](const Bisection& b) { return b.first.has_value(); });
}

VerifyReport verify(const VerifyOptions& options) { return Verifier(options).run(); }

}  // namespace ds
