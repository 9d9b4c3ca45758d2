// Deferred buffers: address space reserved without memory behind it, filled at the first access.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "libds/mem/tensor.h"

namespace ds {

class Deferral {
 public:
  Deferral(size_t bytes, Buffer::Fill fill) : bytes_(bytes), fill_(std::move(fill)) {
    // Inaccessible pages count towards no limit on memory, and an access past settle() would be noticed.
    void* p = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail(ExitCode::kOsError, "out of address space: {} bytes for weights", bytes);
    data_ = static_cast<std::byte*>(p);
  }
  ~Deferral() {
    ::munmap(data_, bytes_);
    if (made()) charge_tier(Tier::kParameters, -static_cast<int64_t>(bytes_));
  }
  Deferral(const Deferral&) = delete;
  Deferral& operator=(const Deferral&) = delete;

  std::byte* data() const { return data_; }
  const Buffer::Fill& fill() const { return fill_; }
  bool made() const { return made_.load(std::memory_order_acquire); }

  void make() {
    const std::lock_guard lock(mutex_);
    if (made()) return;
    if (::mprotect(data_, bytes_, PROT_READ | PROT_WRITE) != 0)
      fail(ExitCode::kOsError, "out of memory: {} bytes for weights: {}", bytes_, std::strerror(errno));
    fill_(data_);
    charge_tier(Tier::kParameters, static_cast<int64_t>(bytes_));
    made_.store(true, std::memory_order_release);
  }

 private:
  const size_t bytes_;
  const Buffer::Fill fill_;
  std::byte* data_ = nullptr;
  std::mutex mutex_;
  std::atomic<bool> made_ = false;
};

std::shared_ptr<Buffer> Buffer::deferred(size_t bytes, Fill fill) {
  if (bytes == 0) return allocate(0, Tier::kParameters);
  auto deferral = std::make_shared<Deferral>(bytes, std::move(fill));
  Deferral* const raw = deferral.get();
  std::shared_ptr<Buffer> buffer = borrow(raw->data(), bytes, std::move(deferral));
  buffer->deferral_ = raw;
  return buffer;
}

bool Buffer::pending() const { return deferral_ != nullptr && !deferral_->made(); }

void Buffer::settle_deferred() const {
  if (!deferral_->made()) deferral_->make();
}

std::shared_ptr<Buffer> Buffer::transient(const std::shared_ptr<Buffer>& buffer) {
  if (buffer->pending()) return deferred(buffer->bytes_, buffer->deferral_->fill());  // pages of its own, given back as soon as it goes
  if (!buffer->forget_) return buffer;
  return borrow(buffer->data_, buffer->bytes_, std::shared_ptr<const void>(buffer->data_, [buffer](const void*) { buffer->forget_(); }));
}

}  // namespace ds
