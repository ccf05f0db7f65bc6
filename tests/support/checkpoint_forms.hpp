#pragma once

#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::testing {

/// A checkpoint of `clip`'s weights under a naming's names, with that naming's configuration files beside
/// them, as if read from "model".
inline io::CheckpointFiles checkpoint_files(const model::Clip& clip, model::Naming naming,
                                            const image::Preprocessing& preprocessing) {
  io::CheckpointFiles files;
  files.path = "model";
  const auto tensors = model::state_dict(clip);
  files.tensors = naming == model::Naming::kHuggingFace ? model::to_hugging_face(tensors) : tensors;
  for (const auto& [name, json] : model::configuration_files(clip->architecture(), preprocessing, naming)) {
    files.documents[name] = nlohmann::json::parse(json.dump());
  }
  return files;
}

/// OpenAI's preprocessing at the model's resolution.
inline image::Preprocessing preprocessing_of(const model::Clip& clip) {
  image::Preprocessing preprocessing;
  preprocessing.size_px = static_cast<int>(clip->architecture().image_size_px);
  preprocessing.resize_px = preprocessing.size_px;
  return preprocessing;
}

}  // namespace clip_lora::testing
