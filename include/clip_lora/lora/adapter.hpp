#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/options.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::lora {

enum class Tower { kText, kVision };

class LoraAdapter;

std::string to_string(Tower tower);  ///< "text", "vision"

/// A block that an adapter changes.
struct Place {
  Tower tower;
  std::int64_t index;  ///< in its tower

  auto operator<=>(const Place&) const = default;
};

model::Transformer& tower_of(model::Clip& clip, Tower tower);

/// What a method attaches to one model: tensors of which some are trained, and what the model's weights
/// become by them.
class Adapter {
 public:
  virtual ~Adapter() = default;

  /// Its name among methods().
  virtual const std::string& method() const = 0;
  /// Adapted blocks, text tower first, ascending.
  virtual const std::vector<Place>& places() const = 0;
  /// What is trained, always in the same order: float32 on the model's device, with gradients.
  virtual std::vector<torch::Tensor> parameters() const = 0;
  /// What is saved, by name; shared, not copied.
  virtual io::StateDict state_dict() const = 0;

  /// The weights that the block places()[place] has with the adapter in evaluation, of `frozen`'s types.
  /// `scale` is a factor on what the adapter changes: 0 changes nothing. Differentiable in parameters().
  virtual model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                                      double scale) const = 0;

  /// Puts the tensors into the model's blocks, which compute with them then, unmerged, as
  /// engine::TrainingStep's explicit passes do. False: the blocks have no place for such tensors, and
  /// training is left to autograd through adapted().
  virtual bool attach(model::Clip& clip) const = 0;

  /// The options that a fresh adapter like this is made by, as far as options can say it.
  virtual AdapterOptions options() const = 0;
  /// What has to agree with a run's flags, by flag, in the command line's words.
  virtual std::map<std::string, std::string> settings() const = 0;
  /// What is drawn in training from the next attach() on, such as dropout, is as `options` say.
  virtual void set_training_options(const AdapterOptions& options) = 0;
  /// Itself where it is low-rank updates of attention, which the formats of other programs hold; else null.
  virtual const LoraAdapter* as_lora() const { return nullptr; }

  std::int64_t parameter_count() const;
  /// Whether blocks of this tower are adapted.
  bool adapts(Tower tower) const;
};

/// Takes every adapter out of the model's blocks.
void detach(model::Clip& clip);

/// While it lives, `clip` computes with the adapted weights and nothing attached; then the old weights, bit
/// for bit, and what was attached come back, as they do if merging throws.
class MergedScope {
 public:
  /// `scale`: see Adapter::adapted.
  MergedScope(model::Clip clip, const Adapter& adapter, double scale = 1.0);
  ~MergedScope();
  MergedScope(const MergedScope&) = delete;
  MergedScope& operator=(const MergedScope&) = delete;

 private:
  struct Saved {
    model::ResidualAttentionBlockImpl* block;
    std::vector<std::pair<torch::Tensor, torch::Tensor>> weights;  // the block's own, and their values before
    model::BlockAdapters adapters;
  };

  void merge(const Adapter& adapter, std::size_t place, double scale);
  void give_back();

  model::Clip clip_;
  std::vector<Saved> saved_;
};

}  // namespace clip_lora::lora
