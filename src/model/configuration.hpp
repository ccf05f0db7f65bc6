#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/model/architecture.hpp"

namespace clip_lora::model {

constexpr std::int64_t kEndOfText = 49407;  ///< of CLIP's vocabulary, its largest id

/// Pillow's filters in the order of their codes.
inline constexpr std::array kPillowFilters = {
    image::Interpolation::kNearest, image::Interpolation::kLanczos, image::Interpolation::kBilinear,
    image::Interpolation::kBicubic, image::Interpolation::kBox,     image::Interpolation::kHamming};

// Reading the configuration files that configuration_files() writes. `document` names one in errors, e.g.
// "checkpoint 'x': config.json". All throw CheckpointError, naming the field and its value, for a field of
// the wrong type, for one that contradicts the weights' shapes, and for what CLIP's two transformers or our
// preprocessing do not do.

/// `shapes` with the heads, activations and eps of a config.json of transformers' CLIPModel.
ClipArchitecture read_hugging_face_config(const nlohmann::json& config, const ClipArchitecture& shapes,
                                          const std::string& document);

/// The same of the `model_cfg` in an open_clip_config.json.
ClipArchitecture read_open_clip_config(const nlohmann::json& model_cfg, const ClipArchitecture& shapes,
                                       const std::string& document);

/// A preprocessor_config.json of transformers' CLIPImageProcessor. `image_size_px` is the model's.
image::Preprocessing read_hugging_face_preprocessing(const nlohmann::json& config, std::int64_t image_size_px,
                                                     const std::string& document);

/// The `preprocess_cfg` in an open_clip_config.json, or of to_json.
image::Preprocessing read_open_clip_preprocessing(const nlohmann::json& preprocess_cfg,
                                                  std::int64_t image_size_px, const std::string& document);

/// OpenAI's preprocessing at a resolution.
image::Preprocessing open_ai_preprocessing(std::int64_t image_size_px);

/// `model_cfg` of an open_clip_config.json. Throws ConfigError for towers of two activations.
nlohmann::ordered_json open_clip_model_cfg(const ClipArchitecture& architecture);

}  // namespace clip_lora::model
