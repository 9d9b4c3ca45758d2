#include "libds/tasks/quantize/calibrate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "libds/ir/rewriter.h"
#include "libds/run/session.h"

namespace ds {
namespace {

constexpr int64_t kMicroBatch = 8;

// The batch a model insists on; 0 when it takes any.
int64_t fixed_batch(const Graph& graph) {
  for (ValueId id : graph.inputs()) {
    const auto& dims = graph.value(id).dims;
    if (dims && !dims->empty() && (*dims)[0].known()) return (*dims)[0].raw;
  }
  return 0;
}

// Rows [begin, begin + count), filled up to `size` by repeating the last.
std::vector<int64_t> rows_of(int64_t begin, int64_t count, int64_t size) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < size; ++i) rows.push_back(begin + std::min(i, count - 1));
  return rows;
}

// Shared handles: datasets are read-only.
std::shared_ptr<const Dataset> borrowed(const Dataset& dataset) { return {std::shared_ptr<const void>(), &dataset}; }

std::shared_ptr<Graph> with_outputs(const Graph& graph, const std::vector<ValueId>& outputs) {
  auto copy = std::make_shared<Graph>(graph);
  Rewriter rw(*copy);
  rw.set_outputs(outputs);
  rw.remove_dead_nodes();
  return copy;
}

// Statistics of one tensor. Samples come one by one; the moving average takes the extremes of each whole group of them.
class RangeOf {
 public:
  explicit RangeOf(Observer observer) : observer_(observer) {}
  void add(double low, double high) {
    constexpr int64_t kGroup = 16;
    group_low_ = pending_ == 0 ? low : std::min(group_low_, low);
    group_high_ = pending_ == 0 ? high : std::max(group_high_, high);
    if (++pending_ < kGroup) return;
    close_group();
  }
  // The range, an unfinished group included only when there is no whole one.
  TensorRange range() {
    if (observer_ == Observer::kMinMax || count_ == 0) close_group();
    return {static_cast<float>(low_), static_cast<float>(high_)};
  }

 private:
  void close_group() {
    if (pending_ == 0) return;
    const double low = group_low_, high = group_high_;
    pending_ = 0;
    ++count_;
    if (count_ == 1) {
      low_ = low;
      high_ = high;
    } else if (observer_ == Observer::kMinMax) {
      low_ = std::min(low_, low);
      high_ = std::max(high_, high);
    } else {
      const double weight = std::max(1.0 / static_cast<double>(count_), 0.01);
      low_ += (low - low_) * weight;
      high_ += (high - high_) * weight;
    }
  }

  Observer observer_;
  int64_t count_ = 0, pending_ = 0;
  double group_low_ = 0, group_high_ = 0;
  double low_ = 0, high_ = 0;
};

}  // namespace

std::map<ValueId, TensorRange> calibrate(const Graph& graph, const std::vector<ValueId>& observed, const Dataset& dataset,
                                         int64_t samples, Observer observer,
                                         const std::function<void(int64_t, int64_t)>& on_progress) {
  auto watched = std::make_shared<Graph>(graph);
  {
    Rewriter rw(*watched);
    std::vector<ValueId> ranges;
    for (ValueId id : observed) {
      const NodeId producer = watched->value(id).producer;
      if (producer != kNone) rw.insert_after(producer);
      else rw.insert_before(watched->first());
      ranges.push_back(rw.emit("SampleRange", {id}, {}, watched->value(id).name + "/range"));
    }
    rw.set_outputs(ranges);
    rw.remove_dead_nodes();
  }
  Session session(watched);
  const Feed feed(borrowed(dataset), input_specs(graph));
  const int64_t fixed = fixed_batch(graph), batch = fixed > 0 ? fixed : kMicroBatch;
  std::vector<RangeOf> statistics(observed.size(), RangeOf(observer));
  for (int64_t begin = 0; begin < samples; begin += batch) {
    const int64_t count = std::min(batch, samples - begin), size = fixed > 0 ? fixed : count;
    const std::vector<Tensor> ranges = session.run(feed.batch(rows_of(begin, count, size)).inputs);
    for (size_t t = 0; t < observed.size(); ++t) {
      // Rows belong to samples where they divide evenly among them (a sequence folded into the batch); else all are one.
      const int64_t rows = ranges[t].dim(0);
      const bool split = rows % size == 0;
      const int64_t groups = split ? count : 1, each = split ? rows / size : rows;
      const float* p = ranges[t].data<float>();
      for (int64_t g = 0; g < groups; ++g) {
        float low = std::numeric_limits<float>::infinity(), high = -low;
        for (int64_t r = g * each; r < (g + 1) * each; ++r) {
          if (!std::isfinite(p[2 * r]) || !std::isfinite(p[2 * r + 1]))
            bad_data("tensor '{}' is not finite on calibration sample {}", graph.value(observed[t]).name, begin + (split ? g : 0));
          low = std::min(low, p[2 * r]);
          high = std::max(high, p[2 * r + 1]);
        }
        if (low <= high) statistics[t].add(low, high);
      }
    }
    if (on_progress) on_progress(begin + count, samples);
  }
  std::map<ValueId, TensorRange> result;
  for (size_t t = 0; t < observed.size(); ++t) result[observed[t]] = statistics[t].range();
  return result;
}

std::vector<double> signal_to_noise(const Graph& graph, const std::vector<ValueId>& reference, const Graph& quantized,
                                    const std::vector<ValueId>& measured, const Dataset& dataset, int64_t samples) {
  DS_CHECK(reference.size() == measured.size());
  Session a(with_outputs(graph, reference)), b(with_outputs(quantized, measured));
  const Feed feed(borrowed(dataset), input_specs(graph));
  const int64_t fixed = fixed_batch(graph), batch = fixed > 0 ? fixed : 1;
  std::vector<double> signal(reference.size(), 0), noise(reference.size(), 0);
  for (int64_t begin = 0; begin < samples; begin += batch) {
    const int64_t count = std::min(batch, samples - begin);
    const std::vector<Tensor> inputs = feed.batch(rows_of(begin, count, batch)).inputs;
    const std::vector<Tensor> exact = a.run(inputs), rounded = b.run(inputs);
    for (size_t t = 0; t < exact.size(); ++t) {
      const float *x = exact[t].data<float>(), *y = rounded[t].data<float>();
      for (int64_t i = 0; i < exact[t].numel(); ++i) {
        signal[t] += static_cast<double>(x[i]) * x[i];
        noise[t] += (static_cast<double>(x[i]) - y[i]) * (static_cast<double>(x[i]) - y[i]);
      }
    }
  }
  std::vector<double> ratio(reference.size());
  for (size_t t = 0; t < ratio.size(); ++t)
    ratio[t] = noise[t] > 0 ? 10 * std::log10(std::max(signal[t], 1e-300) / noise[t]) : std::numeric_limits<double>::infinity();
  return ratio;
}

}  // namespace ds
