#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/model/architecture.hpp"

namespace clip_lora::model {

/// Whose names and configuration files a checkpoint has.
enum class Naming { kOpenAi, kHuggingFace, kOpenClip };

/// "OpenAI", "Hugging Face", "OpenCLIP".
std::string to_string(Naming naming);

/// Whose names these are, told by the names alone. OpenAI's and OpenCLIP's are the same: kOpenAi.
Naming naming_of(const io::StateDict& tensors);

/// Hugging Face's CLIPModel names as OpenAI's. q, k and v are joined to `in_proj` without a change of type.
/// `position_ids` are dropped; names that are unknown stay as they are, for the loader to complain about.
io::StateDict from_hugging_face(const io::StateDict& tensors);

/// OpenAI's names as Hugging Face's CLIPModel names, q, k and v apart.
io::StateDict to_hugging_face(const io::StateDict& tensors);

/// The JSON files, by name, that transformers' CLIPModel and CLIPImageProcessor (config.json,
/// preprocessor_config.json) and open_clip (open_clip_config.json) read beside the weights. kOpenAi has none.
/// Throws ConfigError for what the named library's configuration cannot say (of Hugging Face's: longest; of
/// OpenCLIP's: a resize to another size than the crop, other filters than bilinear and bicubic, towers of two
/// activations).
std::map<std::string, nlohmann::ordered_json> configuration_files(const ClipArchitecture& architecture,
                                                                  const image::Preprocessing& preprocessing,
                                                                  Naming naming);

/// What a safetensors file of ours under OpenAI's names says in its metadata, so that load_clip has to assume
/// nothing: `clip_lora.activation`, and `clip_lora.configuration` in the form of open_clip_config.json.
/// Throws ConfigError for towers of two activations.
std::map<std::string, std::string> checkpoint_metadata(const ClipArchitecture& architecture,
                                                       const image::Preprocessing& preprocessing);

/// The names of OpenCLIP's preprocess_cfg (size, mode, mean, std, interpolation, resize_mode, fill_color as
/// three numbers), and `resize_size`, `rescale_factor` and `exif` (true: photos are turned by their EXIF
/// orientation) besides. preprocessing_from_json(to_json(x)) is x.
nlohmann::ordered_json to_json(const image::Preprocessing& preprocessing);

/// The inverse; what is missing is OpenAI's. Throws CheckpointError naming `document`, the field, its value
/// and what was expected.
image::Preprocessing preprocessing_from_json(const nlohmann::json& json,
                                             const std::string& document = "preprocessing");

}  // namespace clip_lora::model
