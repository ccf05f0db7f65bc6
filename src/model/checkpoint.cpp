#include "clip_lora/model/checkpoint.hpp"

#include <ATen/ATen.h>

#include <array>
#include <sstream>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::model {
namespace {

/// Scalars that OpenAI's archives hold beside the weights.
constexpr std::array kIgnored = {"input_resolution", "context_length", "vocab_size"};

std::string shape_text(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.sizes();
  return text.str();
}

bool is_ignored(const std::string& name) {
  return std::find(kIgnored.begin(), kIgnored.end(), name) != kIgnored.end();
}

/// What does not fit, in the three kinds that a person tells apart.
struct Mismatches {
  std::vector<std::string> missing;
  std::vector<std::string> unexpected;
  std::vector<std::string> misshaped;

  void throw_if_any(const std::string& source) const {
    if (missing.empty() && unexpected.empty() && misshaped.empty()) return;
    std::string message = "checkpoint '" + source + "' does not fit the CLIP that its shapes describe:";
    const auto add = [&](const char* what, const std::vector<std::string>& names) {
      if (!names.empty()) message += "\n  " + std::to_string(names.size()) + " " + what + ": " + join_capped(names);
    };
    add("missing", missing);
    add("unexpected", unexpected);
    add("of the wrong shape or type", misshaped);
    throw CheckpointError(message + "\n  (hint: expected the key names of OpenAI's CLIP)");
  }
};

Mismatches compare(const io::StateDict& expected, const io::StateDict& found) {
  Mismatches mismatches;
  for (const auto& [name, parameter] : expected) {
    const auto match = found.find(name);
    if (match == found.end()) {
      mismatches.missing.push_back(name);
    } else if (match->second.sizes() != parameter.sizes()) {
      mismatches.misshaped.push_back(name + " is " + shape_text(match->second) + ", expected " + shape_text(parameter));
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

}  // namespace

Clip load_clip(const io::StateDict& found, const std::string& source) {
  Clip clip(read_architecture(found, source));
  const io::StateDict parameters = state_dict(clip);
  compare(parameters, found).throw_if_any(source);
  const at::NoGradGuard no_grad;
  for (const auto& [name, parameter] : parameters) {
    parameter.set_data(found.at(name).to(at::kFloat, /*non_blocking=*/false, /*copy=*/true));
  }
  return clip;
}

io::StateDict state_dict(const Clip& clip) {
  io::StateDict parameters;
  for (const auto& item : clip->named_parameters()) parameters[item.key()] = item.value();
  return parameters;
}

}  // namespace clip_lora::model
