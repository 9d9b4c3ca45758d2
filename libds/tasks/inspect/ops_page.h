// What the library knows about every operator, from the registry: `ds-bench ops` and man/ds-ops.7.
#pragma once

#include <string>
#include <vector>

#include "libds/ir/op_def.h"

namespace ds {

struct OpFacts {
  enum class Gradient { kNone, kOwn, kLowered, kStops };
  const OpDef* def = nullptr;
  int64_t since = 0;                // ai.onnx: the operator set it began with; 0 for those of 7 and before, and other domains
  Gradient gradient = Gradient::kNone;
  std::vector<std::string> kernels; // best first
  // Types of the first input that ran when tried; empty when no small example was found to try with.
  std::vector<DType> types;
};

// Every operator that a file may hold, by domain and name; internal ones are left out. `try_types` runs small
// examples, which takes seconds.
std::vector<OpFacts> list_ops(bool try_types);

// Operators of ai.onnx and ai.onnx.ml that onnxruntime's CPU provider runs and this library does not, with the reason.
struct MissingOp {
  std::string_view op, reason, domain = {};
};
std::vector<MissingOp> missing_ops();

// Names of former operator sets and what they are read as.
std::vector<std::pair<std::string, std::string>> former_op_names();

std::string ops_text(const std::vector<OpFacts>& ops);
std::string ops_json(const std::vector<OpFacts>& ops);
std::string ops_man_page(const std::vector<OpFacts>& ops, const std::string& version);

// Types of the first input for which `def` runs; see OpFacts::types.
std::vector<DType> runnable_types(const OpDef& def);

}  // namespace ds
