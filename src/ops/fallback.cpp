#include "fallback.hpp"

#include <mutex>
#include <set>

#include "clip_lora/core/log.hpp"

namespace clip_lora::ops {

void report_fallback(const std::string& message) {
  static std::mutex mutex;
  static std::set<std::string> reported;
  const std::lock_guard lock(mutex);
  if (reported.insert(message).second) log_detail(message + ": computed without the fused kernel");
}

}  // namespace clip_lora::ops
