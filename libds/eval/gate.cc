#include "libds/eval/gate.h"

#include "libds/data/dataset.h"
#include "libds/eval/evaluate.h"

namespace ds {

GateResult run_gate(std::shared_ptr<const Graph> before, std::shared_ptr<const Graph> after, const GateOptions& options) {
  const auto dataset = open_dataset(options.data, {options.label_key});
  const Feed feed(dataset, input_specs(*before));
  const auto accuracy = [&](std::shared_ptr<const Graph> graph) {
    Session session(std::move(graph));
    const EvalResult result = evaluate(session, feed);
    if (!result.top1) bad_data("{}: labels are not classes, accuracies cannot be compared", dataset->name());
    return *result.top1;
  };
  GateResult result;
  result.samples = dataset->size();
  result.max_drop = options.max_drop;
  result.before = accuracy(std::move(before));
  result.after = accuracy(std::move(after));
  return result;
}

}  // namespace ds
