// Deferred buffers: address space reserved without memory behind it, filled at the first access.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "libds/mem/tensor.h"
#include "libds/mem/transient_pages.h"

namespace ds {
namespace {

// Address space; readable and writable pages once `writable`.
struct Pages {
  std::byte* data = nullptr;
  size_t bytes = 0;
  bool writable = false;

  static Pages reserve(size_t bytes) {
    // Inaccessible pages count towards no limit on memory, and an access past settle() would be noticed.
    void* p = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) fail(ExitCode::kOsError, "out of address space: {} bytes for weights", bytes);
    return {static_cast<std::byte*>(p), bytes, false};
  }
  void open() {
    if (!writable && ::mprotect(data, bytes, PROT_READ | PROT_WRITE) != 0)
      fail(ExitCode::kOsError, "out of memory: {} bytes for weights: {}", bytes, std::strerror(errno));
    writable = true;
  }
  void release() {
    if (data != nullptr) ::munmap(data, bytes);
    *this = {};
  }
};

// What the latest transient copy of this thread has left.
struct Spare {
  static constexpr size_t kMostBytes = 16u << 20;
  int scopes = 0;
  bool for_transient = false;  // what is deferred next is a transient copy
  Pages pages;

  Pages take(size_t bytes) {
    if (pages.bytes >= bytes) return std::exchange(pages, {});
    pages.release();  // not both at a time
    return Pages::reserve(bytes);
  }
  void leave(Pages left) {
    if (scopes > 0 && left.writable && left.bytes <= kMostBytes && left.bytes > pages.bytes) std::swap(left, pages);
    left.release();
  }
};

thread_local Spare spare;

}  // namespace

TransientPages::TransientPages() { ++spare.scopes; }
TransientPages::~TransientPages() {
  if (--spare.scopes == 0) spare.pages.release();
}

class Deferral {
 public:
  Deferral(size_t bytes, Buffer::Fill fill, bool transient)
      : bytes_(bytes), fill_(std::move(fill)), transient_(transient), pages_(transient ? spare.take(bytes) : Pages::reserve(bytes)) {}
  ~Deferral() {
    if (transient_) spare.leave(pages_);
    else pages_.release();
    if (made()) charge_tier(Tier::kParameters, -static_cast<int64_t>(bytes_));
  }
  Deferral(const Deferral&) = delete;
  Deferral& operator=(const Deferral&) = delete;

  std::byte* data() const { return pages_.data; }
  const Buffer::Fill& fill() const { return fill_; }
  bool made() const { return made_.load(std::memory_order_acquire); }

  void make() {
    const std::lock_guard lock(mutex_);
    if (made()) return;
    pages_.open();
    fill_(pages_.data);
    charge_tier(Tier::kParameters, static_cast<int64_t>(bytes_));
    made_.store(true, std::memory_order_release);
  }

 private:
  const size_t bytes_;
  const Buffer::Fill fill_;
  const bool transient_;
  Pages pages_;
  std::mutex mutex_;
  std::atomic<bool> made_ = false;
};

std::shared_ptr<Buffer> Buffer::deferred(size_t bytes, Fill fill) {
  if (bytes == 0) return allocate(0, Tier::kParameters);
  auto deferral = std::make_shared<Deferral>(bytes, std::move(fill), std::exchange(spare.for_transient, false));
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
  if (buffer->pending()) {  // in pages that nobody else has, given back as soon as it goes
    spare.for_transient = true;
    return deferred(buffer->bytes_, buffer->deferral_->fill());
  }
  if (!buffer->forget_) return buffer;
  return borrow(buffer->data_, buffer->bytes_, std::shared_ptr<const void>(buffer->data_, [buffer](const void*) { buffer->forget_(); }));
}

}  // namespace ds
