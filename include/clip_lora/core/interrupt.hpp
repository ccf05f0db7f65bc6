#pragma once

#include <string>

namespace clip_lora {

/// From now on SIGINT, SIGTERM and (unless it is ignored already, as nohup has it) SIGHUP set a flag instead
/// of ending the program. A second SIGINT ends it at once, and so does another SIGTERM or SIGHUP that comes
/// more than two seconds later: job schedulers and shells send these twice. A write beyond the system's limit
/// on a file's size fails instead of ending the program.
void catch_interrupts();

/// The signal that has arrived since catch_interrupts(), or 0.
int pending_interrupt();

}  // namespace clip_lora
