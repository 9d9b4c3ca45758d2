// libFuzzer target on the model loader: any bytes must give a graph or one ds::Error.
//   cmake -B build/fuzz -G Ninja -DCMAKE_CXX_COMPILER=clang++ -DDS_FUZZ=ON && ninja -C build/fuzz ds_fuzz_onnx
//   build/fuzz/bin/ds_fuzz_onnx -max_len=4096 build/fuzz/corpus testdata/fuzz/onnx
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const auto graph = ds::parse_model({reinterpret_cast<const char*>(data), size});
    const std::string once = ds::serialize_model(*graph);
    // What we write, we can read, and it says the same.
    if (ds::serialize_model(*ds::parse_model(once)) != once) std::abort();
  } catch (const ds::Error& error) {
    if (error.code() != ds::ExitCode::kBadData && error.code() != ds::ExitCode::kUnsupported) std::abort();
  }
  return 0;
}
