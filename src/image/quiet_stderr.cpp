#include "quiet_stderr.hpp"

#include <cstdio>
#include <mutex>

namespace clip_lora::image {

#ifdef __GLIBC__
namespace {

std::mutex mutex;
int living = 0;
std::FILE* original = nullptr;
thread_local int living_in_this_thread = 0;

ssize_t write_unless_quiet(void* /*cookie*/, const char* text, std::size_t size) {
  return static_cast<ssize_t>(living_in_this_thread > 0 ? size : std::fwrite(text, 1, size, original));
}

/// Passes on what threads print that are not quiet. Never closed: somebody may have kept it.
std::FILE* selective_stream() {
  static std::FILE* const stream = [] {
    std::FILE* made = fopencookie(nullptr, "w", {nullptr, write_unless_quiet, nullptr, nullptr});
    // Unbuffered, so that each text is judged in the thread that prints it.
    if (made != nullptr) std::setvbuf(made, nullptr, _IONBF, 0);
    return made;
  }();
  return stream;
}

}  // namespace

QuietStderr::QuietStderr() {
  ++living_in_this_thread;
  const std::lock_guard lock(mutex);
  if (living++ > 0 || selective_stream() == nullptr) return;
  original = stderr;
  stderr = selective_stream();
}

QuietStderr::~QuietStderr() {
  --living_in_this_thread;
  const std::lock_guard lock(mutex);
  if (--living == 0 && stderr == selective_stream()) stderr = original;
}
#else
QuietStderr::QuietStderr() = default;
QuietStderr::~QuietStderr() = default;
#endif

}  // namespace clip_lora::image
