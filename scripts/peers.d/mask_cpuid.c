/* Makes a program see an older CPU: preloaded (LD_PRELOAD), it takes AVX-512, AVX-VNNI and AMX out of what CPUID says.
 *
 * Linux lets a thread's CPUID instructions fault (arch_prctl(2), ARCH_SET_CPUID) on CPUs that can; children of the thread
 * inherit it. The handler executes the instruction in the program's place and clears bits (Intel's Software Developer's
 * Manual, volume 2, CPUID). What the dynamic linker chose before, such as memcpy, stays. x86-64 Linux only.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { kArchSetCpuid = 0x1012, kCpuidBytes = 2, kUnavailable = 69 };

static struct sigaction others;

/* No libc: errno must not change inside the handler. */
static long let_cpuid_run(long yes) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(SYS_arch_prctl), "D"((long)kArchSetCpuid), "S"(yes) : "rcx", "r11", "memory");
  return result;
}

static uint32_t without(uint32_t bits, const int* hidden, int count) {
  for (int i = 0; i < count; ++i) bits &= ~(UINT32_C(1) << hidden[i]);
  return bits;
}
#define WITHOUT(bits, ...) without(bits, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static void on_fault(int signal, siginfo_t* info, void* raw) {
  (void)signal;
  greg_t* registers = ((ucontext_t*)raw)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)registers[REG_RIP];
  if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {  /* a true fault: it comes again, to its handler */
    sigaction(SIGSEGV, &others, NULL);
    return;
  }
  const uint32_t leaf = (uint32_t)registers[REG_RAX], subleaf = (uint32_t)registers[REG_RCX];
  uint32_t a, b, c, d;
  let_cpuid_run(1);
  __asm__ volatile("cpuid" : "=a"(a), "=b"(b), "=c"(c), "=d"(d) : "a"(leaf), "c"(subleaf));
  let_cpuid_run(0);
  if (leaf == 7 && subleaf == 0) {
    b = WITHOUT(b, 16, 17, 21, 26, 27, 28, 30, 31); /* AVX512 F, DQ, IFMA, PF, ER, CD, BW, VL */
    c = WITHOUT(c, 1, 6, 11, 12, 14);               /* AVX512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ */
    d = WITHOUT(d, 2, 3, 8, 22, 23, 24, 25);        /* AVX512 4VNNIW, 4FMAPS, VP2INTERSECT; AMX BF16; AVX512 FP16; AMX TILE, INT8 */
  } else if (leaf == 7 && subleaf == 1) {
    a = WITHOUT(a, 4, 5, 21, 23); /* AVX VNNI; AVX512 BF16; AMX FP16; AVX IFMA */
    d = WITHOUT(d, 4, 5, 8, 10);  /* AVX VNNI INT8, AVX NE CONVERT, AMX COMPLEX, AVX VNNI INT16 */
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += kCpuidBytes;
}

__attribute__((constructor)) static void start(void) {
  struct sigaction ours;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigaction(SIGSEGV, &ours, &others);
  if (let_cpuid_run(0) != 0) {
    fprintf(stderr, "mask_cpuid: this machine cannot make CPUID fault\n");
    _exit(kUnavailable);
  }
}
