#include "inspect_adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using nlohmann::ordered_json;

/// How the formats call A and B after the projection's name.
constexpr std::pair<const char*, const char*> kEndings[] = {{".w_lora_A", ".w_lora_B"},
                                                            {".lora_A.weight", ".lora_B.weight"}};

constexpr const char* kContextKey = "clip_lora";  // in the authors' metadata

ordered_json as_json(const io::PickleValue& value) {
  if (value.isInt()) return value.toInt();
  if (value.isDouble()) return value.toDouble();
  if (value.isBool()) return value.toBool();
  if (value.isString()) return value.toStringRef();
  if (value.isList() || value.isTuple()) {
    ordered_json array = ordered_json::array();
    const auto elements =
        value.isList() ? value.toListRef() : c10::ArrayRef<io::PickleValue>(value.toTupleRef().elements());
    for (const auto& element : elements) array.push_back(as_json(element));
    return array;
  }
  return value.tagKind();
}

/// `text` as JSON. `source` begins the CheckpointError, also for a deep nest, because printing recurses.
ordered_json parsed(const std::string& text, const std::string& source) {
  constexpr int kDeepest = 64;
  const auto refuse_deep_nests = [&](int depth, ordered_json::parse_event_t, const ordered_json&) {
    if (depth > kDeepest) throw CheckpointError(source + ": its JSON is nested too deeply");
    return true;
  };
  try {
    return ordered_json::parse(text, refuse_deep_nests);
  } catch (const json::exception& error) {
    throw CheckpointError(source + ": " + error.what());
  }
}

/// Null if there is no such file.
ordered_json read_json(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return nullptr;
  return parsed({std::istreambuf_iterator<char>(file), {}}, "file '" + path.string() + "'");
}

std::vector<UpdateSummary> updates_of(const io::StateDict& tensors) {
  std::vector<UpdateSummary> updates;
  for (const auto& [name, a] : tensors) {
    for (const auto& [ending_a, ending_b] : kEndings) {
      if (!name.ends_with(ending_a)) continue;
      const std::string base = name.substr(0, name.size() - std::string_view(ending_a).size());
      const auto b = tensors.find(base + ending_b);
      if (b == tensors.end() || a.dim() != 2)
        continue;  // what it lacks is told by whether it fits a checkpoint
      const auto dot = base.rfind('.');
      updates.push_back({.block = base.substr(0, dot),
                         .projection = base.substr(dot + 1),
                         .rank = a.size(0),
                         .parameters = a.numel() + b->second.numel(),
                         .non_zero = b->second.ne(0).any().item<bool>()});
    }
  }
  // layer_2 before layer_10.
  std::stable_sort(updates.begin(), updates.end(), [](const UpdateSummary& left, const UpdateSummary& right) {
    return ::strverscmp(left.block.c_str(), right.block.c_str()) < 0;
  });
  return updates;
}

std::vector<std::string> dtypes_of(const io::StateDict& tensors) {
  std::set<std::string> names;
  for (const auto& [name, tensor] : tensors) names.insert(c10::getDtypeNames(tensor.scalar_type()).first);
  return {names.begin(), names.end()};
}

AdapterSummary summary(const char* format, ordered_json settings, const io::StateDict& tensors,
                       ordered_json context) {
  return {format, std::move(settings), updates_of(tensors), dtypes_of(tensors), std::move(context)};
}

io::StateDict peft_tensors(const fs::path& folder) {
  const fs::path weights = folder / "adapter_model.safetensors";
  if (fs::exists(weights) || !fs::exists(folder / "adapter_model.bin"))
    return io::read_safetensors(weights).tensors;
  const fs::path pickle = folder / "adapter_model.bin";
  const io::PickleValue root = io::read_torch_archive(pickle).root;
  if (!root.isGenericDict()) return {};
  return io::nested_tensors(root.toGenericDict(), "adapter '" + pickle.string() + "': ");
}

AdapterSummary read_peft(const fs::path& folder) {
  const ordered_json configuration = read_json(folder / "adapter_config.json");
  if (!configuration.is_object()) {
    throw CheckpointError("'" + (folder / "adapter_config.json").string() +
                          "': expected a JSON object, got " + configuration.type_name());
  }
  ordered_json settings;
  for (const char* key : {"peft_type", "r", "lora_alpha", "use_rslora", "target_modules",
                          "layers_to_transform", "rank_pattern", "alpha_pattern"}) {
    if (configuration.contains(key)) settings[key] = configuration[key];
  }
  return summary("peft", settings, peft_tensors(folder), read_json(folder / "clip_lora.json"));
}

std::optional<AdapterSummary> read_authors(const fs::path& path) {
  const io::PickleValue root = io::read_torch_archive(path).root;
  if (!root.isGenericDict()) return std::nullopt;
  const io::PickleDict dictionary = root.toGenericDict();
  if (!dictionary.contains("weights") || !dictionary.contains("metadata")) return std::nullopt;
  const auto weights = dictionary.at("weights");
  const auto metadata = dictionary.at("metadata");
  if (!weights.isGenericDict() || !metadata.isGenericDict()) return std::nullopt;
  const io::StateDict tensors =
      io::nested_tensors(weights.toGenericDict(), "adapter '" + path.string() + "': ");
  ordered_json settings;
  for (const auto& entry : metadata.toGenericDict()) {
    if (entry.key().isString()) settings[entry.key().toStringRef()] = as_json(entry.value());
  }
  ordered_json context;  // a JSON text among the settings
  if (const auto found = settings.find(kContextKey); found != settings.end()) {
    const std::string source = "adapter '" + path.string() + "': metadata.clip_lora";
    if (found->is_string()) context = parsed(found->get<std::string>(), source);
    settings.erase(kContextKey);
  }
  return summary("authors", settings, tensors, context);
}

std::optional<AdapterSummary> read_ours(const fs::path& path) {
  const io::Safetensors file = io::read_safetensors(path);
  const auto value = [&](const char* key) {
    const auto found = file.metadata.find(key);
    return found == file.metadata.end() ? std::string() : found->second;
  };
  if (value("format") != "clip_lora adapter") return std::nullopt;
  const auto document = [&](const char* key) {
    return parsed(value(key), "adapter '" + path.string() + "': metadata " + key);
  };
  return summary("safetensors", document("options"), file.tensors, document("context"));
}

enum class Container { kZip, kSafetensors, kOther };

Container container_of(const fs::path& path) {
  char bytes[9] = {};
  std::ifstream(path, std::ios::binary).read(bytes, sizeof bytes);
  if (bytes[0] == 'P' && bytes[1] == 'K') return Container::kZip;
  return bytes[8] == '{' ? Container::kSafetensors : Container::kOther;  // behind the header's length
}

}  // namespace

std::optional<AdapterSummary> read_adapter_summary(const fs::path& path) {
  if (fs::is_directory(path)) {
    if (fs::exists(path / "adapter_config.json")) return read_peft(path);
    return std::nullopt;
  }
  switch (container_of(path)) {
    case Container::kZip:
      return read_authors(path);
    case Container::kSafetensors:
      return read_ours(path);
    case Container::kOther:
      break;
  }
  return std::nullopt;
}

}  // namespace clip_lora::cli
