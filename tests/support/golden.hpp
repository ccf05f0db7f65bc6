#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "clip_lora/io/safetensors.hpp"
#include "support/test_data.hpp"

namespace clip_lora::testing {

/// A file of numbers that the method's authors' own implementation computed.
inline std::filesystem::path golden_file(const std::string& name) { return test_data() / "golden" / name; }

inline io::StateDict golden_tensors(const std::string& name) {
  return io::read_safetensors(golden_file(name)).tensors;
}

/// The tensors whose names begin with `prefix`, without it.
inline io::StateDict below(const io::StateDict& tensors, const std::string& prefix) {
  io::StateDict result;
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with(prefix)) result[name.substr(prefix.size())] = tensor;
  }
  return result;
}

}  // namespace clip_lora::testing
