// Running a model on given arrays, and comparing what it returns with a reference.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libds/data/npz.h"
#include "libds/ir/graph.h"
#include "libds/run/session.h"

namespace ds {

// Arrays keyed by input name to arrays keyed by output name, in the graph's order. Throws kBadData
// for inputs that are missing, unknown, or of the wrong type or shape.
NamedTensors run_named(Session& session, const NamedTensors& inputs);

// `ds-bench run`: files in, file out. "-" is standard input or output; at most one of `model` and
// `input` may be it.
void run_file(const std::string& model, const std::string& input, const std::string& output, const SessionOptions& options = {});

// How far one output is from its reference.
struct OutputDifference {
  std::string name;
  Shape shape;               // of the output
  std::string problem;       // not comparable: another shape, missing; empty otherwise
  int64_t elements = 0;
  int64_t mismatches = 0;    // elements with |got - expected| > atol + rtol * |expected|
  int64_t worst = 0;         // flat index of the largest violation, when there are mismatches
  double got = 0, expected = 0;  // there
  double max_abs = 0;        // over elements finite in both
  double max_rel = 0;        // |got - expected| / |expected|, over expected != 0
  double cosine = 1;         // of the flattened outputs; 1 when both are zero
  bool ok() const { return problem.empty() && mismatches == 0; }
};

struct Tolerance {
  double rtol = 1e-4;
  double atol = 1e-5;
};

// NaN equals NaN, infinities equal themselves; anything else compared with either is a mismatch.
OutputDifference compare_output(const std::string& name, const Tensor& got, const Tensor& expected, Tolerance tolerance);

// One entry per array of `reference`, in its order.
std::vector<OutputDifference> compare_outputs(const NamedTensors& got, const NamedTensors& reference, Tolerance tolerance);

// `ds-bench verify`: runs the model on `input` and compares with `reference`.
std::vector<OutputDifference> verify_file(const std::string& model, const std::string& input, const std::string& reference,
                                          Tolerance tolerance, const SessionOptions& options = {});

// A table, one line per output, and the reason of each failure.
std::string verify_text(const std::vector<OutputDifference>& outputs);
std::string verify_json(const std::vector<OutputDifference>& outputs, Tolerance tolerance);
bool all_ok(const std::vector<OutputDifference>& outputs);

}  // namespace ds
