#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "caption_data.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/run.hpp"
#include "clip_lora/data/evaluation_views.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "other_datasets.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {

/// What runs that follow each other in one process have in common. Each part is that of the run before, and
/// is made anew where the next run needs another.
class RunSession::Kept {
 public:
  /// The model of `options` on the device and in the type that they ask for. Runs take a copy, which shares
  /// the weights, and leave those as they were.
  const Model& model(const RunOptions& options);

  /// That train together; null: this one alone.
  std::shared_ptr<engine::ProcessGroup> processes;

  KeptDataset dataset;
  KeptOtherDatasets other_datasets;
  KeptCaptions captions;

  const text::Tokenizer& tokenizer();

  /// Decoded test images: those of the run before if the lists are the same.
  std::shared_ptr<data::EvaluationViews> test_views(const std::vector<data::Item>& items,
                                                    const image::Preprocessing& preprocessing);

  /// What the untouched model says of a data set's test images.
  struct ZeroShot {
    std::string dataset;
    std::vector<data::Item> items;
    image::Preprocessing preprocessing;
    text::ClassPrompts prompts;
    bool tf32 = false;
    bool deterministic = false;
    train::Predictions predictions;
  };
  /// That of a run before if it is what `wanted` describes; else nullptr.
  const train::Predictions* zero_shot(const ZeroShot& wanted) const;
  /// In place of what was kept of its data set.
  void keep(ZeroShot zero_shot);

 private:
  using ModelKey = std::tuple<std::string, std::string, std::string, std::string, std::string>;

  std::optional<ModelKey> model_key_;
  Model model_;
  std::optional<text::Tokenizer> tokenizer_;
  std::vector<data::Item> viewed_items_;
  image::Preprocessing viewed_preprocessing_;
  std::shared_ptr<data::EvaluationViews> views_;
  std::map<std::string, ZeroShot> zero_shots_;  // by data set
};

}  // namespace clip_lora::cli
