// A model's inputs and expected outputs as ONNX keeps them: a folder with input_0.pb, input_1.pb, ...
// and output_0.pb, ..., each a serialized TensorProto, SequenceProto or OptionalProto, as the model declares. The number is the place in the model's
// interface (initializers that are listed as inputs do not count).
#pragma once

#include <string>
#include <vector>

#include "libds/ir/graph.h"

namespace ds {

struct TestDataSet {
  std::vector<Tensor> inputs;   // as graph.inputs()
  std::vector<Tensor> outputs;  // as graph.outputs(); shorter when the folder has fewer files
};

// Errors name the file. A missing input is bad data, a missing folder kNoInput.
TestDataSet read_test_data_set(const std::string& folder, const Graph& graph);

// Folders test_data_set_0, test_data_set_1, ... beside a model, in that order.
std::vector<std::string> find_test_data_sets(const std::string& model_folder);

}  // namespace ds
