#include "libds/eval/evaluate.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "libds/data/loader.h"
#include "libds/eval/metrics.h"

namespace ds {
namespace {

// The size the model fixes for its batch dimension, if it does.
std::optional<int64_t> fixed_batch(const Graph& graph) {
  for (ValueId id : graph.inputs()) {
    const auto& dims = graph.value(id).dims;
    if (dims && !dims->empty() && (*dims)[0].known()) return (*dims)[0].raw;
  }
  return std::nullopt;
}

// Calls `take(output, rows)` for one batch after another.
void for_batches(Session& session, const Feed& feed, std::span<const int64_t> rows, int64_t batch_size,
                 const std::function<void(const Tensor&, std::span<const int64_t>, const Tensor& labels)>& take) {
  if (batch_size < 1) fail(ExitCode::kUsage, "batch size {} is below 1", batch_size);
  const auto fixed = fixed_batch(session.graph());
  if (fixed && *fixed < 1) bad_data("the model's batch dimension is {}", *fixed);
  if (session.graph().outputs().empty()) bad_data("the model has no output");
  for (const auto piece : in_order(rows, fixed.value_or(batch_size))) {
    std::vector<int64_t> filled(piece.begin(), piece.end());
    if (fixed) filled.resize(static_cast<size_t>(*fixed), piece.back());
    const Batch batch = feed.batch(filled);
    Tensor output = session.run(batch.inputs)[0];
    if (output.rank() == 0 || output.dim(0) != batch.size)
      bad_data("output '{}' has shape {} for a batch of {}", session.graph().value(session.graph().outputs()[0]).name,
               shape_string(output.shape()), batch.size);
    const auto n = static_cast<int64_t>(piece.size());
    take(output.rows(0, n), piece, batch.labels.defined() ? batch.labels.rows(0, n) : Tensor());
  }
}

void require_targets(const Tensor& output, const Tensor& labels) {
  if (output.numel() != labels.numel())
    bad_data("the model gives {} for targets of shape {}", shape_string(output.shape()), shape_string(labels.shape()));
}

}  // namespace

EvalResult evaluate(Session& session, const Feed& feed, const EvalOptions& options) {
  const std::string& name = feed.dataset().name();
  if (!feed.dataset().has_labels()) bad_data("{}: no labels (name them with --label-key)", name);
  std::vector<int64_t> rows = options.rows;
  if (rows.empty()) {
    rows.resize(static_cast<size_t>(feed.size()));
    std::iota(rows.begin(), rows.end(), 0);
  }
  EvalResult result;
  double loss = 0, top1 = 0, top5 = 0, right = 0, elements = 0;
  int64_t classes = 0;
  std::vector<int64_t> labels, positive;
  std::vector<double> scores;
  for_batches(session, feed, rows, options.batch_size, [&](const Tensor& output, std::span<const int64_t> piece, const Tensor& y) {
    with_context([&] { return name; }, [&] {
      result.samples += static_cast<int64_t>(piece.size());
      if (options.loss == EvalLoss::kCrossEntropy) {
        if (y.dtype() != DType::kI64) bad_data("labels must be integers for a classification loss");
        classes = output.rank() > 1 ? output.dim(1) : 0;
        const std::vector<int64_t> own = y.to_ints();
        for (size_t i = 0; i < own.size(); ++i)
          if (own[i] < 0 || own[i] >= classes) bad_data("row {}: label {} is out of range [0, {})", piece[i], own[i], classes);
        const Classified c = classify(output, y);
        loss += c.cross_entropy;
        top1 += static_cast<double>(c.top1);
        top5 += static_cast<double>(c.top5);
        labels.insert(labels.end(), own.begin(), own.end());
        const std::vector<int64_t> chosen = argmax_rows(output);
        result.predicted.insert(result.predicted.end(), chosen.begin(), chosen.end());
      } else {
        require_targets(output, y);
        const std::vector<double> x = output.to_doubles(), t = y.to_doubles();
        elements += static_cast<double>(x.size());
        for (size_t i = 0; i < x.size(); ++i) {
          if (options.loss == EvalLoss::kMse) {
            loss += (x[i] - t[i]) * (x[i] - t[i]);
          } else {  // log(1 + e^x) - t x, without overflow
            loss += std::max(x[i], 0.0) - x[i] * t[i] + std::log1p(std::exp(-std::abs(x[i])));
            right += (x[i] > 0) == (t[i] > 0.5);
            scores.push_back(x[i]);
            positive.push_back(t[i] > 0.5);
          }
        }
      }
    });
    if (options.on_progress) options.on_progress(result.samples);
  });
  const auto n = static_cast<double>(result.samples);
  if (options.loss == EvalLoss::kCrossEntropy) {
    result.loss = loss / n;
    result.top1 = top1 / n;
    if (classes > 5) result.top5 = top5 / n;
    result.f1 = f1_score(result.predicted, labels, classes).macro;
  } else {
    result.loss = elements > 0 ? loss / elements : 0;
    if (options.loss == EvalLoss::kBce) {
      result.accuracy = right / elements;
      if (static_cast<int64_t>(scores.size()) == result.samples) result.auc = roc_auc(scores, positive);
    }
  }
  return result;
}

Tensor predict(Session& session, const Feed& feed, std::span<const int64_t> rows, int64_t batch_size) {
  Tensor all;
  size_t done = 0;
  for_batches(session, feed, rows, batch_size, [&](const Tensor& output, std::span<const int64_t> piece, const Tensor&) {
    if (!all.defined()) {
      Shape shape = output.shape();
      shape[0] = static_cast<int64_t>(rows.size());
      all = Tensor::empty(output.dtype(), shape);
    }
    Tensor place = all.rows(static_cast<int64_t>(done), static_cast<int64_t>(done + piece.size()));
    if (place.shape() != output.shape() || place.dtype() != output.dtype())
      bad_data("the model's output changes shape between batches: {} and {}", shape_string(place.shape()), shape_string(output.shape()));
    if (output.bytes() > 0) std::memcpy(place.mutable_raw(), output.raw(), output.bytes());
    done += piece.size();
  });
  return all;
}

}  // namespace ds
