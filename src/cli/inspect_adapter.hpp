#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// One A and B of an adapter file.
struct UpdateSummary {
  std::string block;       ///< the name less the projection, e.g. "visual.transformer.resblocks.0.attn"
  std::string projection;  ///< e.g. "q_proj"
  std::int64_t rank = 0;
  std::int64_t parameters = 0;
  bool non_zero = false;  ///< B ≠ 0: it changes something
};

/// An adapter as its file tells it, without a model at hand.
struct AdapterSummary {
  std::string format;               ///< see lora::AdapterFormat
  nlohmann::ordered_json settings;  ///< rank, alpha and placement in the format's own words
  std::vector<UpdateSummary> updates;
  std::vector<std::string> dtypes;
  nlohmann::ordered_json context;  ///< lora::AdapterContext's fields; null if the file has none
};

/// The adapter in `path`, or nothing if that is none. Throws CheckpointError if it is broken.
std::optional<AdapterSummary> read_adapter_summary(const std::filesystem::path& path);

}  // namespace clip_lora::cli
