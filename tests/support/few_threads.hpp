#pragma once

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>

namespace clip_lora::testing {

/// Address sanitizer and its like cannot live with a limit on memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kMayLimitMemory = false;
#else
inline constexpr bool kMayLimitMemory = true;
#endif

/// Allows this process `bytes` of address space beyond what it has: room for a few threads, whose stacks are
/// of 2 MiB at the least, or for none.
inline void limit_further_memory(std::uint64_t bytes) {
  std::uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t limit = pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) + bytes;
  const rlimit limits{limit, limit};
  ::setrlimit(RLIMIT_AS, &limits);
}

}  // namespace clip_lora::testing
