#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::model {

/// A stack of transformer blocks.
struct TowerArchitecture {
  std::int64_t width = 0;   ///< D
  std::int64_t layers = 0;  ///< N
  std::int64_t heads = 0;   ///< D / 64 in OpenAI's models

  bool operator==(const TowerArchitecture&) const = default;
};

/// Everything that fixes the shapes of a CLIP with a vision transformer.
struct ClipArchitecture {
  TowerArchitecture vision;
  TowerArchitecture text;
  std::int64_t patch_size_px = 0;
  std::int64_t image_size_px = 0;   ///< R, the side of the square input
  std::int64_t context_length = 0;  ///< tokens per prompt, 77
  std::int64_t vocabulary = 0;      ///< 49408
  std::int64_t embedding = 0;       ///< E

  bool operator==(const ClipArchitecture&) const = default;
};

/// Reads the architecture off the shapes of an OpenAI-named state dict (never off a file's name).
/// `source` names the file in errors. Throws CheckpointError if a tensor that it is read off is missing or has an
/// impossible shape, and for a CLIP without a vision transformer.
ClipArchitecture read_architecture(const io::StateDict& state_dict, const std::string& source);

/// "ViT-B/16" and the like for the architectures that OpenAI published, else nothing.
std::optional<std::string> published_name(const ClipArchitecture& architecture);

/// The architecture of a published name, or nothing.
std::optional<ClipArchitecture> published_architecture(const std::string& name);

/// "vision 768/12/16/224, text 512/12, embedding 512": widths, layers, patch and image size.
std::string describe(const ClipArchitecture& architecture);

}  // namespace clip_lora::model
