#include "libds/ir/onnx_payload.h"

#include <algorithm>
#include <cstring>

#include "libds/base/parallel.h"

namespace ds {
namespace {

// Bytes per element that an address must be a multiple of.
size_t alignment_of(DType dtype) { return std::max<size_t>(dtype_size(dtype), 1); }

constexpr int64_t kCopyGrain = int64_t{1} << 18;  // bytes worth a thread

}  // namespace

Tensor tensor_in_place(std::string_view bytes, const std::shared_ptr<const MappedFile>& file, DType dtype, Shape shape) {
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data()) % alignment_of(dtype) == 0;
  // Bools are copied and made 0 or 1: other values would be undefined behaviour.
  if (file != nullptr && !bytes.empty() && dtype != DType::kBool) {
    if (!aligned)
      return Tensor::deferred(dtype, std::move(shape), [bytes, file](std::byte* to) {
        // By all threads: what takes the time is the file's pages coming in.
        parallel_for(static_cast<int64_t>(bytes.size()), kCopyGrain, [&](int64_t begin, int64_t end) {
          std::memcpy(to + begin, bytes.data() + begin, static_cast<size_t>(end - begin));
        });
        file->forget(bytes);
      });
    auto buffer = Buffer::borrow(bytes.data(), bytes.size(), file);
    buffer->set_forget([bytes, file = file.get()] { file->forget(bytes); });  // the buffer keeps the file
    return Tensor(dtype, std::move(shape), std::move(buffer));
  }
  Tensor out = Tensor::empty(dtype, std::move(shape), Tier::kParameters);
  DS_CHECK(out.bytes() == bytes.size());
  if (bytes.empty()) return out;
  std::memcpy(out.mutable_raw(), bytes.data(), bytes.size());
  if (dtype == DType::kBool) {
    auto* to = static_cast<uint8_t*>(out.mutable_raw());
    for (size_t i = 0; i < bytes.size(); ++i) to[i] = to[i] != 0;
  }
  return out;
}

std::string_view Payloads::take_out(std::string_view model, size_t least, std::shared_ptr<MappedFile> file) {
  switch (wire::take_out(model, least, marker_, frame_, payloads_)) {
    case wire::Verdict::kOk: break;
    case wire::Verdict::kTooDeep: bad_data("subgraphs are nested too deep");
    case wire::Verdict::kMalformed:  // protobuf says what to think of it
      payloads_.clear();
      return model;
  }
  if (payloads_.empty()) return model;
  if (file != nullptr) align(file->own_bytes());
  file_ = std::move(file);
  return frame_;
}

// Moves payloads in memory of our own down to an aligned address. Between two payloads lie at least the
// fields that announce the next one, which the frame holds a copy of.
void Payloads::align(std::span<std::byte> bytes) {
  constexpr size_t kAlignment = 8;
  if (bytes.empty()) return;
  const auto* const base = reinterpret_cast<const char*>(bytes.data());
  size_t free_from = 0;
  for (wire::Payload& p : payloads_) {
    const auto at = static_cast<size_t>(p.bytes.data() - base);
    const size_t down = at / kAlignment * kAlignment, up_to = p.bytes.size();
    if (down >= free_from && down != at) {
      std::memmove(bytes.data() + down, bytes.data() + at, up_to);
      p.bytes = {base + down, up_to};
    }
    free_from = static_cast<size_t>(p.bytes.data() - base) + up_to;
  }
}

const wire::Payload* Payloads::find(const onnx::TensorProto& tensor) const {
  if (payloads_.empty() || !tensor.has_raw_data()) return nullptr;
  const auto index = marker_.payload(tensor.raw_data());
  return index && *index < payloads_.size() ? &payloads_[*index] : nullptr;
}

void Payloads::put_back(onnx::AttributeProto& attribute) const {
  if (payloads_.empty()) return;
  const std::string frame = attribute.SerializePartialAsString();
  const auto room_of = [&](uint32_t index) {
    DS_CHECK(index < payloads_.size());
    return wire::Room{payloads_[index].field, payloads_[index].bytes.size()};
  };
  const wire::Layout layout = wire::put_in(frame, wire::Message::kAttribute, marker_, room_of);
  if (layout.cuts.empty()) return;
  std::string whole;
  whole.reserve(layout.total_bytes);
  size_t done = 0;
  for (const wire::Cut& cut : layout.cuts) {
    whole.append(layout.frame, done, cut.at - done);
    whole += payloads_[cut.index].bytes;
    done = cut.at;
  }
  whole.append(layout.frame, done);
  DS_CHECK(attribute.ParsePartialFromString(whole));
}

}  // namespace ds
