#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <vector>

#include "clip_lora/cli/export.hpp"

namespace clip_lora::cli {

/// `model.onnx`, `model.onnx.json`, and with --onnx_towers `model_image.onnx` and `model_text.onnx`.
std::vector<std::filesystem::path> onnx_files(const ExportOptions& options);

/// Writes the classifier of `model` as it stands (an adapter merged), over the classes and templates of
/// `context` or the classes of --class_names, the same facts as `<out>.json`, and with --onnx_towers both
/// towers: all of them or none. Throws ConfigError where nothing names the classes.
void export_onnx(const ExportOptions& options, const Model& model, lora::AdapterContext context,
                 at::ScalarType dtype);

}  // namespace clip_lora::cli
