// The bulk of an ONNX file without protobuf: finding the weights in a serialized ModelProto, and putting
// weights into one, so that nobody has to hold them in a message.
//
// A frame is a ModelProto in which the data of large tensors is replaced by markers: a few bytes in their
// raw_data that say which payload belongs there. Protobuf reads and writes frames; the payloads stay
// where they are, in the mapped file or in tensors. Markers hold a random number drawn for each use, so
// that no file can contain one.
//
// Only where this library takes tensors from are payloads looked for: initializers and tensor attributes,
// of the graph and of its subgraphs. Everything else, and whatever is not well-formed, is left to
// protobuf. Wire format: protobuf.dev/programming-guides/encoding.
//
// Bytes only: this part knows neither protobuf's classes nor tensors.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ds::wire {

// The field of a TensorProto a payload was found in, by its number.
enum class Field : uint8_t { kFloats = 4, kInt32s = 5, kInt64s = 7, kRaw = 9, kDoubles = 10, kUint64s = 11 };

struct Payload {
  Field field = Field::kRaw;
  std::string_view bytes;  // typed fields: packed
};

// Message types that are walked through, each with the fields that lead on.
enum class Message : uint8_t { kModel, kGraph, kNode, kAttribute, kTensor };

// What the random number and the payload's number look like in raw_data.
class Marker {
 public:
  Marker();  // draws a number
  static constexpr size_t kBytes = 20;
  std::string text(uint32_t payload) const;
  std::optional<uint32_t> payload(std::string_view raw_data) const;

 private:
  std::array<char, 16> number_;
};

// Where payloads lie in a serialized message: frame bytes up to `at` come before payload `index`.
struct Cut {
  size_t at = 0;
  uint32_t index = 0;
};
struct Layout {
  std::string frame;       // without the payloads' bytes
  std::vector<Cut> cuts;   // in the order of their places
  size_t total_bytes = 0;  // with them
};

enum class Verdict {
  kOk,
  kMalformed,  // or something protobuf has to decide
  kTooDeep,    // messages nested deeper than protobuf reads them
};

// Replaces every payload of `least` bytes or more by a marker. Linear in the bytes that are not payload.
Verdict take_out(std::string_view model, size_t least, const Marker& marker, std::string& frame, std::vector<Payload>& payloads);

// The reverse, for a message that protobuf wrote: markers become room for payloads. `room_of` says what
// field payload `index` belongs in and how many bytes it has.
struct Room {
  Field field = Field::kRaw;
  size_t bytes = 0;
};
using RoomOf = std::function<Room(uint32_t index)>;
Layout put_in(std::string_view frame, Message type, const Marker& marker, const RoomOf& room_of);

// Reads the varints of a packed field one after the other.
class Varints {
 public:
  explicit Varints(std::string_view bytes) : bytes_(bytes) {}
  bool next(uint64_t& value);  // false at the end
  // How many there are: bytes that end one.
  static int64_t count(std::string_view bytes);

 private:
  std::string_view bytes_;
  size_t at_ = 0;
};

}  // namespace ds::wire
