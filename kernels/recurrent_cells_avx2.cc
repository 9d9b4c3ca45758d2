#include "kernels/recurrent_cells_loops.h"
#include "kernels/simd_set_avx2.h"

namespace ds::kernels {
namespace {

struct Avx2 : Avx2Set {
  static V sigmoid(V x) { return sigmoid8(x); }
  static V tanh(V x) { return tanh8(x); }
};

}  // namespace

const CellFunctions kCellsAvx2 = Cells<Avx2>::kFunctions;

}  // namespace ds::kernels
