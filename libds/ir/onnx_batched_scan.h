// Scan of operator set 8 as two of the newer one. Internal to libds/ir/onnx_*.
#pragma once

#include <onnx/onnx_pb.h>

#include <cstdint>

namespace ds {

// Scan of version 8 had a batch axis: states [B, ...] and inputs [B, T, ...], its body ran for each of the B
// sequences by itself. So it is a Scan along B around a Scan along T. Done on the message, in which a body
// is easily put around another; `opset` is the model's. Sequence lengths of their own are refused.
void convert_batched_scans(onnx::GraphProto& graph, int64_t opset);

}  // namespace ds
