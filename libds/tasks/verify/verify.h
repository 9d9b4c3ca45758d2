// ds-bench verify: what a model returns, against a reference.
//
// The reference is another model, run on the same inputs; arrays of expected outputs; or folders in the layout of
// ONNX's own tests, which bring inputs and outputs. Without a reference (bisect only) the model is compared with
// itself, optimized against unoptimized on the portable kernels.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "libds/tasks/verify/bisect.h"
#include "libds/tasks/verify/compare.h"

namespace ds {

struct VerifyOptions {
  std::string model;
  std::string reference;            // model, .npz or folder; empty: the model itself, with `bisect` only
  std::string input;                // .npz keyed by input name, or
  std::string data;                 // a data set (data/dataset.h), whose first `batch` samples are taken; or
  std::vector<std::string> shapes;  // random inputs of these shapes; a name given again is another round
  int64_t batch = 1;
  uint64_t seed = 0;
  Tolerance tolerance;
  bool bisect = false;              // name the first node that diverges
  size_t bisect_memory = size_t{256} << 20;
  SessionOptions session;
};

// One run on one set of inputs.
struct VerifyRound {
  std::string source;  // of the inputs: a path, "random numbers (seed 0)"
  std::vector<std::pair<std::string, Shape>> inputs;
  std::vector<OutputDifference> outputs;
};

struct VerifyReport {
  std::string model, reference;
  Tolerance tolerance;
  bool random = false;               // some inputs were random numbers
  std::vector<VerifyRound> rounds;
  std::vector<Bisection> bisections; // in the order made; the last one may have found the divergence
  bool ok() const;
};

VerifyReport verify(const VerifyOptions& options);

// Tables, one line per output, and the reason of each failure.
std::string verify_text(const VerifyReport& report);
// See man/ds-bench-verify.schema.json.
std::string verify_json(const VerifyReport& report);

}  // namespace ds
