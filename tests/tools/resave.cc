// Loads a model and writes it again: resave IN OUT [OPSET]. For the cross-checks in tests/python.
#include <cstdio>
#include <cstdlib>

#include "libds/ir/onnx_export.h"
#include "libds/ir/onnx_import.h"

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  try {
    ds::save_model(*ds::load_model(argv[1]), argv[2], {argc > 3 ? std::atoll(argv[3]) : 0});
    return 0;
  } catch (const ds::Error& error) {
    std::fprintf(stderr, "resave: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
