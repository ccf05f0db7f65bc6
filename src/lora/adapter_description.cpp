#include "clip_lora/lora/adapter_description.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string_view>
#include <utility>

#include "stored_adapter.hpp"

namespace clip_lora::lora {
namespace {

/// How the formats call A and B after the projection's name.
constexpr std::pair<const char*, const char*> kEndings[] = {{".w_lora_A", ".w_lora_B"},
                                                            {".lora_A.weight", ".lora_B.weight"}};

/// Of what is stored in pairs; what a file lacks is told by whether it fits a checkpoint.
std::vector<UpdateDescription> updates_of(const io::StateDict& tensors) {
  std::vector<UpdateDescription> updates;
  for (const auto& [name, a] : tensors) {
    for (const auto& [ending_a, ending_b] : kEndings) {
      if (!name.ends_with(ending_a)) continue;
      const std::string base = name.substr(0, name.size() - std::string_view(ending_a).size());
      const auto b = tensors.find(base + ending_b);
      if (b == tensors.end() || a.dim() != 2) continue;
      const auto dot = base.rfind('.');
      updates.push_back({.block = base.substr(0, dot),
                         .projection = base.substr(dot + 1),
                         .rank = a.size(0),
                         .parameters = a.numel() + b->second.numel(),
                         .non_zero = b->second.ne(0).any().item<bool>()});
    }
  }
  std::stable_sort(updates.begin(), updates.end(),
                   [](const UpdateDescription& left, const UpdateDescription& right) {
                     return ::strverscmp(left.block.c_str(), right.block.c_str()) < 0;
                   });
  return updates;
}

std::vector<std::string> dtypes_of(const io::StateDict& tensors) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) names.insert(c10::getDtypeNames(tensor.scalar_type()).first);
  return {names.begin(), names.end()};
}

}  // namespace

AdapterDescription description_of(AdapterFormat format, nlohmann::ordered_json settings,
                                  const io::StateDict& tensors, nlohmann::ordered_json context) {
  AdapterDescription description;
  description.format = format;
  description.settings = std::move(settings);
  for (const auto& [name, tensor] : tensors) description.parameters += tensor.numel();
  description.updates = updates_of(tensors);
  description.dtypes = dtypes_of(tensors);
  description.context = std::move(context);
  return description;
}

std::optional<AdapterDescription> describe_adapter_file(const std::filesystem::path& path) {
  const auto format = format_of(path);
  if (!format) return std::nullopt;
  const std::string source = source_of(path);
  switch (*format) {
    case AdapterFormat::kAuthors:
      return describe_authors(path, source);
    case AdapterFormat::kPeft:
      return describe_peft(path, source);
    case AdapterFormat::kRAdapterRelease:
      return describe_r_adapter_release(path, source);
    case AdapterFormat::kSafetensors:
      break;
  }
  return describe_safetensors_adapter(path, source);
}

}  // namespace clip_lora::lora
