// What a model is: interface, operators, size, cost; and what this library can do with it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct InspectOptions {
  std::vector<std::string> shapes;  // see run/input_shapes.h
  size_t largest = 10;              // tensors to list
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
    int64_t parameters = 0;  // elements of the initializers they read; shared ones count at their first reader
    bool supported = true;
    bool gradient = true;    // can be trained through
  };
  struct TypeCount {
    DType dtype = DType::kUndefined;
    int64_t tensors = 0, elements = 0, bytes = 0;
  };
  struct LargeTensor {
    std::string name;
    DType dtype = DType::kUndefined;
    Shape shape;
    int64_t bytes = 0;
  };
  struct DynamicDim {
    std::string name;                // empty: without a name
    std::vector<std::string> where;  // "input_ids[1]": inputs and outputs that have it
  };
  std::shared_ptr<const Graph> graph;
  std::string path;
  int64_t file_bytes = 0;
  int64_t ir_version = 0;
  std::map<std::string, int64_t> opsets;
  std::string producer;
  std::map<std::string, std::string> metadata;
  std::vector<Interface> inputs, outputs;
  int64_t nodes = 0;                            // bodies of control flow included
  int64_t parameters = 0, parameter_bytes = 0;  // elements of all initializers
  int64_t nonzero_parameters = 0;
  std::vector<OpCount> ops;                     // most frequent first
  std::vector<std::string> unsupported;         // operators this library does not have
  std::vector<std::string> no_gradient;         // operators that cannot be trained through
  std::vector<TypeCount> parameter_types;       // most bytes first
  std::map<DType, int64_t> result_types;        // results of nodes
  std::vector<DynamicDim> dynamic_dims;
  std::vector<LargeTensor> largest_parameters;
  std::vector<LargeTensor> largest_results;     // of nodes, at the measured shapes
  std::vector<ExternalFile> external_files;

  // At the measured shapes; absent with a reason when the model cannot be planned there.
  struct Measured {
    int64_t flops = 0;
    int64_t planned_bytes = 0;  // arena, outputs, packed weights
    int64_t moved_bytes = 0;    // operands of all nodes, read and written
    std::map<NodeId, int64_t> node_flops;  // of the graph's own nodes
  };
  std::optional<Measured> cost;
  std::string why_no_cost;
  std::map<ValueId, Shape> shapes;  // of the graph's values at the measured shapes, where known without running
  bool assumed_dims = false;  // some dimension was symbolic and taken as 1
};

Inspection inspect_model(const std::string& path, const InspectOptions& options = {});

// "Conv", "com.example.Fused".
std::string full_op_name(const Node& node);
// "25.6 MFLOP".
std::string scaled_number(double x, const char* unit);

std::string inspection_text(const Inspection& inspection);
// See man/ds-bench-inspect.schema.json.
std::string inspection_json(const Inspection& inspection);
// A page that needs nothing but a browser: the graph drawn, tables, details of each node.
std::string inspection_html(const Inspection& inspection);

}  // namespace ds
