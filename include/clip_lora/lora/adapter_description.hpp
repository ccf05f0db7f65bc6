#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/lora/adapter_file.hpp"

namespace clip_lora::lora {

/// One A and B of an adapter file.
struct UpdateDescription {
  std::string block;       ///< the name less the projection, e.g. "visual.transformer.resblocks.0.attn"
  std::string projection;  ///< e.g. "q_proj"
  std::int64_t rank = 0;
  std::int64_t parameters = 0;
  bool non_zero = false;  ///< B ≠ 0: it changes something
};

/// An adapter as its file tells it, without a model at hand.
struct AdapterDescription {
  AdapterFormat format;
  std::string method = "lora";
  nlohmann::ordered_json settings;         ///< rank, alpha and placement in the format's own words
  std::int64_t parameters = 0;             ///< values in the file's tensors
  std::vector<UpdateDescription> updates;  ///< in natural order of their blocks: layer_2 before layer_10
  std::vector<std::string> dtypes;         ///< of the tensors, by NumPy's names
  nlohmann::ordered_json context;          ///< AdapterContext's fields; null if the file has none
};

/// The adapter in a file or folder, or nothing if that is none. Throws CheckpointError if it is broken.
std::optional<AdapterDescription> describe_adapter_file(const std::filesystem::path& path);

}  // namespace clip_lora::lora
