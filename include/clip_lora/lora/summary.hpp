#pragma once

#include <map>
#include <optional>
#include <string>

#include "clip_lora/lora/lora_adapter.hpp"

namespace clip_lora::lora {

/// What the updates of an adapter have in common, in the command line's words; where they differ, how.
struct AdapterSummary {
  std::string rank;      ///< "2", or "2 to 8"
  std::string alpha;     ///< of alpha / √rank, whatever it was saved as: "1", or "0.5 to 4"
  std::string encoder;   ///< "both", "text" or "vision"
  std::string params;    ///< "q k v", or "q k v (not all in each block)"
  std::string position;  ///< "all" and so on, or "blocks 0 5 of text"
  /// The options that make an adapter with just these blocks, projections, ranks and scalings, alpha as
  /// above; nothing if none do.
  std::optional<LoraOptions> options;
};

AdapterSummary summarise(const LoraAdapter& adapter);
/// Of a fresh adapter made of `options`, for any model.
AdapterSummary summarise(const LoraOptions& options);

/// The summary as Adapter::settings().
std::map<std::string, std::string> settings_of(const AdapterSummary& summary);

}  // namespace clip_lora::lora
