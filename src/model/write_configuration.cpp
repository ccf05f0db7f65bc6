#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/naming.hpp"
#include "configuration.hpp"

namespace clip_lora::model {
namespace {

using nlohmann::ordered_json;

/// The double with the fewest decimals that is this float: 0.48145467 instead of 0.48145467042922974.
double shortest(float value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double result = 0.0;
  std::from_chars(text.data(), end, result);
  return result;
}

ordered_json channels(const std::array<float, 3>& values) {
  return {shortest(values[0]), shortest(values[1]), shortest(values[2])};
}

/// A ratio that gives back `mlp_width` when the product is rounded down, as OpenCLIP does.
double mlp_ratio(const TowerArchitecture& tower) {
  const auto width = static_cast<double>(tower.width);
  const double ratio = static_cast<double>(tower.mlp_width) / width;
  const bool too_small = static_cast<std::int64_t>(width * ratio) < tower.mlp_width;
  return too_small ? std::nextafter(ratio, std::numeric_limits<double>::infinity()) : ratio;
}

// ---- Hugging Face ----

ordered_json hugging_face_tower(const TowerArchitecture& tower, std::int64_t embedding,
                                const char* model_type) {
  return {{"model_type", model_type},
          {"hidden_size", tower.width},
          {"intermediate_size", tower.mlp_width},
          {"num_hidden_layers", tower.layers},
          {"num_attention_heads", tower.heads},
          {"hidden_act", to_string(tower.activation)},
          {"layer_norm_eps", tower.layer_norm_epsilon},
          {"projection_dim", embedding}};
}

ordered_json hugging_face_config(const ClipArchitecture& architecture) {
  ordered_json text = hugging_face_tower(architecture.text, architecture.embedding, "clip_text_model");
  const std::int64_t end_of_text = std::min(architecture.vocabulary - 1, kEndOfText);
  text["vocab_size"] = architecture.vocabulary;
  text["max_position_embeddings"] = architecture.context_length;
  text["bos_token_id"] = end_of_text - 1;
  text["eos_token_id"] = end_of_text;

  ordered_json vision = hugging_face_tower(architecture.vision, architecture.embedding, "clip_vision_model");
  vision["image_size"] = architecture.image_size_px;
  vision["patch_size"] = architecture.patch_size_px;
  vision["num_channels"] = 3;

  return {{"architectures", ordered_json::array({"CLIPModel"})},
          {"model_type", "clip"},
          {"projection_dim", architecture.embedding},
          {"text_config", text},
          {"vision_config", vision}};
}

std::ptrdiff_t pillow_code(image::Interpolation interpolation) {
  return std::ranges::find(kPillowFilters, interpolation) - kPillowFilters.begin();
}

ordered_json square(int side_px) { return {{"height", side_px}, {"width", side_px}}; }

ordered_json hugging_face_preprocessing(const image::Preprocessing& preprocessing) {
  if (preprocessing.resize_mode == image::ResizeMode::kLongest) {
    throw ConfigError(
        "preprocessing: resize_mode is longest, which Hugging Face's CLIPImageProcessor cannot do, "
        "expected shortest or squash (hint: OpenCLIP's configuration can say it)");
  }
  const bool squash = preprocessing.resize_mode == image::ResizeMode::kSquash;
  return {{"image_processor_type", "CLIPImageProcessor"},
          {"do_convert_rgb", true},
          {"do_resize", true},
          {"size", squash ? square(preprocessing.resize_px)
                          : ordered_json{{"shortest_edge", preprocessing.resize_px}}},
          {"resample", pillow_code(preprocessing.interpolation)},
          {"do_center_crop", true},
          {"crop_size", square(preprocessing.size_px)},
          {"do_rescale", true},
          {"rescale_factor", preprocessing.rescale_factor},
          {"do_normalize", true},
          {"image_mean", channels(preprocessing.mean)},
          {"image_std", channels(preprocessing.standard_deviation)}};
}

// ---- OpenCLIP ----

ordered_json open_clip_tower(const TowerArchitecture& tower) {
  ordered_json json = {{"width", tower.width}, {"layers", tower.layers}, {"mlp_ratio", mlp_ratio(tower)}};
  if (tower.layer_norm_epsilon != TowerArchitecture{}.layer_norm_epsilon) {
    json["norm_kwargs"] = {{"eps", tower.layer_norm_epsilon}};
  }
  return json;
}

ordered_json open_clip_preprocessing(const image::Preprocessing& preprocessing) {
  const auto refuse = [](const std::string& what) {
    throw ConfigError("preprocessing: " + what +
                      ", which OpenCLIP's configuration cannot say "
                      "(hint: Hugging Face's can)");
  };
  if (preprocessing.resize_px != preprocessing.size_px) {
    refuse("pictures are resized to " + std::to_string(preprocessing.resize_px) + " and cut to " +
           std::to_string(preprocessing.size_px));
  }
  const bool has_filter = preprocessing.interpolation == image::Interpolation::kBicubic ||
                          preprocessing.interpolation == image::Interpolation::kBilinear;
  if (!has_filter) refuse("interpolation is " + image::to_string(preprocessing.interpolation));

  ordered_json json = to_json(preprocessing);
  for (const char* ours : {"resize_size", "rescale_factor", "exif"}) json.erase(ours);
  // OpenCLIP hands one colour to Pillow's fill; three equal ones are one.
  const auto& color = preprocessing.fill_color;
  if (color[0] == color[1] && color[1] == color[2]) json["fill_color"] = color[0];
  if (preprocessing.rescale_factor != image::Preprocessing{}.rescale_factor) {
    // (f x − m) / s = (x / 255 − m / 255 f) / (s / 255 f)
    const double scale = 255.0 * preprocessing.rescale_factor;
    for (std::size_t i = 0; i < 3; ++i) {
      json["mean"][i] = static_cast<double>(preprocessing.mean[i]) / scale;
      json["std"][i] = static_cast<double>(preprocessing.standard_deviation[i]) / scale;
    }
  }
  return json;
}

}  // namespace

ordered_json open_clip_model_cfg(const ClipArchitecture& architecture) {
  if (architecture.vision.activation != architecture.text.activation) {
    throw ConfigError(
        "the image tower has the activation " + to_string(architecture.vision.activation) +
        ", the text tower " + to_string(architecture.text.activation) +
        ", expected one for both, as OpenCLIP's configuration says it (hint: Hugging Face's can say two)");
  }
  ordered_json vision = open_clip_tower(architecture.vision);
  vision["head_width"] = architecture.vision.width / architecture.vision.heads;
  vision["image_size"] = architecture.image_size_px;
  vision["patch_size"] = architecture.patch_size_px;
  ordered_json text = open_clip_tower(architecture.text);
  text["heads"] = architecture.text.heads;
  text["context_length"] = architecture.context_length;
  text["vocab_size"] = architecture.vocabulary;
  return {{"embed_dim", architecture.embedding},
          {"quick_gelu", architecture.vision.activation == Activation::kQuickGelu},
          {"vision_cfg", vision},
          {"text_cfg", text}};
}

ordered_json to_json(const image::Preprocessing& preprocessing) {
  return {{"size", preprocessing.size_px},
          {"mode", "RGB"},
          {"mean", channels(preprocessing.mean)},
          {"std", channels(preprocessing.standard_deviation)},
          {"interpolation", image::to_string(preprocessing.interpolation)},
          {"resize_mode", image::to_string(preprocessing.resize_mode)},
          {"fill_color", preprocessing.fill_color},
          {"resize_size", preprocessing.resize_px},
          {"rescale_factor", preprocessing.rescale_factor},
          {"exif", preprocessing.orientation == image::Orientation::kApplyExif}};
}

std::map<std::string, ordered_json> configuration_files(const ClipArchitecture& architecture,
                                                        const image::Preprocessing& preprocessing,
                                                        Naming naming) {
  if (naming == Naming::kHuggingFace) {
    return {{"config.json", hugging_face_config(architecture)},
            {"preprocessor_config.json", hugging_face_preprocessing(preprocessing)}};
  }
  if (naming == Naming::kOpenClip) {
    const ordered_json config = {{"model_cfg", open_clip_model_cfg(architecture)},
                                 {"preprocess_cfg", open_clip_preprocessing(preprocessing)}};
    return {{"open_clip_config.json", config}};
  }
  return {};
}

std::map<std::string, std::string> checkpoint_metadata(const ClipArchitecture& architecture,
                                                       const image::Preprocessing& preprocessing) {
  const ordered_json configuration = {{"model_cfg", open_clip_model_cfg(architecture)},
                                      {"preprocess_cfg", to_json(preprocessing)}};
  return {{"clip_lora.activation", to_string(architecture.vision.activation)},
          {"clip_lora.configuration", configuration.dump()}};
}

}  // namespace clip_lora::model
