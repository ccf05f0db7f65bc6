#pragma once

#include <string>

#include "clip_lora/cli/load_model.hpp"

namespace clip_lora::cli {

class OptionTable;

/// Everything that `clip_lora export` can be told.
struct ExportOptions {
  ModelOptions model;
  std::string adapter;         ///< file or folder in any format; empty: the model as it is
  std::string to;              ///< authors, peft, safetensors, hf, openai, openclip or onnx
  std::string out;             ///< the file or folder to write
  std::string dtype = "fp32";  ///< of the stored weights: fp32, fp16 or bf16
  std::string class_names;     ///< file of class names, for onnx; empty: the adapter's
  bool onnx_towers = false;    ///< with onnx: both towers too
  bool force = false;          ///< replace what is there

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
};

/// Binds every field to its flag and its JSON key.
void bind(OptionTable& table, ExportOptions& options);

/// Writes what `options` say, whole or not at all, and prints a line about it. `authors`, `peft` and
/// `safetensors` are adapters; `hf`, `openai` and `openclip` whole CLIPs with the adapter merged in, which
/// transformers, OpenAI's clip and open_clip load as their own; `onnx` is a classifier. Throws ConfigError if
/// `out` is there and may not be replaced, cannot be written, or if the format cannot say what the model is;
/// CheckpointError for a checkpoint or adapter that cannot be read or do not fit each other.
void export_model(const ExportOptions& options);

}  // namespace clip_lora::cli
