#include "clip_lora/core/interrupt.hpp"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace clip_lora {
namespace {

volatile std::sig_atomic_t pending_signal = 0;

std::atomic<std::int64_t> arrival_ms = 0;  // of pending_signal

/// Who stops a job often sends a signal to a process and to its group: within this time it is one signal.
constexpr std::int64_t kSameSignalMs = 2000;

std::int64_t now_ms() {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1000000;
}

void remember(int signal_number) {
  const bool is_second = pending_signal == signal_number;
  if (is_second && (signal_number == SIGINT || now_ms() - arrival_ms > kSameSignalMs)) {
    std::signal(signal_number, SIG_DFL);
    std::raise(signal_number);
    return;
  }
  if (!is_second) arrival_ms = now_ms();
  pending_signal = signal_number;
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, remember);
  std::signal(SIGTERM, remember);
  if (std::signal(SIGHUP, remember) == SIG_IGN) std::signal(SIGHUP, SIG_IGN);  // nohup's wish
  std::signal(SIGXFSZ, SIG_IGN);
}

int pending_interrupt() { return pending_signal; }

}  // namespace clip_lora
