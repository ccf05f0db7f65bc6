#pragma once

#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::model {

/// Throws CheckpointError, saying what it is and which tensor says so, if the names are those of a model that
/// is no CLIP with a vision transformer and CLIP's own text transformer. What it does not know passes.
void refuse_other_models(const io::StateDict& tensors, const std::string& source);

}  // namespace clip_lora::model
