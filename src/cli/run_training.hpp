#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "clip_lora/train/trainer.hpp"
#include "run_data.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {

/// What a training was and what became of it.
struct TrainingReport {
  std::int64_t iterations = 0;
  std::int64_t images = 0;       ///< per epoch
  std::int64_t images_seen = 0;  ///< in all
  double loss = 0.0;             ///< of the last iteration
  double validation_seconds = 0.0;
  train::TrainingResult result;
};

/// What a run does on the way.
struct TrainingHooks {
  std::function<double()> validation_accuracy;  ///< percent, of the model as it stands; as --eval_every says
  std::function<void(std::int64_t iteration)> on_iteration;  ///< after each; what it throws ends the training
  std::function<void()> before_saving;                       ///< a checkpoint; likewise
  engine::ProcessGroup* processes = nullptr;                 ///< that train together; null: this one alone
};

/// What data.train is trained with: cross-entropy takes all texts, a group being a class's; a pair takes one
/// of its item's group, drawn anew each time.
struct TrainingTexts {
  text::ClassPrompts groups = {};
  std::vector<std::int64_t> group_of_item = {};  ///< by data.train
  text::Overlong overlong = text::Overlong::kError;
};

/// The prompts of `items`' classes.
TrainingTexts class_texts(text::ClassPrompts prompts, const std::vector<data::Item>& items);

/// A caption of its own for each item, as it stands; one that is too long is cut.
TrainingTexts caption_texts(const std::vector<std::string>& captions);

/// Trains `adapter` on data.train with a progress bar, from the beginning or from files.resumed on, and
/// prints what was done. Throws as train::train.
TrainingReport train_adapter(const RunOptions& options, const RunData& data, const model::LoadedClip& model,
                             const lora::Adapter& adapter, const text::Tokenizer& tokenizer,
                             const TrainingTexts& texts, const TrainingFiles& files,
                             const TrainingHooks& hooks);

}  // namespace clip_lora::cli
