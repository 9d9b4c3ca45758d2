// What a model is: interface, operators, size, cost; and what this library can do with it.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct InspectOptions {
  std::vector<std::string> shapes;  // see run/input_shapes.h
};

struct Inspection {
  struct Interface {
    std::string name;
    DType dtype = DType::kUndefined;
    std::vector<std::string> dims;  // "3", "batch", "?"
    bool rank_known = true;
    Shape measured;                 // inputs: the shape cost and memory are for
  };
  struct OpCount {
    std::string op;  // "Conv", "com.example.Fused"
    int64_t nodes = 0;
    int64_t flops = 0;
  };
  std::string path;
  int64_t file_bytes = 0;
  int64_t ir_version = 0;
  std::map<std::string, int64_t> opsets;
  std::string producer;
  std::map<std::string, std::string> metadata;
  std::vector<Interface> inputs, outputs;
  int64_t nodes = 0;
  int64_t parameters = 0, parameter_bytes = 0;  // elements of all initializers
  int64_t nonzero_parameters = 0;
  std::vector<OpCount> ops;                     // most frequent first
  std::vector<std::string> unsupported;         // operators this library does not have
  std::vector<std::string> no_gradient;         // operators that cannot be trained through

  // At the measured shapes; absent with a reason when the model cannot be planned there.
  struct Measured {
    int64_t flops = 0;
    int64_t planned_bytes = 0;  // arena, outputs, packed weights
    int64_t moved_bytes = 0;    // operands of all nodes, read and written
  };
  std::optional<Measured> cost;
  std::string why_no_cost;
  bool assumed_dims = false;  // some dimension was symbolic and taken as 1
};

Inspection inspect_model(const std::string& path, const InspectOptions& options = {});

std::string inspection_text(const Inspection& inspection);
std::string inspection_json(const Inspection& inspection);

}  // namespace ds
