// OutputBuffers: memory for small results, used again once the caller has let go of them.
//
// A decoder's results (its caches) are freed and allocated again in every step; the allocator would give their pages back
// and fault them in anew, which costs more than the arithmetic. Large results are not kept.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "libds/mem/tensor.h"

namespace ds {

class OutputBuffers {
 public:
  // At least `bytes` long; nobody else holds it.
  std::shared_ptr<Buffer> take(size_t bytes) {
    if (bytes > kMostBytes / 4) return Buffer::allocate(bytes, Tier::kActivations);
    for (const std::shared_ptr<Buffer>& b : buffers_) {
      if (b.use_count() != 1 || b->bytes() < bytes || b->bytes() > bytes + bytes / 4 + kSlack) continue;
      std::atomic_thread_fence(std::memory_order_acquire);  // another thread may have been the last to read it
      return b;
    }
    // Sizes that grow step by step find some room to grow in.
    std::shared_ptr<Buffer> made = Buffer::allocate(bytes + bytes / 8, Tier::kActivations);
    while (kept_ + made->bytes() > kMostBytes || buffers_.size() >= kMostBuffers) {
      const auto released = std::find_if(buffers_.begin(), buffers_.end(), [](const auto& b) { return b.use_count() == 1; });
      if (released == buffers_.end()) return made;  // the callers keep them all
      kept_ -= (*released)->bytes();
      buffers_.erase(released);
    }
    kept_ += made->bytes();
    buffers_.push_back(made);
    return made;
  }

 private:
  static constexpr size_t kMostBytes = 4u << 20, kMostBuffers = 64, kSlack = 256;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  size_t kept_ = 0;  // bytes of buffers_
};

}  // namespace ds
