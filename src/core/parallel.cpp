#include "clip_lora/core/parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace clip_lora {

int hardware_workers() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

void parallel_for(std::size_t count, int workers, const std::function<void(std::size_t)>& body) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  const auto work = [&] {
    while (!failed) {
      const std::size_t i = next++;
      if (i >= count) return;
      try {
        body(i);
      } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error) error = std::current_exception();
        failed = true;
      }
    }
  };

  {
    // The caller is one of the workers; the rest are joined at the end of this scope.
    const std::size_t helpers = std::min(count, static_cast<std::size_t>(std::max(workers, 1)));
    std::vector<std::jthread> threads;
    try {
      for (std::size_t i = 1; i < helpers; ++i) threads.emplace_back(work);
    } catch (const std::system_error&) {
      // A limit on threads or on memory: those that there are do it all.
    }
    work();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace clip_lora
