// What tests/fuzz does with one input, shared with the test that replays the corpus.
#pragma once

#include <string_view>

namespace ds::test {

// Loads `bytes` and puts the graph through what programs do next. Returns whether it was a model. Anything
// but a graph or a ds::Error of the documented kinds throws std::logic_error, which ends the fuzzer.
bool fuzz_onnx(std::string_view bytes);

}  // namespace ds::test
