#include "clip_lora/io/checkpoint_files.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <set>
#include <string_view>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/mapped_file.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "file_kind.hpp"

namespace clip_lora::io {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::array kDocuments = {"config.json", "preprocessor_config.json", "open_clip_config.json"};
constexpr int kDeepestNesting = 4;  // of state_dict or model in each other

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool is_folder(const fs::path& path) {
  std::error_code ignored;
  return fs::is_directory(path, ignored);
}

/// The file of weights that a folder is read for.
fs::path weights_in(const fs::path& folder) {
  for (const char* name : kWeightsFiles) {
    if (is_there(folder / name)) return folder / name;
  }
  throw CheckpointError("'" + folder.string() + "' has no weights: expected one of " +
                        join_capped({kWeightsFiles.begin(), kWeightsFiles.end()}) + " in the folder");
}

// ---- Sharded safetensors ----

/// Which shard each tensor is in, by the index's `weight_map`.
std::map<std::string, std::string> read_weight_map(const fs::path& path) {
  const std::string source = "index '" + path.string() + "': ";
  const json index = read_json_object(path, source);
  if (!index.contains("weight_map") || !index["weight_map"].is_object()) {
    throw CheckpointError(
        source + "it has no object 'weight_map' that says where each tensor is (hint: of a folder with a " +
        "configuration, name the folder)");
  }
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : index["weight_map"].items()) {
    const std::string name = shard.is_string() ? shard.get<std::string>() : "";
    // A path could lead anywhere on the machine.
    const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                       name.find('\\') == std::string::npos && name.find('\0') == std::string::npos;
    if (!plain) {
      throw CheckpointError(source + "tensor '" + tensor + "' is in " + brief(shard) +
                            ", expected the name of a file beside the index");
    }
    shards[tensor] = name;
  }
  if (shards.empty()) throw CheckpointError(source + "its weight_map is empty");
  return shards;
}

void read_shards(const fs::path& index, CheckpointFiles& files) {
  const auto weight_map = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : weight_map) shards.insert(shard);
  std::vector<std::string> problems;
  for (const auto& shard : shards) {
    const fs::path path = index.parent_path() / shard;
    if (!is_there(path)) {
      throw CheckpointError("index '" + index.string() + "': its shard '" + shard +
                            "' is not beside it (hint: download it too)");
    }
    Safetensors part = read_safetensors(path);
    files.metadata.merge(part.metadata);
    for (auto& [name, tensor] : part.tensors) {
      const auto listed = weight_map.find(name);
      if (listed == weight_map.end() || listed->second != shard) {
        problems.push_back(name + " is in " + shard + ", which the index does not say");
      }
      files.tensors.emplace(name, std::move(tensor));
    }
  }
  for (const auto& [name, shard] : weight_map) {
    if (!files.tensors.contains(name))
      problems.push_back(name + " is not in " + shard + ", where the index says it is");
  }
  if (!problems.empty()) {
    throw CheckpointError("index '" + index.string() + "' and its shards disagree: " + join_capped(problems));
  }
}

// ---- PyTorch archives ----

/// The dictionary that holds the tensors: the file's, or the one under `state_dict` or `model`.
PickleDict innermost_state_dict(const PickleValue& root, const std::string& source) {
  if (!root.isGenericDict()) {
    throw CheckpointError(source + "it holds a value of kind " + root.tagKind() +
                          ", expected a dictionary of tensors");
  }
  PickleDict dict = root.toGenericDict();
  for (int depth = 0; depth < kDeepestNesting; ++depth) {
    bool nested = false;
    for (const char* key : {"state_dict", "model"}) {
      const auto found = nested ? dict.end() : dict.find(std::string(key));
      if (found == dict.end() || !found->value().isGenericDict()) continue;
      dict = PickleDict(found->value().toGenericDict());
      nested = true;
    }
    if (!nested) break;
  }
  return dict;
}

StateDict plain_state_dict(const PickleValue& root, const std::string& source) {
  StateDict tensors;
  std::vector<std::string> others;
  for (const auto& entry : innermost_state_dict(root, source)) {
    const std::string name = entry.key().isString() ? entry.key().toStringRef() : "a key that is no text";
    if (!entry.value().isTensor()) {
      others.push_back(name);
    } else if (!entry.key().isString()) {
      throw CheckpointError(source + "it holds a tensor under " + name);
    } else if (!tensors.emplace(name, entry.value().toTensor()).second) {
      throw CheckpointError(source + "tensor '" + name + "' is there twice");
    }
  }
  if (tensors.empty()) {
    throw CheckpointError(
        source + "it holds no tensors by name" +
        (others.empty() ? ", but an empty dictionary" : "; what it holds is " + join_capped(others)) +
        " (hint: expected is a state dict, or one under 'state_dict' or 'model')");
  }
  return tensors;
}

void read_archive(const fs::path& path, CheckpointFiles& files) {
  const std::string source = "PyTorch archive '" + path.string() + "': ";
  TorchArchive archive = read_torch_archive(path);
  files.container = archive.is_torchscript ? Container::kTorchScript : Container::kTorchZip;
  files.torchscript_code = std::move(archive.code);
  if (!archive.is_torchscript) {
    files.tensors = plain_state_dict(archive.root, source);
    return;
  }
  if (!archive.root.isGenericDict()) throw CheckpointError(source + "it holds no TorchScript module");
  files.tensors = nested_tensors(archive.root.toGenericDict(), source);
}

// ---- All ----

/// Takes away the `module.` that torch.nn.DataParallel puts before every name.
void strip_module(StateDict& tensors) {
  constexpr std::string_view kPrefix = "module.";
  const auto has_prefix = [&](const auto& entry) { return entry.first.starts_with(kPrefix); };
  if (tensors.empty() || !std::all_of(tensors.begin(), tensors.end(), has_prefix)) return;
  StateDict stripped;
  for (const auto& [name, tensor] : tensors) stripped[name.substr(kPrefix.size())] = tensor;
  tensors = std::move(stripped);
}

void read_weights(const fs::path& path, CheckpointFiles& files) {
  const auto file = std::make_unique<MappedFile>(path);
  switch (kind_of(*file)) {
    case FileKind::kSafetensors: {
      Safetensors content = read_safetensors(path);
      files.container = Container::kSafetensors;
      files.tensors = std::move(content.tensors);
      files.metadata = std::move(content.metadata);
      break;
    }
    case FileKind::kJson:
      files.container = Container::kShardedSafetensors;
      read_shards(path, files);
      break;
    case FileKind::kZip:
      read_archive(path, files);
      break;
    case FileKind::kOther:
      throw CheckpointError("'" + path.string() + "' is no checkpoint: it looks like " + looks_like(*file));
  }
  strip_module(files.tensors);
}

}  // namespace

std::string to_string(Container container) {
  switch (container) {
    case Container::kSafetensors:
      return "safetensors";
    case Container::kShardedSafetensors:
      return "sharded safetensors";
    case Container::kTorchZip:
      return "PyTorch zip pickle";
    case Container::kTorchScript:
      return "TorchScript archive";
  }
  return "";
}

bool holds_checkpoint(const fs::path& folder) {
  return std::any_of(kWeightsFiles.begin(), kWeightsFiles.end(),
                     [&](const char* name) { return is_there(folder / name); });
}

CheckpointFiles read_checkpoint_files(const fs::path& path) {
  if (!is_there(path)) throw CheckpointError("'" + path.string() + "' does not exist");
  CheckpointFiles files;
  files.path = path;
  const fs::path weights = is_folder(path) ? weights_in(path) : path;
  read_weights(weights, files);
  for (const char* name : kDocuments) {
    const fs::path document = weights.parent_path() / name;
    if (is_there(document))
      files.documents[name] = read_json_object(document, "'" + document.string() + "': ");
  }
  return files;
}

}  // namespace clip_lora::io
