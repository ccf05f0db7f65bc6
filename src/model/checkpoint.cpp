#include "clip_lora/model/checkpoint.hpp"

#include <ATen/ATen.h>
#include <c10/util/StringUtil.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <sstream>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/finite.hpp"
#include "description.hpp"
#include "hugging_face_name.hpp"
#include "other_models.hpp"
#include "read_shapes.hpp"

namespace clip_lora::model {
namespace {

/// What archives hold beside the weights: OpenAI's scalars, and constants of older versions of transformers.
constexpr std::array kIgnored = {"input_resolution", "context_length", "vocab_size",
                                 "text_model.embeddings.position_ids",
                                 "vision_model.embeddings.position_ids"};

/// The text tower's causal mask is no weight either, but TorchScript stores it with them.
bool is_ignored(const std::string& name) {
  return name == "attn_mask" || name.ends_with(".attn_mask") ||
         std::find(kIgnored.begin(), kIgnored.end(), name) != kIgnored.end();
}

/// What does not fit, in the three kinds that a person tells apart.
struct Mismatches {
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  std::vector<std::string> misshaped;

  void throw_if_any(const std::string& source, Naming naming) const {
    if (missing.empty() && unexpected.empty() && misshaped.empty()) return;
    std::string message = "checkpoint '" + source + "' does not fit the CLIP that its shapes describe:";
    const auto add = [&](const char* what, const std::vector<std::string>& names) {
      if (!names.empty())
        message += "\n  " + std::to_string(names.size()) + " " + what + ": " + join_capped(names);
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("of the wrong shape or type", misshaped);
    const std::string names = naming == Naming::kHuggingFace ? "Hugging Face's CLIPModel" : "OpenAI's CLIP";
    throw CheckpointError(message + "\n  (hint: expected the names of " + names + ")");
  }
};

/// OpenCLIP may keep the logit scale as one element of an axis.
bool same_shape(const at::Tensor& found, const at::Tensor& expected) {
  return found.sizes() == expected.sizes() || (expected.dim() == 0 && found.numel() == 1);
}

Mismatches compare(const io::StateDict& expected, const io::StateDict& found) {
  Mismatches mismatches;
  for (const auto& [name, parameter] : expected) {
    const auto match = found.find(name);
    if (match == found.end()) {
      mismatches.missing.push_back(name);
    } else if (!same_shape(match->second, parameter)) {
      mismatches.misshaped.push_back(name + " is " + c10::str(match->second.sizes()) + ", expected " +
                                     c10::str(parameter.sizes()));
    } else if (!match->second.is_floating_point()) {
      mismatches.misshaped.push_back(name + " is " + c10::toString(match->second.scalar_type()) +
                                     ", expected a floating type");
    }
  }
  for (const auto& [name, tensor] : found) {
    if (!expected.contains(name) && !is_ignored(name)) mismatches.unexpected.push_back(name);
  }
  return mismatches;
}

/// OpenCLIP's CustomTextCLIP calls the text tower's tensors `text.…`; so named, they are OpenAI's.
io::StateDict without_text_prefix(const io::StateDict& tensors) {
  constexpr std::string_view kPrefix = "text.";
  if (!tensors.contains("text.token_embedding.weight")) return tensors;
  io::StateDict result;
  for (const auto& [name, tensor] : tensors) {
    const std::string stripped = name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
    result[tensors.contains(stripped) ? name : stripped] = tensor;
  }
  return result;
}

/// The shapes and types of Hugging Face's tensors under OpenAI's names, without memory.
io::StateDict shapes_in_open_ai_names(const io::StateDict& hugging_face) {
  io::StateDict shapes;
  for (const auto& [name, tensor] : hugging_face) {
    shapes[name] = at::empty(tensor.sizes(), tensor.options().device(at::kMeta));
  }
  return from_hugging_face(shapes);
}

/// In floating point: what a broken file describes may be more than 64 bits count.
double parameters_of(const ClipArchitecture& architecture) {
  double sum = 0.0;
  for (const TowerArchitecture* tower : {&architecture.vision, &architecture.text}) {
    const auto width = static_cast<double>(tower->width);
    const auto mlp_width = static_cast<double>(tower->mlp_width);
    sum += static_cast<double>(tower->layers) * width * (4.0 * width + 2.0 * mlp_width);
    sum += width * static_cast<double>(architecture.embedding);
  }
  const auto patch = static_cast<double>(architecture.patch_size_px);
  const double grid = static_cast<double>(architecture.image_size_px) / patch;
  const auto rows = static_cast<double>(architecture.vocabulary + architecture.context_length);
  sum += static_cast<double>(architecture.vision.width) * (3.0 * patch * patch + grid * grid);
  sum += static_cast<double>(architecture.text.width) * rows;
  return sum;
}

/// A file whose few tensors describe far more than it holds is broken: say so before memory is taken.
void require_plausible_size(const ClipArchitecture& architecture, const io::StateDict& found,
                            const std::string& source) {
  double held = 0.0;
  for (const auto& [name, tensor] : found) held += static_cast<double>(tensor.numel());
  constexpr double kManyMissing = 16.0;  // fewer missing tensors are listed by name
  constexpr double kSmall = 1 << 24;
  const double described = parameters_of(architecture);
  if (described <= kManyMissing * held + kSmall) return;
  std::ostringstream message;
  message << "checkpoint '" << source << "': its shapes describe a CLIP (" << describe(architecture)
          << ") of " << described << " parameters, but its tensors hold " << held
          << " (hint: the file is damaged)";
  throw CheckpointError(message.str());
}

/// The model with the found weights, tensor by tensor straight into their places.
Clip filled(const ClipArchitecture& architecture, const io::StateDict& found, Naming naming,
            const std::string& source) {
  require_plausible_size(architecture, found, source);
  const at::NoGradGuard no_grad;
  Clip clip(architecture);
  // Views of the model's tensors under the file's names: q, k and v are slices of in_proj.
  const io::StateDict places =
      naming == Naming::kHuggingFace ? to_hugging_face(state_dict(clip)) : state_dict(clip);
  compare(places, found).throw_if_any(source, naming);
  for (const auto& [name, place] : places) place.copy_(found.at(name).reshape(place.sizes()));
  io::require_finite(places, "checkpoint '" + source + "'");
  return clip;
}

/// The factor on cosines. Throws CheckpointError where it is far from every CLIP's, which is at most 100.
double logit_scale_of(const Clip& clip, const std::string& source) {
  constexpr double kFurthest = 1e6;
  const double exponent = clip->logit_scale.item<double>(), scale = std::exp(exponent);
  if (scale >= 1.0 / kFurthest && scale <= kFurthest) return scale;
  std::ostringstream message;
  message << "checkpoint '" << source << "': its logit_scale is " << exponent << ", a factor of " << scale
          << " on cosines, expected one of 1e-6 to 1e6 (hint: CLIP's is a logarithm, at most 4.6052)";
  throw CheckpointError(message.str());
}

}  // namespace

LoadedClip load_clip(const io::CheckpointFiles& files, std::optional<Activation> activation) {
  const std::string source = files.path.string();
  refuse_other_models(files.tensors, source);
  const Naming naming = naming_of(files.tensors);
  const bool hugging_face = naming == Naming::kHuggingFace;
  const io::StateDict tensors = hugging_face ? files.tensors : without_text_prefix(files.tensors);
  const auto same_name = [](const std::string& name) { return name; };
  const ClipArchitecture shapes =
      hugging_face ? read_shapes(shapes_in_open_ai_names(tensors), source, hugging_face_name)
                   : read_shapes(tensors, source, same_name);
  Description description = describe_checkpoint(files, shapes, naming, activation);
  Clip clip = filled(description.architecture, tensors, naming, source);
  const double logit_scale = logit_scale_of(clip, source);
  return {std::move(clip), logit_scale, description.preprocessing, description.naming,
          std::move(description.warnings)};
}

Clip load_clip(const io::StateDict& found, const std::string& source) {
  return filled(read_architecture(found, source), found, Naming::kOpenAi, source);
}

io::StateDict state_dict(const Clip& clip) {
  io::StateDict parameters;
  for (const auto& item : clip->named_parameters()) parameters[item.key()] = item.value();
  return parameters;
}

}  // namespace clip_lora::model
