// Running a model once on given arrays.
#pragma once

#include <string>

#include "libds/data/npz.h"
#include "libds/run/session.h"

namespace ds {

// Arrays keyed by input name, in the order of the graph's inputs. Throws kBadData for inputs that are missing or
// unknown.
std::vector<Tensor> order_inputs(const Graph& graph, const NamedTensors& inputs);

// Results under the names of the graph's outputs.
NamedTensors name_outputs(const Graph& graph, std::vector<Tensor> results);

// Arrays keyed by input name to arrays keyed by output name, in the graph's order. Throws kBadData
// for inputs that are missing, unknown, or of the wrong type or shape.
NamedTensors run_named(Session& session, const NamedTensors& inputs);

// `ds-bench run`: files in, file out. "-" is standard input or output; at most one of `model` and
// `input` may be it.
void run_file(const std::string& model, const std::string& input, const std::string& output, const SessionOptions& options = {});

// Throws a usage error when more than one of the paths is "-".
void one_standard_input(std::initializer_list<const std::string*> paths);

}  // namespace ds
