#pragma once

#include <string>

namespace clip_lora {

/// From now on SIGINT and SIGTERM set a flag instead of ending the program; a second one ends it at once.
void catch_interrupts();

/// The signal that has arrived since catch_interrupts(), or 0.
int pending_interrupt();

}  // namespace clip_lora
