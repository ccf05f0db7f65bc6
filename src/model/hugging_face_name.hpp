#pragma once

#include <string>

namespace clip_lora::model {

/// What Hugging Face's CLIPModel calls a tensor of OpenAI's; of `in_proj`, the q. Names that it does not know
/// stay.
std::string hugging_face_name(const std::string& open_ai_name);

}  // namespace clip_lora::model
