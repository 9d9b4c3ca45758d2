// Decompression of deflate and gzip streams (RFC 1951, RFC 1952). The only place that knows zlib.
//
// Sizes that a file claims are believed only up to deflate's greatest possible ratio, so that a few
// bytes cannot make us allocate gigabytes. Errors are bad data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace ds {

using Bytes = std::span<const std::byte>;

// Greatest number of bytes that `compressed` bytes of deflate can stand for.
uint64_t max_inflated(uint64_t compressed);

// A raw deflate stream that must give exactly `size` bytes.
std::string inflate_raw(Bytes compressed, uint64_t size);

uint32_t crc32_of(Bytes bytes);

// Reads a gzip stream (of one or several members) piece by piece. Not thread-safe.
class GzipReader {
 public:
  explicit GzipReader(Bytes compressed);
  ~GzipReader();
  GzipReader(const GzipReader&) = delete;
  GzipReader& operator=(const GzipReader&) = delete;

  // Fills `dst`; returns how many bytes there were (fewer only at the end of the stream).
  size_t read(void* dst, size_t bytes);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// A whole gzip stream.
std::string gunzip(Bytes compressed);

}  // namespace ds
