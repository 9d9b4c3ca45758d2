// Operator-set versions 1 to 6, read only: what they say otherwise than version 7 is brought to its
// form here, before the tables of onnx_versions.h take over. Internal to libds/ir/onnx_*.
#pragma once

#include <cstdint>

#include "libds/ir/rewriter.h"

namespace ds::versions {

// Brings a node of version `opset` < 7 to version 7. Types of its inputs are known.
void upgrade_to_seven(Rewriter& rewriter, NodeId id, int64_t opset);

}  // namespace ds::versions
