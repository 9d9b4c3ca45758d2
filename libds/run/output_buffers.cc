#include "libds/run/output_buffers.h"

#include <algorithm>
#include <atomic>

namespace ds {
namespace {

// A caller that makes one step's results the next one's inputs holds two sets at a time.
constexpr size_t kMostBytes = 32u << 20, kMostOfOne = 8u << 20, kMostBuffers = 128, kSlack = 256;

}  // namespace

std::shared_ptr<Buffer> OutputBuffers::take(size_t bytes) {
  if (bytes > kMostOfOne) return Buffer::allocate(bytes, Tier::kActivations);
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

}  // namespace ds
