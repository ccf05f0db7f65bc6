#pragma once

#include <ATen/core/ivalue.h>

#include <filesystem>

namespace clip_lora::io {

/// A nest of dictionaries, lists, strings, numbers and tensors, as Python's `torch.save` and `torch.load` know it.
using PickleValue = c10::IValue;
using PickleDict = c10::impl::GenericDict;

/// An empty dictionary with string keys.
PickleDict new_pickle_dict();

/// Reads a PyTorch zip pickle. Tensors come to the CPU. Throws CheckpointError if the file is missing or is none.
PickleValue read_torch_pickle(const std::filesystem::path& path);

/// Writes a PyTorch zip pickle that `torch.load(weights_only=True)` reads. Atomic. Tensors: CPU, contiguous.
/// Throws ConfigError if the path cannot be written.
void write_torch_pickle(const std::filesystem::path& path, const PickleValue& value);

}  // namespace clip_lora::io
