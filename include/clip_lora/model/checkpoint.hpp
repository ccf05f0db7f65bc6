#pragma once

#include <string>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::model {

/// The CLIP of an OpenAI-named state dict, in float32 on the CPU. `source` names the file in errors.
/// `input_resolution`, `context_length` and `vocab_size` of old archives are ignored.
/// Throws CheckpointError that lists every missing, unexpected and wrongly shaped tensor (ten and a count).
Clip load_clip(const io::StateDict& state_dict, const std::string& source);

/// The model's parameters by their checkpoint names; the tensors are shared, not copied.
io::StateDict state_dict(const Clip& clip);

/// Fills the weights as CLIP does before pre-training (Radford et al. 2021, section 2.4 and OpenAI's release), from
/// LibTorch's default generator.
void initialise(Clip& clip);

}  // namespace clip_lora::model
