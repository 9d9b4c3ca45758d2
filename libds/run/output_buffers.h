// OutputBuffers: memory for results, used again once the caller has let go of them.
//
// A decoder's results (its caches) are freed and allocated again in every step; the allocator would give their pages back
// and fault them in anew, which costs more than the arithmetic. Very large results are not kept.
#pragma once

#include <memory>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds {

class OutputBuffers {
 public:
  // At least `bytes` long; nobody else holds it.
  std::shared_ptr<Buffer> take(size_t bytes);

 private:
  std::vector<std::shared_ptr<Buffer>> buffers_;
  size_t kept_ = 0;  // bytes of buffers_
};

}  // namespace ds
