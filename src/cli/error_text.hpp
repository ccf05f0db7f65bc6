#pragma once

#include <exception>
#include <string>

namespace clip_lora::cli {

/// What a user is told of `error`: its message; where memory was full, how much was wanted and what to lower.
std::string error_text(const std::exception& error);

/// For std::set_terminate: an exception that nobody can catch is told like any other, with exit code 1. A GPU
/// that has failed makes LibTorch throw even where its tensors are freed.
[[noreturn]] void end_with_error() noexcept;

}  // namespace clip_lora::cli
