#include "libds/data/augment.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <vector>

#include "libds/base/random.h"

namespace ds {
namespace {

// out[y][x] = in[y - dy][x - dx], zero outside, for one picture; then mirrored.
void move_plane(std::byte* plane, std::byte* scratch, int64_t height, int64_t width, size_t size, int64_t dy, int64_t dx, bool mirror) {
  const size_t row = static_cast<size_t>(width) * size;
  std::memset(scratch, 0, static_cast<size_t>(height) * row);
  const int64_t x0 = std::max<int64_t>(0, dx), x1 = std::min(width, width + dx);
  for (int64_t y = std::max<int64_t>(0, dy); y < std::min(height, height + dy) && x0 < x1; ++y)
    std::memcpy(scratch + static_cast<size_t>(y) * row + static_cast<size_t>(x0) * size,
                plane + static_cast<size_t>(y - dy) * row + static_cast<size_t>(x0 - dx) * size, static_cast<size_t>(x1 - x0) * size);
  if (!mirror) {
    std::memcpy(plane, scratch, static_cast<size_t>(height) * row);
    return;
  }
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; ++x)
      std::memcpy(plane + static_cast<size_t>(y) * row + static_cast<size_t>(x) * size,
                  scratch + static_cast<size_t>(y) * row + static_cast<size_t>(width - 1 - x) * size, size);
}

}  // namespace

Augment Augment::parse(const std::string& spec) {
  Augment a;
  for (size_t at = 0; at < spec.size();) {
    const size_t end = std::min(spec.find(',', at), spec.size());
    const std::string part = spec.substr(at, end - at);
    at = end + 1;
    if (part == "flip") {
      a.flip = true;
    } else if (part.starts_with("shift:")) {
      const char* last = part.data() + part.size();
      const auto [stop, error] = std::from_chars(part.data() + 6, last, a.shift);
      if (error != std::errc() || stop != last || a.shift < 0 || a.shift > 1024)
        fail(ExitCode::kUsage, "--augment: '{}': expected shift:PIXELS with 0 to 1024 pixels", part);
    } else {
      fail(ExitCode::kUsage, "--augment: unknown part '{}' (known: shift:N, flip)", part);
    }
  }
  return a;
}

void Augment::apply(const Tensor& images, std::span<const int64_t> rows, uint64_t seed, int64_t epoch) const {
  if (!active() || images.rank() < 3 || images.numel() == 0) return;
  DS_CHECK(images.dim(0) == static_cast<int64_t>(rows.size()));
  const int64_t height = images.dim(-2), width = images.dim(-1), planes = images.numel() / (images.dim(0) * height * width);
  const size_t size = dtype_size(images.dtype()), plane_bytes = static_cast<size_t>(height * width) * size;
  const uint64_t stream = stream_of(fmt::format("augment/{}", epoch));
  std::vector<std::byte> scratch(plane_bytes);
  auto* p = static_cast<std::byte*>(images.mutable_raw());
  for (const int64_t row : rows) {
    const auto words = philox(seed, stream, static_cast<uint64_t>(row));
    // 2N+1 is far below 2^32: the bias of the multiply-and-shift is beneath notice.
    const auto draw = [&](uint32_t word) { return static_cast<int64_t>(static_cast<uint64_t>(word) * static_cast<uint64_t>(2 * shift + 1) >> 32) - shift; };
    const int64_t dy = draw(words[0]), dx = draw(words[1]);
    const bool mirror = flip && (words[2] & 1);
    for (int64_t k = 0; k < planes; ++k, p += plane_bytes)
      if (dy != 0 || dx != 0 || mirror) move_plane(p, scratch.data(), height, width, size, dy, dx, mirror);
  }
}

}  // namespace ds
