#pragma once

#include <exception>
#include <string>

namespace clip_lora::cli {

/// What a user is told of `error`: its message; where memory was full, how much was wanted and what to lower.
std::string error_text(const std::exception& error);

}  // namespace clip_lora::cli
