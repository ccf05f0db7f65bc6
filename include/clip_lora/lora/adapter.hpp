#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/options.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::lora {

enum class Tower { kText, kVision };

std::string to_string(Tower tower);  ///< "text", "vision"

/// The A's and B's of one adapted block.
struct AdaptedBlock {
  Tower tower;
  std::int64_t index;       ///< in its tower
  ops::AttentionLora lora;  ///< shared with the model's block while attached
};

/// A set of low-rank updates for one model. Copies share the tensors.
class Adapter {
 public:
  /// A fresh adapter on the model's device, not yet attached: A ~ U(−1/√in, 1/√in), B = 0, float32, with
  /// gradients. Throws ConfigError for a rank above a width, or if no block is adapted.
  Adapter(const model::Clip& clip, const LoraOptions& options);
  /// An adapter of given updates, e.g. a file's: any blocks (in the order of blocks()), projections, ranks
  /// and scalings, float32 on the model's device. Rank, alpha and dropout are `options`'; encoder,
  /// projections and position are read off the blocks. `options.position` is kept if it places them so, and a
  /// placement without a name is called kAll.
  Adapter(const model::Clip& clip, const LoraOptions& options, std::vector<AdaptedBlock> blocks);

  /// How it was made. Of an adapter of given updates it says only what they have in common: see summarise().
  const LoraOptions& options() const { return options_; }
  /// Adapted blocks, text tower first, ascending.
  const std::vector<AdaptedBlock>& blocks() const { return blocks_; }
  /// Every A and B, block by block, in the order q, k, v, o, A before B.
  std::vector<torch::Tensor> parameters() const;
  /// Every A and B by name: `visual.transformer.resblocks.0.attn.q_proj.w_lora_A` and so on; shared, not
  /// copied.
  io::StateDict state_dict() const;
  std::int64_t parameter_count() const;
  /// Whether the adapted blocks of every adapted tower are those that `position` names.
  bool is_at(Position position) const;

  /// The dropout of every update from the next attach() on.
  void set_dropout(double dropout);

  /// Puts the updates into the model's blocks, unmerged.
  void attach(model::Clip& clip) const;
  /// Takes every update out of the model's blocks.
  static void detach(model::Clip& clip);

 private:
  LoraOptions options_;
  std::vector<AdaptedBlock> blocks_;
  std::int64_t text_depth_;  ///< blocks of the model's towers
  std::int64_t vision_depth_;
};

/// While it lives, `clip` computes with W + γBA in its weights and no separate updates; then the old weights,
/// bit for bit, and the updates come back.
class MergedScope {
 public:
  MergedScope(model::Clip clip, const Adapter& adapter);
  ~MergedScope();
  MergedScope(const MergedScope&) = delete;
  MergedScope& operator=(const MergedScope&) = delete;

 private:
  struct Saved {
    model::AttentionImpl* attention;
    torch::Tensor in_proj_weight;
    torch::Tensor out_proj_weight;
    ops::AttentionLora lora;
  };

  model::Clip clip_;
  std::vector<Saved> saved_;
};

}  // namespace clip_lora::lora
