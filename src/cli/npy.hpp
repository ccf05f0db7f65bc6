#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

namespace clip_lora::cli {

/// Writes a float32 tensor on the CPU as NumPy's .npy, version 1.0, atomically. Throws ConfigError if the
/// path cannot be written. Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
void write_npy(const std::filesystem::path& path, const at::Tensor& tensor);

}  // namespace clip_lora::cli
