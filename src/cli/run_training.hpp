#pragma once

#include <cstdint>
#include <functional>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#include "clip_lora/train/trainer.hpp"
#include "run_data.hpp"

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

/// Trains `adapter` on data.train with a progress bar, and prints what was done. `validation_accuracy`:
/// percent, of the model as it stands; called as --eval_every says. Throws as train::train.
TrainingReport train_adapter(const RunOptions& options, const RunData& data, const model::LoadedClip& model,
                             const lora::Adapter& adapter, const text::Tokenizer& tokenizer,
                             const text::ClassPrompts& prompts,
                             const std::function<double()>& validation_accuracy);

}  // namespace clip_lora::cli
