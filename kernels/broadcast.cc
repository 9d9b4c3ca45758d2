#include "kernels/broadcast.h"

namespace ds::kernels {

Broadcast make_broadcast(int rank, const int64_t* out_dims, int operands, const int64_t* const* dims) {
  Broadcast s;
  s.operands = operands;
  int64_t next[Broadcast::kMaxOperands], size[Broadcast::kMaxRank], stride[Broadcast::kMaxOperands][Broadcast::kMaxRank];
  for (int k = 0; k < operands; ++k) next[k] = 1;
  int used = 0;
  // From the innermost axis out; an axis merges into the one inside it when every operand walks on evenly.
  for (int d = rank - 1; d >= 0; --d) {
    s.total *= out_dims[d];
    int64_t step[Broadcast::kMaxOperands];
    bool merges = used > 0;
    for (int k = 0; k < operands; ++k) {
      step[k] = dims[k][d] == 1 ? 0 : next[k];
      next[k] *= dims[k][d];
      merges = merges && step[k] == stride[k][used - 1] * size[used - 1];
    }
    if (out_dims[d] == 1) continue;
    if (merges) {
      size[used - 1] *= out_dims[d];
      continue;
    }
    size[used] = out_dims[d];
    for (int k = 0; k < operands; ++k) stride[k][used] = step[k];
    ++used;
  }
  s.rank = used;
  for (int d = 0; d < used; ++d) {
    s.size[d] = size[used - 1 - d];
    for (int k = 0; k < operands; ++k) s.stride[k][d] = stride[k][used - 1 - d];
  }
  return s;
}

}  // namespace ds::kernels
