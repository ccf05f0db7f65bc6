#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::io {

struct Safetensors {
  StateDict tensors;
  std::map<std::string, std::string> metadata;  ///< the header's `__metadata__`
};

/// Reads a safetensors file. The tensors view the file's memory-mapped pages (copy on write), which live as long as any
/// of them. dtypes: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. CPU.
/// Throws CheckpointError for a file that is missing, truncated or malformed, naming the tensor and what was expected.
/// Format: https://huggingface.co/docs/safetensors (8 bytes of header length, JSON header, tensors).
Safetensors read_safetensors(const std::filesystem::path& path);

/// Writes `tensors` (any device, any strides) atomically. Throws ConfigError if the path cannot be written.
void write_safetensors(const std::filesystem::path& path, const StateDict& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace clip_lora::io
