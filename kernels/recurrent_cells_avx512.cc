#include "kernels/recurrent_cells_loops.h"
#include "kernels/simd_set_avx512.h"

namespace ds::kernels {
namespace {

struct Avx512 : Avx512Set {
  static V sigmoid(V x) { return sigmoid16(x); }
  static V tanh(V x) { return tanh16(x); }
};

}  // namespace

const CellFunctions kCellsAvx512 = Cells<Avx512>::kFunctions;

}  // namespace ds::kernels
