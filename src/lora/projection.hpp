#pragma once

#include <array>
#include <optional>

#include "clip_lora/lora/options.hpp"
#include "clip_lora/ops/attention.hpp"

namespace clip_lora::lora {

/// One of attention's four projections: where its update is kept, and what it is called.
struct Projection {
  std::optional<ops::LowRank> ops::AttentionLora::*update;
  bool Projections::*flag;
  const char* letter;             ///< on the command line
  const char* name;               ///< in files of the release and ours
  const char* hugging_face_name;  ///< in CLIPModel
};

/// In the order of every list and file.
inline constexpr std::array<Projection, 4> kProjections = {{
    {&ops::AttentionLora::q, &Projections::q, "q", "q_proj", "q_proj"},
    {&ops::AttentionLora::k, &Projections::k, "k", "k_proj", "k_proj"},
    {&ops::AttentionLora::v, &Projections::v, "v", "v_proj", "v_proj"},
    {&ops::AttentionLora::o, &Projections::o, "o", "proj", "out_proj"},
}};

/// Calls visit(projection, update) for each updated projection of a block.
template <typename Visit>
void for_each_update(const ops::AttentionLora& lora, const Visit& visit) {
  for (const Projection& projection : kProjections) {
    if (const auto& update = lora.*projection.update) visit(projection, *update);
  }
}

}  // namespace clip_lora::lora
