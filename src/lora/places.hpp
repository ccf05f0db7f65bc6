#pragma once

#include <string>
#include <vector>

#include "clip_lora/lora/adapter.hpp"

namespace clip_lora::lora {

const model::TowerArchitecture& architecture_of(const model::Clip& clip, Tower tower);

/// Text tower first, ascending. Throws ConfigError if there are none.
std::vector<Place> places_at(const model::Clip& clip, Encoder encoder, Position position);

/// "visual.transformer.resblocks.0".
std::string block_name(const Place& place);

}  // namespace clip_lora::lora
