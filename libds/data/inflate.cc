#include "libds/data/inflate.h"

#include <zlib.h>

#include <algorithm>

#include "libds/base/error.h"

namespace ds {
namespace {

// zlib counts in 32 bits: larger buffers go in pieces.
constexpr size_t kPiece = size_t{1} << 30;

Bytef* bytes_of(const void* p) { return static_cast<Bytef*>(const_cast<void*>(p)); }

}  // namespace

uint64_t max_inflated(uint64_t compressed) {
  constexpr uint64_t kMaxRatio = 1032;  // zlib technical details: the limit is just below 1032:1
  if (compressed > UINT64_MAX / kMaxRatio - 1) return UINT64_MAX;
  return (compressed + 1) * kMaxRatio;
}

uint32_t crc32_of(Bytes bytes) {
  uLong crc = ::crc32(0, nullptr, 0);
  for (size_t at = 0; at < bytes.size(); at += kPiece)
    crc = ::crc32(crc, bytes_of(bytes.data() + at), static_cast<uInt>(std::min(kPiece, bytes.size() - at)));
  return static_cast<uint32_t>(crc);
}

std::string inflate_raw(Bytes compressed, uint64_t size) {
  if (size > max_inflated(compressed.size())) bad_data("{} bytes cannot hold {} bytes of data", compressed.size(), size);
  std::string out(size, '\0');
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) fail(ExitCode::kOsError, "cannot start decompression");
  size_t in = 0, done = 0;
  int status = Z_OK;
  bool overflow = false;
  char beyond = 0;  // where a byte too many would go, so that a longer stream is noticed
  while (status == Z_OK) {
    if (stream.avail_in == 0 && in < compressed.size()) {
      stream.next_in = bytes_of(compressed.data() + in);
      stream.avail_in = static_cast<uInt>(std::min(kPiece, compressed.size() - in));
      in += stream.avail_in;
    }
    const size_t room = std::min(kPiece, out.size() - done);
    const bool full = room == 0;
    stream.next_out = full ? bytes_of(&beyond) : bytes_of(out.data() + done);
    stream.avail_out = full ? 1 : static_cast<uInt>(room);
    const uInt before = stream.avail_out;
    status = ::inflate(&stream, Z_NO_FLUSH);
    const size_t made = before - stream.avail_out;
    overflow = full && made > 0;
    if (overflow) break;
    done += full ? 0 : made;
  }
  inflateEnd(&stream);
  if (overflow) bad_data("compressed data is longer than the {} bytes declared", size);
  if (status != Z_STREAM_END) bad_data("compressed data is {}", status == Z_BUF_ERROR ? "truncated" : "corrupt");
  if (done != size) bad_data("compressed data holds {} bytes, {} declared", done, size);
  return out;
}

struct GzipReader::State {
  z_stream stream{};
  Bytes compressed;
  size_t in = 0;
  bool ended = false;  // the current member is complete
};

GzipReader::GzipReader(Bytes compressed) : state_(std::make_unique<State>()) {
  state_->compressed = compressed;
  if (inflateInit2(&state_->stream, MAX_WBITS + 16) != Z_OK) fail(ExitCode::kOsError, "cannot start decompression");
}

GzipReader::~GzipReader() { inflateEnd(&state_->stream); }

size_t GzipReader::read(void* dst, size_t bytes) {
  State& s = *state_;
  size_t done = 0;
  while (done < bytes) {
    if (s.stream.avail_in == 0 && s.in < s.compressed.size()) {
      s.stream.next_in = bytes_of(s.compressed.data() + s.in);
      s.stream.avail_in = static_cast<uInt>(std::min(kPiece, s.compressed.size() - s.in));
      s.in += s.stream.avail_in;
    }
    if (s.ended) {
      if (s.stream.avail_in == 0) return done;
      inflateReset(&s.stream);  // another member follows
      s.ended = false;
    }
    const size_t room = std::min(kPiece, bytes - done);
    s.stream.next_out = bytes_of(static_cast<std::byte*>(dst) + done);
    s.stream.avail_out = static_cast<uInt>(room);
    const int status = ::inflate(&s.stream, Z_NO_FLUSH);
    done += room - s.stream.avail_out;
    if (status == Z_STREAM_END) s.ended = true;
    else if (status == Z_BUF_ERROR) bad_data("gzip data is truncated");
    else if (status != Z_OK) bad_data("gzip data is corrupt");
  }
  return done;
}

std::string gunzip(Bytes compressed) {
  GzipReader reader(compressed);
  std::string out;
  for (;;) {
    const size_t have = out.size(), piece = std::max<size_t>(1 << 16, have);
    out.resize(have + piece);
    const size_t n = reader.read(out.data() + have, piece);
    out.resize(have + n);
    if (n < piece) return out;
  }
}

}  // namespace ds
