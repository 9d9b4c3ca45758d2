// libFuzzer target on the model loader: any bytes must give a graph or one ds::Error; and a graph must go
// through what every program does next (saving, shape specialisation, the inference pipeline) the same way.
//   cmake --preset fuzz && ninja -C build/fuzz ds_fuzz_onnx
//   build/fuzz/bin/ds_fuzz_onnx -max_len=4096 -rss_limit_mb=2048 -timeout=10 build/fuzz/corpus testdata/fuzz/onnx
// What it finds is minimised (-minimize_crash=1) and kept in testdata/fuzz/onnx, which tests/ir replays.
#include <cstddef>
#include <cstdint>

#include "tests/support/fuzz_onnx.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ds::test::fuzz_onnx({reinterpret_cast<const char*>(data), size});
  return 0;
}
