// Checking operators: run one, compare its kernels with the portable one in f64, and compare its
// gradient with central differences in f64.
//
// A test file adds its operators to the shared table, from which the tests in tests/ops/all_ops_test.cc
// (one gradient check and one kernel check per case) and the coverage test are made:
//
//   const bool added = ds::test::add_cases({
//       {"Relu", {random_tensor({3, 5}, 1)}},
//       {"Softmax", {random_tensor({2, 7}, 2)}, {{"axis", int64_t{1}}}},
//   });
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "libds/ir/graph.h"
#include "libds/ir/op_def.h"

namespace ds::test {

struct OpCase {
  std::string op;                // of domain "" or "ai.ds", or of `domain`
  std::vector<Tensor> inputs;    // float inputs in f64; an undefined Tensor is omitted; integer inputs are constants
  Attributes attrs = {};
  size_t outputs = 1;
  // Inputs to differentiate; empty: all float inputs. {-1}: none (a kernel check only).
  std::vector<int> wrt = {};
  double kernel_tolerance = 1e-5;  // relative to the largest magnitude of the output; a wider one needs a reason
  std::string name = {};           // to tell cases of one op apart
  size_t differentiated = 0;       // leading outputs whose gradient is checked; 0: all float ones
  std::string domain = {};         // of an operator that is lowered
};

// The operator of a case; null where there is none.
const OpDef* find_op(const OpCase& c);

// Uniform in [low, high), a pure function of the seed; f64.
Tensor random_tensor(Shape shape, uint64_t seed, double low = -1.0, double high = 1.0);
// Random values with |x| >= margin: away from the kinks of Relu, Abs, ...
Tensor random_away_from_zero(Shape shape, uint64_t seed, double margin = 0.1);
// Distinct values in random order: away from the ties of Max, MaxPool, Sort, ...
Tensor random_distinct(Shape shape, uint64_t seed);

bool add_cases(std::vector<OpCase> cases);
const std::vector<OpCase>& all_cases();
std::string case_name(const OpCase& c, size_t index);

// Runs one node. f64 inputs are converted to `dtype` first. `kernel` empty: the one selection takes.
std::vector<Tensor> run_op(const OpCase& c, DType dtype = DType::kF64, const std::string& kernel = {});

// Every kernel that accepts the case in f32 against the portable one in f64, also on misaligned operands.
void check_kernels(const OpCase& c);
// Analytic against central differences, in f64.
void check_gradient(const OpCase& c);

// max |a - b| / max(1, max |b|); infinity when shapes differ or one is NaN where the other is not.
double relative_error(const Tensor& a, const Tensor& b);

}  // namespace ds::test
