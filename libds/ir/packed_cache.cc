#include "libds/ir/packed_cache.h"

#include <algorithm>

namespace ds {
namespace {

// What stays alive with a packing.
struct Held {
  std::shared_ptr<Buffer> content;
  std::shared_ptr<const void> packing;
};

}  // namespace

std::shared_ptr<const void> PackedCache::get(const Tensor& weights, std::string_view form, const Make& make, bool& made) {
  made = true;
  const std::shared_ptr<Buffer>& buffer = weights.buffer();
  if (buffer == nullptr) return make();
  // Asking a tensor for its address makes content that is still pending; only a whole buffer's is known without.
  const void* address = buffer->data();
  if (buffer->pending()) {
    if (weights.bytes() != buffer->bytes()) return make();
  } else {
    address = weights.raw();
  }
  Key key(buffer.get(), address, fmt::format("{} {} {}", dtype_name(weights.dtype()), shape_string(weights.shape()), form));
  std::weak_ptr<const void>& entry = packed_[key];
  if (std::shared_ptr<const void> packing = entry.lock()) {
    made = false;
    return packing;
  }
  auto held = std::make_shared<Held>(Held{buffer, make()});
  const void* packing = held->packing.get();
  std::shared_ptr<const void> result(std::move(held), packing);
  entry = result;
  if (packed_.size() >= drop_at_) drop_expired();
  return result;
}

void PackedCache::drop_expired() {
  std::erase_if(packed_, [](const auto& entry) { return entry.second.expired(); });
  drop_at_ = std::max<size_t>(64, 2 * packed_.size());
}

size_t PackedCache::size() const {
  return static_cast<size_t>(std::count_if(packed_.begin(), packed_.end(), [](const auto& entry) { return !entry.second.expired(); }));
}

}  // namespace ds
