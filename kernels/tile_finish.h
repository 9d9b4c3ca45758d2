// What kernels/finish.h does to a block of sums, as tiles do it in registers.
#pragma once

#include <optional>

#include "kernels/finish.h"
#include "kernels/tile.h"

namespace ds::kernels {

// Of all of y; nothing where tiles cannot do it.
std::optional<TileFinish> tile_finish(const Finish& f);

}  // namespace ds::kernels
