#include "clip_lora/core/interrupt.hpp"

#include <csignal>

namespace clip_lora {
namespace {

volatile std::sig_atomic_t pending_signal = 0;

void remember(int signal_number) {
  pending_signal = signal_number;
  std::signal(signal_number, SIG_DFL);  // the second one ends the program at once
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, remember);
  std::signal(SIGTERM, remember);
}

int pending_interrupt() { return pending_signal; }

}  // namespace clip_lora
