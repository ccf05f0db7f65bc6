#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::cli {

class OptionTable;

/// The CLIP of those who name none.
inline constexpr const char* kDefaultBackbone = "ViT-B/16";

/// Which CLIP.
struct ModelOptions {
  std::string backbone;  ///< its name, which must agree with the checkpoint; empty: what `checkpoint` holds,
                         ///< without one what an adapter is for (predict, embed), else kDefaultBackbone
  std::string checkpoint;  ///< a file or folder; empty: found by the backbone's name
  std::string activation;  ///< of the MLPs: quick_gelu or gelu; empty: what the checkpoint says

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
};

/// Binds --backbone, --checkpoint and --activation.
void bind(OptionTable& table, ModelOptions& options);

/// A CLIP and what results say about it.
struct Model {
  model::LoadedClip loaded;
  std::filesystem::path path;  ///< of its checkpoint
  std::string backbone;        ///< its published name, or how its file or repository is called
  std::string fingerprint;     ///< see model::fingerprint
};

/// Finds and reads the checkpoint and prints its warnings. Throws ConfigError if it is not the backbone that
/// was asked for, and as find_checkpoint, io::read_checkpoint_files and model::load_clip.
Model load_model(const ModelOptions& options);

/// The published name of the checkpoint's architecture, or its file's stem or folder's name.
std::string backbone_name(const std::filesystem::path& checkpoint,
                          const model::ClipArchitecture& architecture);

/// Whether its tokens can be those of CLIP's tokenizer, the one there is here.
bool has_clip_vocabulary(const Model& model);

/// Throws CheckpointError if not, or if the checkpoint is a folder with files of another tokenizer: prompts
/// would be other words to it.
void require_clip_vocabulary(const Model& model);

/// What an adapter of `model` is for: `class_names` of the data set `dataset`, in prompts of `templates`.
lora::AdapterContext adapter_context(const Model& model, const std::string& dataset,
                                     const std::vector<std::string>& class_names,
                                     const std::vector<std::string>& templates);

/// Has `model` prepare images as the adapter of the file `source` was trained to see them, as far as its
/// context says so. Throws CheckpointError naming `source` if what it says cannot be read, or makes images of
/// another size than the model takes.
void use_preprocessing(Model& model, const lora::LoadedAdapter& adapter, const std::filesystem::path& source);

}  // namespace clip_lora::cli
