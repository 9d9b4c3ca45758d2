#include "tests/support/amx_emulator.h"

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "libds/base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

namespace ds::test {
namespace {

constexpr int kTiles = 8, kMaxRows = 16, kMaxRowBytes = 64;

// As ldtilecfg reads and sttilecfg writes it.
struct Config {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Config) == 64);

struct TileState {
  Config config;
  uint8_t tile[kTiles][kMaxRows][kMaxRowBytes];
};

thread_local TileState state;
std::atomic<long long> executed_count{0};
bool installed = false;
struct sigaction previous;

enum class Op {
  kLoadConfig,
  kStoreConfig,
  kRelease,
  kZero,
  kLoad,
  kStore,
  kBf16,
  kSignedSigned,
  kSignedUnsigned,
  kUnsignedSigned,
  kUnsignedUnsigned
};

struct Instruction {
  Op op;
  const char* name;
  int dst = 0, src1 = 0, src2 = 0;  // tiles; loads and stores have dst only
  uint8_t* address = nullptr;       // of the first row
  int64_t stride = 0;
  int length = 0;  // bytes of code
};

// In a signal handler: write(2) and nothing that allocates.
[[noreturn]] void die(const char* name, const char* what, int tile = -1) {
  char text[256];
  const int size =
      tile < 0 ? std::snprintf(text, sizeof text, "amx_emulator: %s: %s\n", name, what)
               : std::snprintf(text, sizeof text, "amx_emulator: %s: tile %d: %s\n", name, tile, what);
  if (write(STDERR_FILENO, text, static_cast<size_t>(size)) < 0) std::abort();
  std::abort();
}

// --- decoding
// --------------------------------------------------------------------------------------------------

// Machine number of a general register (rax 0 .. r15 15) to its place in the signal's context.
int64_t general_register(const gregset_t& registers, int number) {
  static constexpr int kPlace[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                     REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return registers[kPlace[number]];
}

template <typename T>
T read_unaligned(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The three-byte VEX prefix: C4, R'X'B'mmmmm, W vvvv' L pp; ' marks what is stored inverted.
struct Vex {
  bool r, x, b, w, l;
  int map, vvvv, pp;
};

enum Prefix { kNone = 0, k66 = 1, kF3 = 2, kF2 = 3 };

struct Operands {
  int mod, reg, rm;
};

// Which instruction it is, from prefix, opcode and modrm; false: none of AMX's that we know.
bool identify(const Vex& vex, int opcode, const Operands& m, Instruction& out) {
  const bool memory = m.mod != 3;
  const auto is = [&out](Op op, const char* name) {
    out.op = op;
    out.name = name;
    return true;
  };
  switch (opcode) {
    case 0x49:
      if (vex.vvvv != 0) return false;
      if (memory && m.reg == 0 && vex.pp == kNone) return is(Op::kLoadConfig, "LDTILECFG");
      if (memory && m.reg == 0 && vex.pp == k66) return is(Op::kStoreConfig, "STTILECFG");
      if (!memory && m.reg == 0 && m.rm == 0 && vex.pp == kNone) return is(Op::kRelease, "TILERELEASE");
      if (!memory && m.rm == 0 && vex.pp == kF2) return is(Op::kZero, "TILEZERO");
      return false;
    case 0x4B:
      if (!memory || (m.rm & 7) != 4 || vex.vvvv != 0) return false;  // sibmem: always with a SIB byte
      if (vex.pp == kF2) return is(Op::kLoad, "TILELOADD");
      if (vex.pp == k66) return is(Op::kLoad, "TILELOADDT1");
      if (vex.pp == kF3) return is(Op::kStore, "TILESTORED");
      return false;
    case 0x5C:
      return !memory && vex.pp == kF3 && is(Op::kBf16, "TDPBF16PS");
    case 0x5E:
      if (memory) return false;
      if (vex.pp == kF2) return is(Op::kSignedSigned, "TDPBSSD");
      if (vex.pp == kF3) return is(Op::kSignedUnsigned, "TDPBSUD");
      if (vex.pp == k66) return is(Op::kUnsignedSigned, "TDPBUSD");
      return is(Op::kUnsignedUnsigned, "TDPBUUD");
    default:
      return false;
  }
}

// base: base + displacement, index: index * scale, which is the stride of a tile in memory. Leaves `code`
// behind the operand. That is the end of the instruction, from which a RIP-relative displacement counts: none
// has an immediate.
void decode_memory(const gregset_t& registers, const Vex& vex, const Operands& m, const uint8_t*& code,
                   int64_t& base, int64_t& index) {
  base = index = 0;
  bool wide_displacement = m.mod == 2;
  if (m.rm == 4) {
    const int sib = *code++;
    const int scale = sib >> 6, index_number = ((sib >> 3) & 7) | (vex.x ? 8 : 0), base_number = sib & 7;
    if (index_number != 4) index = general_register(registers, index_number) * (int64_t{1} << scale);
    if (base_number == 5 && m.mod == 0)
      wide_displacement = true;  // no base
    else
      base = general_register(registers, base_number | (vex.b ? 8 : 0));
  } else if (m.rm == 5 && m.mod == 0) {
    const auto displacement = read_unaligned<int32_t>(code);
    code += 4;
    base = reinterpret_cast<int64_t>(code) + displacement;
    return;
  } else {
    base = general_register(registers, m.rm | (vex.b ? 8 : 0));
  }
  if (wide_displacement) {
    base += read_unaligned<int32_t>(code);
    code += 4;
  } else if (m.mod == 1) {
    base += static_cast<int8_t>(*code++);
  }
}

bool decode(const gregset_t& registers, Instruction& out) {
  const auto* const first = reinterpret_cast<const uint8_t*>(registers[REG_RIP]);
  const uint8_t* code = first;
  if (*code++ != 0xC4) return false;
  const int byte1 = *code++;
  Vex vex;
  vex.r = !(byte1 & 0x80);
  vex.x = !(byte1 & 0x40);
  vex.b = !(byte1 & 0x20);
  vex.map = byte1 & 31;
  if (vex.map != 2) return false;  // 0F38
  const int byte2 = *code++;
  vex.w = byte2 & 0x80;
  vex.vvvv = 15 - ((byte2 >> 3) & 15);
  vex.l = byte2 & 4;
  vex.pp = byte2 & 3;
  if (vex.w || vex.l) return false;
  const int opcode = *code++, modrm = *code++;
  const Operands m = {modrm >> 6, (modrm >> 3) & 7, modrm & 7};
  if (!identify(vex, opcode, m, out)) return false;
  // There are tiles 0 to 7 only; registers 8 to 15 of the encoding are undefined instructions.
  const bool names_tile = out.op != Op::kLoadConfig && out.op != Op::kStoreConfig && out.op != Op::kRelease;
  if (names_tile && vex.r) return false;
  out.dst = m.reg;
  if (m.mod == 3) {
    if (out.op >= Op::kBf16) {
      if (vex.b || vex.vvvv >= kTiles) return false;
      out.src1 = m.rm;
      out.src2 = vex.vvvv;
    }
  } else {
    int64_t base = 0, index = 0;
    decode_memory(registers, vex, m, code, base, index);
    if (!names_tile) {
      base += index;
      index = 0;
    }
    out.address = reinterpret_cast<uint8_t*>(base);
    out.stride = index;
  }
  out.length = static_cast<int>(code - first);
  return true;
}

// --- executing
// -------------------------------------------------------------------------------------------------

void load_config(const Instruction& i) {
  Config wanted;
  std::memcpy(&wanted, i.address, sizeof wanted);
  if (wanted.palette > 1) die(i.name, "the palette is neither 0 nor 1");
  std::memset(&state, 0, sizeof state);
  if (wanted.palette == 0) return;  // as TILERELEASE
  if (wanted.start_row != 0) die(i.name, "start_row is not 0");
  for (const uint8_t byte : wanted.reserved)
    if (byte != 0) die(i.name, "a reserved byte is not 0");
  for (int t = 0; t < 16; ++t) {
    if (t >= kTiles && (wanted.rows[t] != 0 || wanted.row_bytes[t] != 0))
      die(i.name, "there is no such tile", t);
    if (wanted.rows[t] > kMaxRows) die(i.name, "more than 16 rows", t);
    if (wanted.row_bytes[t] > kMaxRowBytes) die(i.name, "rows of more than 64 bytes", t);
    if ((wanted.rows[t] == 0) != (wanted.row_bytes[t] == 0))
      die(i.name, "only one of rows and bytes per row is 0", t);
  }
  state.config = wanted;
}

void check_configured(const Instruction& i, int tile) {
  if (state.config.palette == 0) die(i.name, "no tile configuration is loaded", tile);
  if (state.config.rows[tile] == 0) die(i.name, "is not configured", tile);
}

void check_product(const Instruction& i) {
  for (const int tile : {i.dst, i.src1, i.src2}) {
    check_configured(i, tile);
    if (state.config.row_bytes[tile] % 4 != 0) die(i.name, "bytes per row are no multiple of 4", tile);
  }
  if (i.dst == i.src1 || i.dst == i.src2 || i.src1 == i.src2) die(i.name, "an operand is named twice", i.dst);
  const Config& c = state.config;
  if (c.rows[i.dst] != c.rows[i.src1]) die(i.name, "has other rows than the first source", i.dst);
  if (c.row_bytes[i.dst] != c.row_bytes[i.src2])
    die(i.name, "has other columns than the second source", i.dst);
  if (c.row_bytes[i.src1] / 4 != c.rows[i.src2]) die(i.name, "the depths of the sources differ", i.src1);
}

float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}

float widened(uint16_t bf16) {
  const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return flushed(x);
}

// Sums of the even and of the odd elements by fused multiply-add, then their sum, then that to the
// destination; all with denormals taken and given as zero, rounding to nearest even.
void multiply_bf16(const Instruction& i) {
  const Config& c = state.config;
  const int rows = c.rows[i.dst], columns = c.row_bytes[i.dst] / 4, groups = c.row_bytes[i.src1] / 4;
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < columns; ++n) {
      float sum[2] = {0, 0};
      for (int k = 0; k < groups; ++k) {
        for (int half = 0; half < 2; ++half) {
          const float a = widened(read_unaligned<uint16_t>(&state.tile[i.src1][m][4 * k + 2 * half]));
          const float b = widened(read_unaligned<uint16_t>(&state.tile[i.src2][k][4 * n + 2 * half]));
          sum[half] = flushed(std::fma(a, b, sum[half]));
        }
      }
      uint8_t* const place = &state.tile[i.dst][m][4 * n];
      const float result = flushed(flushed(read_unaligned<float>(place)) + flushed(sum[0] + sum[1]));
      std::memcpy(place, &result, sizeof result);
    }
  }
}

template <typename A, typename B>
void multiply_bytes(const Instruction& i) {
  const Config& c = state.config;
  const int rows = c.rows[i.dst], columns = c.row_bytes[i.dst] / 4, groups = c.row_bytes[i.src1] / 4;
  for (int m = 0; m < rows; ++m) {
    for (int n = 0; n < columns; ++n) {
      uint8_t* const place = &state.tile[i.dst][m][4 * n];
      auto sum = read_unaligned<uint32_t>(place);  // wraps
      for (int k = 0; k < groups; ++k) {
        for (int j = 0; j < 4; ++j) {
          const int a = static_cast<A>(state.tile[i.src1][m][4 * k + j]);
          const int b = static_cast<B>(state.tile[i.src2][k][4 * n + j]);
          sum += static_cast<uint32_t>(a * b);
        }
      }
      std::memcpy(place, &sum, sizeof sum);
    }
  }
}

// What lies outside the rows and bytes that are configured is zero at all times: ldtilecfg zeroes everything
// and nothing else writes there.
void execute(const Instruction& i) {
  const int rows = state.config.rows[i.dst], row_bytes = state.config.row_bytes[i.dst];
  switch (i.op) {
    case Op::kLoadConfig:
      return load_config(i);
    case Op::kStoreConfig:
      std::memcpy(i.address, &state.config, sizeof state.config);
      return;
    case Op::kRelease:
      std::memset(&state, 0, sizeof state);
      return;
    case Op::kZero:
      check_configured(i, i.dst);
      std::memset(state.tile[i.dst], 0, sizeof state.tile[i.dst]);
      return;
    case Op::kLoad:
      check_configured(i, i.dst);
      for (int r = 0; r < rows; ++r)
        std::memcpy(state.tile[i.dst][r], i.address + r * i.stride, static_cast<size_t>(row_bytes));
      return;
    case Op::kStore:
      check_configured(i, i.dst);
      for (int r = 0; r < rows; ++r)
        std::memcpy(i.address + r * i.stride, state.tile[i.dst][r], static_cast<size_t>(row_bytes));
      return;
    case Op::kBf16:
      check_product(i);
      return multiply_bf16(i);
    case Op::kSignedSigned:
      check_product(i);
      return multiply_bytes<int8_t, int8_t>(i);
    case Op::kSignedUnsigned:
      check_product(i);
      return multiply_bytes<int8_t, uint8_t>(i);
    case Op::kUnsignedSigned:
      check_product(i);
      return multiply_bytes<uint8_t, int8_t>(i);
    case Op::kUnsignedUnsigned:
      check_product(i);
      return multiply_bytes<uint8_t, uint8_t>(i);
  }
}

void on_illegal_instruction(int, siginfo_t*, void* context) {
  gregset_t& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  Instruction instruction;
  if (!decode(registers, instruction)) {
    // Runs into the same instruction again, under the handler that was there before.
    sigaction(SIGILL, &previous, nullptr);
    return;
  }
  execute(instruction);
  registers[REG_RIP] += instruction.length;
  executed_count.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

bool amx_is_real() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kNeeded = (1u << 22) | (1u << 24) | (1u << 25);  // AMX-BF16, AMX-TILE, AMX-INT8
  if ((edx & kNeeded) != kNeeded) return false;
  constexpr int kArchReqXcompPerm = 0x1023, kXfeatureTiledata = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTiledata) == 0;
}

AmxEmulator::AmxEmulator() {
  if (amx_is_real()) return;
  DS_CHECK(!installed);
  struct sigaction action = {};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  DS_CHECK(sigaction(SIGILL, &action, &previous) == 0);
  installed = active_ = true;
}

AmxEmulator::~AmxEmulator() {
  if (!active_) return;
  sigaction(SIGILL, &previous, nullptr);
  installed = false;
}

long long AmxEmulator::executed() { return executed_count.load(std::memory_order_relaxed); }

}  // namespace ds::test

#else

namespace ds::test {

bool amx_is_real() { return false; }
AmxEmulator::AmxEmulator() = default;
AmxEmulator::~AmxEmulator() = default;
long long AmxEmulator::executed() { return 0; }

}  // namespace ds::test
#endif
