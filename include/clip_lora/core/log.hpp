#pragma once

#include <string>

namespace clip_lora {

/// What log_detail and log_warning print to the standard error stream. Warnings by default.
enum class Verbosity { kQuiet, kNormal, kVerbose };
void set_verbosity(Verbosity verbosity);

/// A line for people who asked for --verbose.
void log_detail(const std::string& line);

/// Something that a user should know although the run goes on.
void log_warning(const std::string& line);

}  // namespace clip_lora
