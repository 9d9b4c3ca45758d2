#include "libds/ir/onnx_wire.h"

#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "libds/base/error.h"

namespace ds::wire {
namespace {

constexpr int kDeepest = 100;  // protobuf's own limit on nested messages
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kGroupBegin = 3, kGroupEnd = 4, kFixed32 = 5 };

// --- varints -----------------------------------------------------------------------------------

constexpr size_t kLongestVarint = 10;

// Reads a varint at `at` and moves past it. False when it is cut short by `end` or takes more than ten bytes.
bool read_varint(std::string_view bytes, size_t end, size_t& at, uint64_t& value) {
  value = 0;
  for (unsigned shift = 0; shift < 7 * kLongestVarint; shift += 7) {
    if (at >= end) return false;
    const auto byte = static_cast<uint8_t>(bytes[at++]);
    value |= static_cast<uint64_t>(byte & 0x7f) << std::min(shift, 63u);
    if (byte < 0x80) return true;
  }
  return false;
}

std::string varint(uint64_t value) {
  std::string text;
  for (; value >= 0x80; value >>= 7) text.push_back(static_cast<char>(value | 0x80));
  text.push_back(static_cast<char>(value));
  return text;
}

uint64_t bytes_tag(Field field) { return (static_cast<uint64_t>(field) << 3) | kBytes; }

// --- edits -------------------------------------------------------------------------------------

// Bytes [begin, end) of a message become `text`, then payload `index` of `bytes` bytes if there is one.
struct Edit {
  size_t begin = 0, end = 0;
  std::string text;
  size_t payload_bytes = 0;
  std::optional<uint32_t> index = std::nullopt;

  int64_t growth() const {
    return static_cast<int64_t>(text.size() + payload_bytes) - static_cast<int64_t>(end - begin);
  }
};

Layout apply(std::string_view bytes, const std::vector<Edit>& edits) {
  Layout out;
  size_t done = 0, size = bytes.size(), payloads = 0;
  for (const Edit& e : edits) {
    size = size + e.text.size() - (e.end - e.begin);
    payloads += e.payload_bytes;
  }
  out.frame.reserve(size);
  for (const Edit& e : edits) {
    out.frame += bytes.substr(done, e.begin - done);
    out.frame += e.text;
    if (e.index) out.cuts.push_back({out.frame.size(), *e.index});
    done = e.end;
  }
  out.frame += bytes.substr(done);
  out.total_bytes = out.frame.size() + payloads;
  return out;
}

// --- the walk ----------------------------------------------------------------------------------

// One field of a message: [begin, tag_end) is its tag, [body, end) its value.
struct FieldAt {
  uint32_t number = 0, type = 0;
  size_t begin = 0, tag_end = 0, body = 0, end = 0;
};

std::optional<Message> child(Message message, uint32_t field) {
  switch (message) {
    case Message::kModel: return field == 7 ? std::optional(Message::kGraph) : std::nullopt;
    case Message::kGraph:
      return field == 1 ? std::optional(Message::kNode) : field == 5 ? std::optional(Message::kTensor) : std::nullopt;
    case Message::kNode: return field == 5 ? std::optional(Message::kAttribute) : std::nullopt;
    case Message::kAttribute:  // t, g, graphs
      return field == 5 ? std::optional(Message::kTensor) : field == 6 || field == 11 ? std::optional(Message::kGraph) : std::nullopt;
    case Message::kTensor: break;
  }
  return std::nullopt;
}

// Collects the edits of a message from those `tensor_edits` wants made to its tensors; the lengths of the
// messages around them follow.
class Walker {
 public:
  explicit Walker(std::string_view bytes) : bytes_(bytes) {}
  virtual ~Walker() = default;

  Verdict walk(Message type) {
    int64_t growth = 0;
    return message(type, 0, bytes_.size(), 0, growth);
  }
  const std::vector<Edit>& edits() const { return edits_; }

 protected:
  // Adds edits for the fields of one tensor, in the order of their places. False: the data is malformed.
  virtual bool tensor_edits(const std::vector<FieldAt>& fields) = 0;

  void add(Edit edit) { edits_.push_back(std::move(edit)); }
  std::string_view body(const FieldAt& f) const { return bytes_.substr(f.body, f.end - f.body); }

 private:
  // `growth`: by how much the message gets longer.
  Verdict message(Message type, size_t at, size_t end, int depth, int64_t& growth) {
    if (depth > kDeepest) return Verdict::kTooDeep;
    if (type == Message::kTensor) return tensor(at, end, growth);
    while (at < end) {
      FieldAt f;
      if (!read_field(at, end, f)) return Verdict::kMalformed;
      const std::optional<Message> inner = f.type == kBytes ? child(type, f.number) : std::nullopt;
      if (!inner) continue;
      const size_t slot = edits_.size();
      edits_.push_back({f.tag_end, f.body, {}});  // its length, should it change
      int64_t inner_growth = 0;
      const Verdict verdict = message(*inner, f.body, f.end, depth + 1, inner_growth);
      if (verdict != Verdict::kOk) return verdict;
      if (edits_.size() == slot + 1) {
        edits_.pop_back();
        continue;
      }
      edits_[slot].text = varint(static_cast<uint64_t>(static_cast<int64_t>(f.end - f.body) + inner_growth));
      growth += inner_growth + edits_[slot].growth();
    }
    return Verdict::kOk;
  }

  Verdict tensor(size_t at, size_t end, int64_t& growth) {
    fields_.clear();
    while (at < end) {
      FieldAt f;
      if (!read_field(at, end, f)) return Verdict::kMalformed;
      switch (static_cast<Field>(f.number)) {
        case Field::kFloats: case Field::kInt32s: case Field::kInt64s:
        case Field::kRaw: case Field::kDoubles: case Field::kUint64s:
          if (fields_.size() < kMostFields) fields_.push_back(f);
          break;
        default: break;
      }
    }
    const size_t first = edits_.size();
    if (!tensor_edits(fields_)) return Verdict::kMalformed;
    for (size_t i = first; i < edits_.size(); ++i) growth += edits_[i].growth();
    return Verdict::kOk;
  }

  // Reads the field at `at` and moves past it.
  bool read_field(size_t& at, size_t end, FieldAt& f) {
    f.begin = at;
    uint64_t tag = 0;
    if (!read_varint(bytes_, end, at, tag) || tag > UINT32_MAX || tag >> 3 == 0) return false;
    f.number = static_cast<uint32_t>(tag >> 3);
    f.type = static_cast<uint32_t>(tag & 7);
    f.tag_end = at;
    if (!skip(f, at, end)) return false;
    f.end = at;
    return true;
  }

  bool skip(FieldAt& f, size_t& at, size_t end) {
    uint64_t length = 0;
    f.body = at;
    switch (f.type) {
      case kVarint: return read_varint(bytes_, end, at, length);
      case kFixed64: length = 8; break;
      case kFixed32: length = 4; break;
      case kBytes:
        if (!read_varint(bytes_, end, at, length)) return false;
        f.body = at;
        break;
      case kGroupBegin: return skip_group(f.number, at, end, 1);
      default: return false;
    }
    if (length > end - at) return false;
    at += static_cast<size_t>(length);
    return true;
  }

  // Groups are how fields nested before 2008; one can only be an unknown field here.
  bool skip_group(uint32_t number, size_t& at, size_t end, int depth) {
    if (depth > kDeepest) return false;
    while (at < end) {
      uint64_t tag = 0;
      const size_t begin = at;
      if (!read_varint(bytes_, end, at, tag)) return false;
      if (tag == ((static_cast<uint64_t>(number) << 3) | kGroupEnd)) return true;
      at = begin;
      FieldAt inner;
      if ((tag & 7) == kGroupBegin) {
        read_varint(bytes_, end, at, tag);
        if (!skip_group(static_cast<uint32_t>(tag >> 3), at, end, depth + 1)) return false;
      } else if (!read_field(at, end, inner)) {
        return false;
      }
    }
    return false;
  }

  // A tensor has one field with data. Some writers of lists do not pack them: a field for each number.
  static constexpr size_t kMostFields = 4;

  std::string_view bytes_;
  std::vector<Edit> edits_;
  std::vector<FieldAt> fields_;
};

// --- taking out --------------------------------------------------------------------------------

class TakeOut final : public Walker {
 public:
  TakeOut(std::string_view bytes, size_t least, const Marker& marker, std::vector<Payload>& payloads)
      : Walker(bytes), least_(least), marker_(marker), payloads_(payloads) {}

 private:
  // More than one field with data is not what writers do, and left to protobuf.
  bool tensor_edits(const std::vector<FieldAt>& fields) override {
    if (fields.size() != 1 || fields[0].type != kBytes) return true;
    const FieldAt& f = fields[0];
    if (f.end - f.body < least_ || payloads_.size() >= UINT32_MAX) return true;
    if (!well_formed(static_cast<Field>(f.number), body(f))) return false;
    const auto index = static_cast<uint32_t>(payloads_.size());
    payloads_.push_back({static_cast<Field>(f.number), body(f)});
    add({f.begin, f.end, varint(bytes_tag(Field::kRaw)) + varint(Marker::kBytes) + marker_.text(index)});
    return true;
  }

  static bool well_formed(Field field, std::string_view packed) {
    switch (field) {
      case Field::kRaw: return true;
      case Field::kFloats: return packed.size() % sizeof(float) == 0;
      case Field::kDoubles: return packed.size() % sizeof(double) == 0;
      default: break;
    }
    size_t length = 0;
    for (char c : packed) {
      if (++length > kLongestVarint) return false;
      if (static_cast<uint8_t>(c) < 0x80) length = 0;
    }
    return length == 0;
  }

  const size_t least_;
  const Marker& marker_;
  std::vector<Payload>& payloads_;
};

// --- putting in --------------------------------------------------------------------------------

class PutIn final : public Walker {
 public:
  PutIn(std::string_view bytes, const Marker& marker, const RoomOf& room_of) : Walker(bytes), marker_(marker), room_of_(room_of) {}

 private:
  bool tensor_edits(const std::vector<FieldAt>& fields) override {
    for (const FieldAt& f : fields) {
      if (f.number != static_cast<uint32_t>(Field::kRaw) || f.type != kBytes) continue;
      const std::optional<uint32_t> index = marker_.payload(body(f));
      if (!index) continue;
      const Room room = room_of_(*index);
      add({f.begin, f.end, varint(bytes_tag(room.field)) + varint(room.bytes), room.bytes, *index});
    }
    return true;
  }

  const Marker& marker_;
  const RoomOf& room_of_;
};

}  // namespace

Marker::Marker() {
  size_t have = 0;
  while (have < number_.size()) {
    const ssize_t n = ::getrandom(number_.data() + have, number_.size() - have, 0);
    if (n < 0 && errno != EINTR) fail(ExitCode::kOsError, "no random numbers: {}", std::strerror(errno));
    if (n > 0) have += static_cast<size_t>(n);
  }
}

std::string Marker::text(uint32_t payload) const {
  std::string text(number_.data(), number_.size());
  for (int i = 0; i < 4; ++i) text.push_back(static_cast<char>(payload >> (8 * i)));
  return text;
}

std::optional<uint32_t> Marker::payload(std::string_view raw_data) const {
  if (raw_data.size() != kBytes || std::memcmp(raw_data.data(), number_.data(), number_.size()) != 0) return std::nullopt;
  uint32_t index = 0;
  for (size_t i = 0; i < 4; ++i) index |= static_cast<uint32_t>(static_cast<uint8_t>(raw_data[number_.size() + i])) << (8 * i);
  return index;
}

Verdict take_out(std::string_view model, size_t least, const Marker& marker, std::string& frame, std::vector<Payload>& payloads) {
  payloads.clear();
  TakeOut walker(model, std::max<size_t>(least, 1), marker, payloads);
  const Verdict verdict = walker.walk(Message::kModel);
  if (verdict != Verdict::kOk) return verdict;
  frame = apply(model, walker.edits()).frame;
  return Verdict::kOk;
}

Layout put_in(std::string_view frame, Message type, const Marker& marker, const RoomOf& room_of) {
  PutIn walker(frame, marker, room_of);
  DS_CHECK(walker.walk(type) == Verdict::kOk);
  return apply(frame, walker.edits());
}

// --- Varints -----------------------------------------------------------------------------------

bool Varints::next(uint64_t& value) {
  if (at_ == bytes_.size()) return false;
  return read_varint(bytes_, bytes_.size(), at_, value);
}

int64_t Varints::count(std::string_view bytes) {
  return std::count_if(bytes.begin(), bytes.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

}  // namespace ds::wire
