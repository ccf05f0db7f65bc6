#pragma once

#include <string>

namespace clip_lora::ops {

/// Tells people who asked for --verbose, once for each message, that an operation runs by its ATen definition on a
/// CUDA device, e.g. "layer_norm: rank 64 is above the kernel's 8".
void report_fallback(const std::string& message);

}  // namespace clip_lora::ops
