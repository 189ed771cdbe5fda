// The module `_cpu`: which instruction-set levels this CPU and this operating system can run.
//
// It is compiled for the plain baseline and asks for exactly the features that the flags of each
// level allow the compiler to use (the x86-64 psABI levels v3 and v4, then v4 with AVX512_BF16 or
// AMX, see CMakeLists.txt), so that
// a level it names cannot meet an illegal instruction. A feature bit of the CPU is not enough: the
// operating system must save the wider registers on a context switch, and says so in XCR0.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#define FASTFISHER_X86_64 1
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(_MSC_VER)
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace {

#ifdef FASTFISHER_X86_64

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// One CPUID leaf; all zero where the CPU does not have the leaf, so that every feature of it reads
// as absent.
Registers cpuid(unsigned leaf, unsigned subleaf = 0) {
  Registers r;
#if defined(_MSC_VER)
  int words[4];
  __cpuid(words, static_cast<int>(leaf & 0x80000000u));
  if (static_cast<unsigned>(words[0]) < leaf) return r;
  __cpuidex(words, static_cast<int>(leaf), static_cast<int>(subleaf));
  r.eax = static_cast<unsigned>(words[0]);
  r.ebx = static_cast<unsigned>(words[1]);
  r.ecx = static_cast<unsigned>(words[2]);
  r.edx = static_cast<unsigned>(words[3]);
#else
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) r = Registers{};
#endif
  return r;
}

// XCR0: the register sets that the operating system saves. Only callable where OSXSAVE is set. The
// bytes are written out in assembly because the intrinsic would need a flag beyond the baseline.
unsigned long long xcr0() {
#if defined(_MSC_VER)
  return _xgetbv(0);
#else
  unsigned low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<unsigned long long>(high) << 32) | low;
#endif
}

// Tiles are 8 kB of state per thread, which Linux hands out on request, once for the whole process
// (arch_prctl: ARCH_REQ_XCOMP_PERM of state 18). Elsewhere they are not used.
bool may_use_tiles() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

constexpr unsigned bit(int index) { return 1u << index; }

bool has(unsigned word, unsigned mask) { return (word & mask) == mask; }

std::vector<std::string> supported() {
  std::vector<std::string> levels{"baseline"};
  const Registers basic = cpuid(1), extended = cpuid(7), amd = cpuid(0x80000001u);

  // v2: SSE3 0, SSSE3 9, CMPXCHG16B 13, SSE4.1 19, SSE4.2 20, POPCNT 23, LAHF (amd) 0; v3 contains
  // it.
  const unsigned v2_basic = bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23),
                 v2_amd = bit(0);
  // v3: FMA 12, MOVBE 22, OSXSAVE 27, AVX 28, F16C 29; BMI1 3, AVX2 5, BMI2 8; LZCNT (amd) 5.
  const unsigned v3_basic = bit(12) | bit(22) | bit(27) | bit(28) | bit(29);
  const unsigned v3_extended = bit(3) | bit(5) | bit(8), v3_amd = bit(5);
  // v4: AVX512F 16, AVX512DQ 17, AVX512CD 28, AVX512BW 30, AVX512VL 31.
  const unsigned v4_extended = bit(16) | bit(17) | bit(28) | bit(30) | bit(31);
  // XCR0: xmm 1, ymm 2; opmask 5, upper halves of zmm0-15 6, zmm16-31 7.
  const unsigned v3_saved = bit(1) | bit(2), v4_saved = bit(5) | bit(6) | bit(7);

  if (!has(basic.ecx, v2_basic | v3_basic) || !has(extended.ebx, v3_extended) ||
      !has(amd.ecx, v2_amd | v3_amd))
    return levels;
  const unsigned saved = static_cast<unsigned>(xcr0());
  if (!has(saved, v3_saved)) return levels;
  levels.emplace_back("avx2");
  if (!has(extended.ebx, v4_extended) || !has(saved, v4_saved)) return levels;
  levels.emplace_back("avx512");
  // AVX512_BF16: leaf 7.1 eax 5. AMX: bf16 22, tile 24; XCR0: tile shapes 17, tiles 18.
  const unsigned amx = bit(22) | bit(24), tiles_saved = bit(17) | bit(18);
  // Intel's vector dot products run at half the speed of plain multiply-adds (Granite Rapids),
  // AMD's at twice (Zen 4), so the level stands before or after the plain one.
  const bool intel = cpuid(0).ebx == 0x756e6547u;  // "Genu"ineIntel
  if (has(cpuid(7, 1).eax, bit(5)))
    levels.insert(intel ? levels.end() - 1 : levels.end(), "avx512_bf16");
  if (has(extended.edx, amx) && has(saved, tiles_saved) && may_use_tiles())
    levels.emplace_back("amx");
  return levels;
}

#else

std::vector<std::string> supported() { return {"baseline"}; }

#endif

}  // namespace

PYBIND11_MODULE(_cpu, m, pybind11::mod_gil_not_used()) {
  m.doc() = "Which instruction-set levels this CPU and this operating system can run.";
  m.def("supported", &supported, "Names of the levels that can run here, the fastest last.");
}
