#pragma once

#include <functional>
#include <string>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/model/architecture.hpp"

namespace clip_lora::model {

/// How the file that is being read calls a tensor of OpenAI's.
using NameInFile = std::function<std::string(const std::string& open_ai_name)>;

/// What the shapes of OpenAI-named tensors (of any device, meta too) say, and OpenAI's values for the rest;
/// heads are 0 where the width is no multiple of 64. Throws CheckpointError with the file's own names.
ClipArchitecture read_shapes(const io::StateDict& tensors, const std::string& source,
                             const NameInFile& name_in_file);

/// Throws CheckpointError unless each tower's heads divide its width.
void require_heads(const ClipArchitecture& architecture, const std::string& source);

}  // namespace clip_lora::model
