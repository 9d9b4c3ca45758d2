// Intel AMX in software, so that tile kernels are tested as the machine code that ships where no AMX exists.
//
// On a CPU without AMX its instructions raise SIGILL. While an AmxEmulator exists, the handler decodes the
// instruction at fault, executes it on eight tile registers of the calling thread, and steps over it. It
// follows the Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2 (instructions) and
// volume 1, chapter 18 (tiles):
//
//   LDTILECFG STTILECFG TILERELEASE TILEZERO TILELOADD TILELOADDT1 TILESTORED
//   TDPBF16PS TDPBSSD TDPBSUD TDPBUSD TDPBUUD
//
// Where the CPU would raise an exception because of a program's mistake (a tile that is not configured,
// shapes that do not fit, a bad configuration), the process aborts with a message that says what was wrong.
// An instruction that is none of these goes to the handler that was there before. Memory is read and written
// by the compiled C++ of this file, so the address sanitizer sees the accesses of tile loads and stores.
//
// Not emulated: restarting after a page fault (start_row must be 0), and time; an instruction costs
// microseconds.
//
// Threads: one emulator at a time in a process; any number of threads may execute tile instructions under it,
// each has registers of its own.
#pragma once

#include <csignal>

namespace ds::test {

class AmxEmulator {
 public:
  // Does nothing where the CPU and the system let us use AMX, unless `always`. That traps nothing on such a
  // CPU.
  AmxEmulator();
  ~AmxEmulator();
  AmxEmulator(const AmxEmulator&) = delete;
  AmxEmulator& operator=(const AmxEmulator&) = delete;

  // Whether instructions are executed in software.
  bool active() const { return active_; }
  // Instructions executed in software so far, in all threads.
  static long long executed();

 private:
  bool active_ = false;
};

// CPUID shows AMX with bf16 and int8, and the system has granted tile state to this process.
bool amx_is_real();

}  // namespace ds::test
