#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/lora/options.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::lora {

/// The A's and B's of one adapted block.
struct AdaptedBlock {
  Tower tower;
  std::int64_t index;       ///< in its tower
  ops::AttentionLora lora;  ///< shared with the model's block while attached
};

/// A set of low-rank updates of attention's projections: CLIP-LoRA (Zanella & Ben Ayed 2024). Copies share
/// the tensors.
class LoraAdapter final : public Adapter {
 public:
  /// A fresh adapter on the model's device, not yet attached: A ~ U(−1/√in, 1/√in), B = 0, float32, with
  /// gradients. Throws ConfigError for a rank above a width, or if no block is adapted.
  LoraAdapter(const model::Clip& clip, const LoraOptions& options);
  /// An adapter of given updates, e.g. a file's: any blocks (in the order of blocks()), projections, ranks
  /// and scalings, float32 on the model's device. Rank, alpha and dropout are `options`'; encoder,
  /// projections and position are read off the blocks. `options.position` is kept if it places them so, and a
  /// placement without a name is called kAll.
  LoraAdapter(const model::Clip& clip, const LoraOptions& options, std::vector<AdaptedBlock> blocks);

  /// How it was made. Of an adapter of given updates it says only what they have in common: see summarise().
  const LoraOptions& lora_options() const { return options_; }
  /// Adapted blocks, text tower first, ascending.
  const std::vector<AdaptedBlock>& blocks() const { return blocks_; }
  /// Whether the adapted blocks of every adapted tower are those that `position` names.
  bool is_at(Position position) const;
  /// The same with `factor`, above 0, on what it changes: alpha is that much larger. Shares the tensors.
  LoraAdapter scaled(double factor) const;

  const std::string& method() const override;
  const std::vector<Place>& places() const override { return places_; }
  /// Every A and B, block by block, in the order q, k, v, o, A before B.
  std::vector<torch::Tensor> parameters() const override;
  /// Every A and B by name: `visual.transformer.resblocks.0.attn.q_proj.w_lora_A` and so on.
  io::StateDict state_dict() const override;
  model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                              double scale) const override;
  bool attach(model::Clip& clip) const override;
  AdapterOptions options() const override;
  std::map<std::string, std::string> settings() const override;
  void set_training_options(const AdapterOptions& options) override;
  const LoraAdapter* as_lora() const override { return this; }

 private:
  void set_places();

  LoraOptions options_;
  std::vector<AdaptedBlock> blocks_;
  std::vector<Place> places_;
  std::int64_t text_depth_;  ///< blocks of the model's towers
  std::int64_t vision_depth_;
};

}  // namespace clip_lora::lora
