#include "libds/tasks/train/train.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "libds/base/file.h"
#include "libds/base/parallel.h"
#include "libds/base/process.h"
#include "libds/base/random.h"
#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"
#include "libds/run/peak.h"
#include "libds/run/session.h"
#include "libds/tasks/train/checkpoint.h"
#include "libds/tasks/train/metrics_log.h"
#include "libds/tasks/train/prune_masks.h"

namespace ds {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

constexpr const char* kBestPrefix = "best/";

// Labels in the type and shape the loss wants.
Tensor as_target(const Tensor& labels, const Value& target) {
  const Tensor typed = labels.dtype() == target.dtype ? labels : labels.cast(target.dtype);
  Shape shape = labels.shape();
  if (target.dims && target.dims->size() != shape.size()) {  // [N] against [N, 1]
    shape = {labels.dim(0)};
    for (size_t i = 1; i < target.dims->size(); ++i) shape.push_back((*target.dims)[i].known() ? (*target.dims)[i].raw : 1);
  }
  return with_context([] { return std::string("labels"); }, [&] { return typed.reshaped(shape); });
}

int64_t count_correct(const Tensor& scores, const Tensor& labels) {
  const int64_t classes = scores.dim(1);
  const std::vector<int64_t> expected = labels.to_ints();
  int64_t correct = 0;
  for (int64_t i = 0; i < scores.dim(0); ++i) {
    const float* row = scores.data<float>() + i * classes;
    correct += std::max_element(row, row + classes) - row == expected[static_cast<size_t>(i)];
  }
  return correct;
}

class Trainer {
 public:
  Trainer(const TrainOptions& options, const TrainCallbacks& callbacks) : options_(options), callbacks_(callbacks) {}

  TrainResult run() {
    if (options_.threads > 0) set_num_threads(options_.threads);
    check_options();
    if (!options_.output.empty()) check_writable(options_.output);
    model_ = load_model(options_.model);
    open_data();
    const std::optional<Checkpoint> saved = find_checkpoint();
    prepare_step();
    MetricsLog log = start(saved);
    while (step_ < total_steps() && !stopped()) run_epoch(log);
    result_.measured_bytes = peak_resident_bytes() - idle_bytes_;
    if (step_ < total_steps()) {
      checkpoint();
      result_.interrupted = true;
    } else if (!options_.output.empty()) {
      save_model(*with_trained_weights(*model_, train_, best_.empty() ? executor_->states() : best_), options_.output,
                 {.external_data = options_.external_data});
    }
    return std::move(result_);
  }

 private:
  bool stopped() const { return callbacks_.stop != nullptr && callbacks_.stop->load(); }
  int64_t total_steps() const { return loader_->steps_per_epoch() * options_.epochs; }
  void message(const std::string& line) const {
    if (callbacks_.on_message) callbacks_.on_message(line);
  }

  void check_options() const {
    const auto usage = [](const char* text) { fail(ExitCode::kUsage, "{}", text); };
    if (options_.epochs < 1) usage("--epochs must be at least 1");
    if (options_.batch_size < 1) usage("--batch-size must be at least 1");
    if (options_.target_sparsity < 0 || options_.target_sparsity >= 1) usage("--target-sparsity must be in [0, 1)");
    if (options_.resume && options_.checkpoint_dir.empty()) usage("--resume needs --checkpoint-dir");
    if (options_.keep_best && options_.validation.empty() && options_.validation_split <= 0)
      usage("--keep best needs --val or --val-split");
  }

  // --- set-up ---

  void open_data() {
    const DatasetOptions dataset_options{options_.label_key};
    const auto dataset = open_dataset(options_.data, dataset_options);
    require_labels(*dataset);
    feed_.emplace(dataset, input_specs(*model_));
    std::vector<int64_t> rows(static_cast<size_t>(dataset->size()));
    for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<int64_t>(i);
    if (!options_.validation.empty()) {
      const auto validation = open_dataset(options_.validation, dataset_options);
      require_labels(*validation);
      validation_feed_.emplace(validation, input_specs(*model_));
      for (int64_t i = 0; i < validation->size(); ++i) validation_rows_.push_back(i);
    } else if (options_.validation_split > 0) {
      Split split = split_rows(dataset->size(), options_.validation_split, options_.seed);
      rows = std::move(split.train);
      validation_rows_ = std::move(split.validation);
      validation_feed_ = feed_;
    }
    loader_.emplace(*feed_, std::move(rows), options_.batch_size, options_.seed, Augment::parse(options_.augment));
  }

  void require_labels(const Dataset& d) const {
    if (!d.has_labels()) bad_data("{}: there are no labels to train on", d.name());
    if (options_.graph.loss != LossKind::kCrossEntropy) return;
    const auto& dims = model_->value(model_->outputs().at(0)).dims;
    if (dims && dims->size() >= 2 && (*dims)[1].known()) d.check_labels((*dims)[1].raw);
  }

  void prepare_step() {
    std::vector<Shape> shapes;
    for (size_t i = 0; i < feed_->specs().size(); ++i) shapes.push_back(feed_->input_shape(i, options_.batch_size));
    TrainGraphOptions graph_options = options_.graph;
    graph_options.prune = options_.target_sparsity > 0;
    graph_options.seed = options_.seed;
    train_ = with_context([&] { return options_.model; }, [&] { return build_train_graph(*model_, shapes, graph_options); });
    loader_->batch(0, 0);  // what the loader keeps is part of the idle process
    trim_heap();
    idle_bytes_ = resident_bytes();
    reset_peak_resident();
    CompileOptions compile_options;
    compile_options.threads = num_threads();
    if (options_.static_plan) {
      const auto plan = compile(train_.graph, compile_options);
      size_t batch_bytes = 0;  // the caller of a plan brings its inputs; here that is us
      for (int input : plan->inputs) batch_bytes += plan->slots[static_cast<size_t>(input)].desc.bytes();
      result_.planned_bytes = plan->planned_bytes() + batch_bytes;
      flops_ = plan->flops;
      executor_ = make_plan_executor(plan);
      const auto megabytes = [](size_t bytes) { return static_cast<double>(bytes) / 1e6; };
      message(fmt::format("plan: {} steps, {:.1f} MB at the peak ({:.1f} activations and gradients, {:.1f} states, {:.1f} batch)",
                          plan->steps.size(), megabytes(result_.planned_bytes),
                          megabytes(plan->arena_bytes + plan->output_bytes + plan->packed_bytes), megabytes(plan->state_bytes),
                          megabytes(batch_bytes)));
    } else {
      compile_options.layouts = false;
      executor_ = make_eager_executor(train_.graph, compile_options);
    }
    target_ = train_.graph->value(train_.graph->inputs()[model_->inputs().size()]);
  }

  // Everything that must be equal for two runs to be the same run.
  std::string fingerprint() const {
    const TrainGraphOptions& g = options_.graph;
    const std::string text = fmt::format(
        "{} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {} {}", model_hash(*model_), options_.data,
        options_.validation, options_.validation_split, options_.label_key, options_.augment, static_cast<int>(g.loss),
        static_cast<int>(g.optimizer), g.momentum, g.nesterov, g.beta1, g.beta2, g.epsilon, g.weight_decay,
        fmt::join(g.freeze, ","), static_cast<int>(options_.schedule.shape), options_.schedule.base, options_.schedule.floor,
        options_.schedule.warmup, options_.epochs, options_.batch_size, options_.seed, options_.target_sparsity,
        static_cast<int>(options_.sparsity.shape), options_.sparsity.end);
    return fmt::format("{:016x}", stream_of(text));
  }

  // What to go on from. Looked for before the work of planning: a foreign checkpoint is a usage error.
  std::optional<Checkpoint> find_checkpoint() const {
    return options_.resume ? latest_checkpoint(options_.checkpoint_dir, fingerprint()) : std::nullopt;
  }

  MetricsLog start(const std::optional<Checkpoint>& saved) {
    if (!saved) {
      if (options_.resume) message("no checkpoint yet: starting afresh");
      return MetricsLog(options_.metrics);
    }
    restore(*saved);
    message(fmt::format("resumed at step {} of {}", step_, total_steps()));
    return MetricsLog(options_.metrics, step_);
  }

  // --- checkpoints ---

  void checkpoint() {
    if (options_.checkpoint_dir.empty()) return;
    Checkpoint c;
    c.step = step_;
    c.epoch = step_ / loader_->steps_per_epoch();
    c.seed = options_.seed;
    c.fingerprint = fingerprint();
    c.numbers = {{"loss_sum", loss_sum_}, {"best_score", best_score_}};
    for (size_t i = 0; i < train_.states.size(); ++i) c.states.emplace_back(train_.states[i].name, executor_->states()[i]);
    for (size_t i = 0; i < best_.size(); ++i) c.states.emplace_back(kBestPrefix + train_.states[i].name, best_[i]);
    save_checkpoint(options_.checkpoint_dir, c, options_.keep_checkpoints);
    saved_step_ = step_;
  }

  void restore(const Checkpoint& c) {
    std::vector<Tensor> states, best;
    const auto take = [&](const std::string& name) {
      const auto it = std::find_if(c.states.begin(), c.states.end(), [&](const auto& s) { return s.first == name; });
      if (it == c.states.end()) bad_data("the checkpoint has no state '{}'", name);
      return it->second;
    };
    const bool has_best = std::any_of(c.states.begin(), c.states.end(), [](const auto& s) { return s.first.rfind(kBestPrefix, 0) == 0; });
    for (const StateInfo& s : train_.states) {
      states.push_back(take(s.name));
      if (has_best) best_.push_back(take(kBestPrefix + s.name).clone());
    }
    executor_->set_states(states);
    step_ = saved_step_ = c.step;
    loss_sum_ = c.numbers.at("loss_sum");
    best_score_ = c.numbers.at("best_score");
  }

  // --- the loop ---

  // Runs to the end of the epoch that step_ is in, or to a stop.
  void run_epoch(MetricsLog& log) {
    const int64_t per_epoch = loader_->steps_per_epoch();
    const int64_t epoch = step_ / per_epoch, first = step_ % per_epoch;
    if (first == 0) loss_sum_ = 0;
    const Clock::time_point start = Clock::now();
    for (int64_t i = first; i < per_epoch; ++i) {
      if (stopped()) return;
      run_step(epoch, i);
      if (options_.checkpoint_every > 0 && step_ % options_.checkpoint_every == 0 && step_ % per_epoch != 0) checkpoint();
    }
    const double seconds = seconds_since(start);
    EpochReport report;
    report.epoch = static_cast<int>(epoch) + 1;
    report.train_loss = loss_sum_ / static_cast<double>(per_epoch);
    report.learning_rate = options_.schedule.at(step_ - 1, total_steps());
    report.samples_per_second = static_cast<double>((per_epoch - first) * options_.batch_size) / seconds;
    report.compute_efficiency = compute_efficiency(static_cast<double>(flops_) * static_cast<double>(per_epoch - first), seconds,
                                                   DType::kF32, num_threads());
    report.sparsity = masked_fraction(train_, executor_->states());
    validate(report);
    keep_if_best(report);
    write_metrics(log, report);
    checkpoint();
    if (callbacks_.on_epoch) callbacks_.on_epoch(report);
    result_.epochs.push_back(report);
  }

  void run_step(int64_t epoch, int64_t i) {
    Batch batch = loader_->batch(epoch, i);
    const double rate = options_.schedule.at(step_, total_steps());
    if (options_.target_sparsity > 0)
      update_masks(train_, executor_->states(), options_.sparsity.at(options_.target_sparsity, step_, total_steps()), options_.target_sparsity);
    std::vector<Tensor> inputs = std::move(batch.inputs);
    inputs.push_back(as_target(batch.labels, target_));
    inputs.push_back(Tensor::scalar<float>(static_cast<float>(rate)));
    inputs.push_back(Tensor::scalar<int64_t>(step_));
    const double loss = executor_->run(inputs)[0].to_doubles()[0];
    if (!std::isfinite(loss))
      bad_data("{}: the loss is {} in epoch {}, step {} (learning rate {})", options_.model, loss, epoch + 1, step_, rate);
    loss_sum_ += loss;
    ++step_;
    if (callbacks_.on_step)
      callbacks_.on_step({static_cast<int>(epoch) + 1, options_.epochs, step_, total_steps(),
                          loss_sum_ / static_cast<double>(i + 1), rate});
  }

  void validate(EpochReport& report) {
    if (!validation_feed_) return;
    const auto trained = with_trained_weights(*model_, train_, executor_->states());
    Session session(with_loss(*trained, options_.graph.loss));
    const Value& target = session.graph().value(session.graph().inputs().back());
    double loss = 0;
    int64_t correct = 0, total = 0;
    for (const auto rows : in_order(validation_rows_, options_.batch_size)) {
      Batch batch = validation_feed_->batch(rows);
      std::vector<Tensor> inputs = std::move(batch.inputs);
      inputs.push_back(as_target(batch.labels, target));
      const std::vector<Tensor> outputs = session.run(inputs);
      loss += outputs[0].to_doubles()[0] * static_cast<double>(batch.size);
      total += batch.size;
      if (options_.graph.loss == LossKind::kCrossEntropy && outputs[1].rank() == 2) correct += count_correct(outputs[1], inputs.back());
      else correct = -1;
    }
    report.validation_loss = loss / static_cast<double>(total);
    if (correct >= 0) report.validation_top1 = static_cast<double>(correct) / static_cast<double>(total);
  }

  void keep_if_best(const EpochReport& report) {
    if (!options_.keep_best || !report.validation_loss) return;
    const double score = report.validation_top1 ? *report.validation_top1 : -*report.validation_loss;
    if (!best_.empty() && score <= best_score_) return;
    best_score_ = score;
    best_.clear();
    for (const Tensor& t : executor_->states()) best_.push_back(t.clone());
  }

  void write_metrics(MetricsLog& log, const EpochReport& r) const {
    MetricFields fields = {{"epoch", int64_t{r.epoch}}, {"step", step_}, {"train_loss", r.train_loss}, {"learning_rate", r.learning_rate}};
    if (r.validation_loss) fields.emplace_back("val_loss", *r.validation_loss);
    if (r.validation_top1) fields.emplace_back("val_top1", *r.validation_top1);
    fields.emplace_back("sparsity", r.sparsity);
    fields.emplace_back("samples_per_second", r.samples_per_second);
    fields.emplace_back("ds_compute_efficiency", r.compute_efficiency);
    for (int t = 0; t < kTierCount; ++t)
      fields.emplace_back(fmt::format("ds_memory_usage_{}", tier_name(static_cast<Tier>(t))), tier_bytes(static_cast<Tier>(t)));
    log.write(fields);
  }

  const TrainOptions& options_;
  const TrainCallbacks& callbacks_;
  TrainResult result_;
  std::shared_ptr<const Graph> model_;
  std::optional<Feed> feed_, validation_feed_;
  std::vector<int64_t> validation_rows_;
  std::optional<TrainLoader> loader_;
  TrainGraph train_;
  Value target_;  // the step graph's input of that name
  std::unique_ptr<Executor> executor_;
  std::vector<Tensor> best_;  // states of the best validation so far; empty unless asked for
  double best_score_ = 0;
  double loss_sum_ = 0;  // over the running epoch
  int64_t step_ = 0, saved_step_ = -1;
  int64_t flops_ = 0;  // of one step
  int64_t idle_bytes_ = 0;
};

}  // namespace

TrainResult train(const TrainOptions& options, const TrainCallbacks& callbacks) { return Trainer(options, callbacks).run(); }

}  // namespace ds
