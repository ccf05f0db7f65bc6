#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::model {

/// The nonlinearity of a block's multilayer perceptron: `--activation`.
enum class Activation { kQuickGelu, kGelu };

/// "quick_gelu", "gelu": names as on the command line; the parser throws ConfigError with the nearest name.
std::string to_string(Activation activation);
Activation parse_activation(const std::string& name);

/// A stack of transformer blocks. The last three are no shapes: OpenAI's values, unless a configuration says
/// otherwise.
struct TowerArchitecture {
  std::int64_t width = 0;      ///< D
  std::int64_t layers = 0;     ///< N
  std::int64_t mlp_width = 0;  ///< rows of c_fc, 4 D in OpenAI's models
  std::int64_t heads = 0;      ///< D / 64 in OpenAI's models
  Activation activation = Activation::kQuickGelu;
  double layer_norm_epsilon = 1e-5;

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

/// Reads the architecture off the shapes of an OpenAI-named state dict (never off a file's name). What they
/// do not say is OpenAI's: heads D / 64 (but those of ViT-H/14, ViT-g/14 and ViT-bigG/14 for their shapes),
/// QuickGELU, eps 1e-5. `source` names the file in errors. Throws CheckpointError if a tensor that it is read
/// off is missing or has an impossible shape, and for a model without a vision transformer, naming what was
/// found instead.
ClipArchitecture read_architecture(const io::StateDict& state_dict, const std::string& source);

/// "ViT-B/16" and the like for the shapes that OpenAI and OpenCLIP published, else nothing. Only shapes
/// count: a ViT-B-32 of OpenCLIP with exact GELU is a "ViT-B/32" too.
std::optional<std::string> published_name(const ClipArchitecture& architecture);

/// The architecture of a published name (OpenCLIP's H, g and bigG with exact GELU), or nothing.
std::optional<ClipArchitecture> published_architecture(const std::string& name);

/// "vision 768/12/16/224, text 512/12, embedding 512": widths, layers, patch and image size.
std::string describe(const ClipArchitecture& architecture);

}  // namespace clip_lora::model
