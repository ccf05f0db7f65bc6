#pragma once

#include "clip_lora/lora/method.hpp"

namespace clip_lora::lora {

Method r_adapter_method();
Method lora_xs_method();
Method zero_shot_method();

}  // namespace clip_lora::lora
