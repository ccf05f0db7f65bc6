#pragma once

#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::io {

/// What a checkpoint's tensors are stored in; told by content, never by a file's name.
enum class Container { kSafetensors, kShardedSafetensors, kTorchZip, kTorchScript };

/// "safetensors", "sharded safetensors", "PyTorch zip pickle", "TorchScript archive".
std::string to_string(Container container);

/// A checkpoint as it is stored: its tensors and the documents that came with them. No knowledge of any
/// model.
struct CheckpointFiles {
  std::filesystem::path path;  ///< the file or folder that was asked for; names it in errors
  Container container = Container::kSafetensors;
  /// Names as stored, less a nesting under `state_dict` or `model` and a `module.` before every name. Any
  /// dtype, CPU; views of memory-mapped pages wherever the format allows.
  StateDict tensors;
  std::map<std::string, std::string> metadata;  ///< a safetensors header's `__metadata__`
  /// Those of config.json, preprocessor_config.json and open_clip_config.json that lie in the folder, or
  /// beside the file.
  std::map<std::string, nlohmann::json> documents;
  /// The concatenated `code/…/*.py` of a TorchScript archive, which says which operations the model has; else
  /// empty.
  std::string torchscript_code;
};

/// What the weights in a folder may be called, the first that is there being taken.
inline constexpr std::array kWeightsFiles = {
    "model.safetensors",           "model.safetensors.index.json",
    "open_clip_model.safetensors", "open_clip_model.safetensors.index.json",
    "open_clip_pytorch_model.bin", "pytorch_model.bin"};

/// Whether `folder` has weights.
bool holds_checkpoint(const std::filesystem::path& folder);

/// Reads a checkpoint file, or the folder of one: the first of kWeightsFiles. A path to an `*.index.json`
/// reads its shards. Throws CheckpointError for a path that is missing, a folder without any of them (all are
/// named), a file that is of no known kind (what it looks like is named: the older tar format of torch.save,
/// HTML, a Git LFS pointer, …) or broken, a document that is not a JSON object, a shard that is missing, and
/// a tensor that the index and the shards disagree on.
CheckpointFiles read_checkpoint_files(const std::filesystem::path& path);

}  // namespace clip_lora::io
