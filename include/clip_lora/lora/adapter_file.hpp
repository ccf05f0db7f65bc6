#pragma once

#include <filesystem>

#include "clip_lora/lora/adapter.hpp"

namespace clip_lora::lora {

/// Saves A's and B's in the file format of the CLIP-LoRA release: a PyTorch zip pickle of `{"weights":
/// {"layer_<i>": {"q_proj": {"w_lora_A", "w_lora_B"}, …, "proj"}}, "metadata": {r, alpha, encoder, params, position}}`,
/// which `torch.load(weights_only=True)` reads. Atomic. Throws ConfigError if the path cannot be written.
void save_adapter(const std::filesystem::path& path, const Adapter& adapter);

/// Copies the A's and B's of a file in that format into `adapter`. Throws CheckpointError if the file is missing or
/// unreadable, if its rank, alpha, encoder, params or position differ from the adapter's options (all that differ are
/// named), or if tensors are missing, unexpected or wrongly shaped.
void load_adapter(const std::filesystem::path& path, Adapter& adapter);

}  // namespace clip_lora::lora
