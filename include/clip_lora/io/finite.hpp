#pragma once

#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::io {

/// Throws CheckpointError, which begins with `source`, if floating tensors on the CPU hold NaN or what is
/// infinite in float32. It names them, each with how many of its values they are, ten and a count.
void require_finite(const StateDict& tensors, const std::string& source);

}  // namespace clip_lora::io
