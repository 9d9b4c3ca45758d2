#include "libds/tasks/verify/verify.h"

#include <algorithm>
#include <filesystem>

#include "libds/base/file.h"
#include "libds/data/dataset.h"
#include "libds/data/test_data_set.h"
#include "libds/ir/onnx_import.h"
#include "libds/passes/pipeline.h"
#include "libds/run/input_shapes.h"
#include "libds/run/random_inputs.h"
#include "libds/tasks/verify/run_model.h"

namespace ds {
namespace {

struct Round {
  std::string source;          // of the inputs
  std::vector<Tensor> inputs;  // in the model's order
  NamedTensors expected;       // when the source brings them
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
    for (const std::string& folder : folders_) run_round(from_folder(folder));
    if (folders_.empty())
      for (const Round& round : rounds()) run_round(round);
    return std::move(report_);
  }

 private:
  void run_round(const Round& round) {
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
    if (std::filesystem::is_directory(path, error)) {
      if (!options_.input.empty() || !options_.data.empty() || !options_.shapes.empty())
        fail(ExitCode::kUsage, "a folder brings its own inputs: --input, --data and --shape are for other references");
      folders_ = find_test_data_sets(path);
      if (folders_.empty()) folders_ = {path};
      return;
    }
    if (path == "-" || looks_like_zip(MappedFile::open(path)->bytes())) {
      if (options_.input.empty() && options_.data.empty()) fail(ExitCode::kUsage, "expected outputs need the inputs they are for: --input or --data");
      expected_ = read_npz(path);
      return;
    }
    reference_ = load_model(path);
    reference_session_ = std::make_unique<Session>(reference_, options_.session);
  }

  std::vector<Round> rounds() {
    if (!options_.input.empty())
      return {{options_.input, with_context([&] { return options_.input; }, [&] { return order_inputs(*model_, read_npz(options_.input)); }), {}}};
    if (!options_.data.empty()) {
      const Feed feed(open_dataset(options_.data), input_specs(*model_));
      return {{options_.data, feed.range(0, std::min(options_.batch, feed.size())).inputs, {}}};
    }
    report_.random = true;
    std::vector<Round> list;
    for (const std::vector<std::string>& shapes : shape_rounds(options_.shapes))
      list.push_back({fmt::format("random numbers (seed {})", options_.seed),
                      random_inputs(*model_, resolve_input_shapes(*model_, shapes).shapes, options_.seed), {}});
    return list;
  }

  void compare_round(const Round& round, VerifyRound& r) {
    const NamedTensors got = run_own(round);
    const NamedTensors expected = reference_for(round);
    r.outputs = with_context([&] { return options_.reference.empty() ? options_.model : round.expected.empty() ? options_.reference : round.source; },
                             [&] { return compare_outputs(got, expected, options_.tolerance); });
  }

  NamedTensors reference_for(const Round& round) {
    if (!round.expected.empty()) return round.expected;
    if (options_.reference.empty()) {
      Session plain(model_, unoptimized());
      return name_outputs(*model_, plain.run(round.inputs));
    }
    if (reference_ == nullptr) return expected_;
    return with_context([&] { return options_.reference; }, [&] {
      return renamed_outputs(name_outputs(*reference_, reference_session_->run(inputs_for(*reference_, *model_, round.inputs))), *model_);
    });
  }

  Round from_folder(const std::string& folder) const {
    TestDataSet set = read_test_data_set(folder, *model_);
    if (set.outputs.empty()) bad_data("{}: holds no expected output", folder);
    Round round{folder, std::move(set.inputs), {}};
    for (size_t i = 0; i < set.outputs.size(); ++i) round.expected.emplace_back(model_->value(model_->outputs()[i]).name, std::move(set.outputs[i]));
    return round;
  }

  NamedTensors run_own(const Round& round) {
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
  void find_divergence(const Round& round) {
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
    if (!options_.session.pipeline.empty()) run_pipeline(*optimized, options_.session.pipeline, pipeline_options(options_.session));
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
  NamedTensors expected_;             // of an .npz reference
  std::vector<std::string> folders_;  // of a reference in ONNX's own layout
};

}  // namespace

bool VerifyReport::ok() const {
  return std::all_of(rounds.begin(), rounds.end(), [](const VerifyRound& r) { return all_ok(r.outputs); }) &&
         std::none_of(bisections.begin(), bisections.end(), [](const Bisection& b) { return b.first.has_value(); });
}

VerifyReport verify(const VerifyOptions& options) { return Verifier(options).run(); }

}  // namespace ds
