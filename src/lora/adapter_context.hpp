#pragma once

#include "clip_lora/lora/adapter_file.hpp"
#include "json_object.hpp"

namespace clip_lora::lora {

/// A context of context_json. Throws CheckpointError if a member is missing or of another type.
AdapterContext read_context(const JsonObject& object);

}  // namespace clip_lora::lora
