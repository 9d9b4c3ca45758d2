// How far one tensor is from another that should hold the same.
#pragma once

#include <string>
#include <vector>

#include "libds/data/npz.h"

namespace ds {

struct Tolerance {
  double rtol = 1e-4;
  double atol = 1e-5;
};

// How far one output is from its reference.
struct OutputDifference {
  std::string name;
  Shape shape;               // of the output
  std::string problem;       // not comparable: another shape, another type; empty otherwise
  int64_t elements = 0;
  int64_t mismatches = 0;    // elements with |got - expected| > atol + rtol * |expected|
  int64_t worst = 0;         // flat index of the largest violation, when there are mismatches
  double got = 0, expected = 0;  // there, of numbers
  std::string got_text, expected_text;  // there, of strings
  double max_abs = 0;        // over elements finite in both
  double max_rel = 0;        // |got - expected| / |expected|, over expected != 0
  double cosine = 1;         // of the flattened outputs; 1 when both are zero
  bool ok() const { return problem.empty() && mismatches == 0; }
};

// NaN equals NaN, infinities equal themselves; anything else compared with either is a mismatch.
// Floats of different widths are comparable, other types only with themselves. Strings are equal or not; sequences
// and optionals are compared item by item, all elements counted together.
OutputDifference compare_output(const std::string& name, const Tensor& got, const Tensor& expected, Tolerance tolerance);

// Root mean square of the finite elements; 0 when there are none, or they are no numbers.
double root_mean_square(const Tensor& tensor);

// One entry per array of `reference`, in its order.
std::vector<OutputDifference> compare_outputs(const NamedTensors& got, const NamedTensors& reference, Tolerance tolerance);

bool all_ok(const std::vector<OutputDifference>& outputs);

// The tensor of that name; null when there is none.
const Tensor* find_tensor(const NamedTensors& arrays, const std::string& name);
// "'x', 'y'", or "none".
std::string names_of(const NamedTensors& arrays);

}  // namespace ds
