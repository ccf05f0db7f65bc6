#pragma once

#include <optional>

#include "clip_lora/cli/run_options.hpp"

namespace clip_lora::cli {

/// Test accuracies in percent.
struct RunResult {
  std::optional<double> zero_shot_accuracy;  ///< of the untouched model; not computed with eval_only
  double accuracy = 0.0;                     ///< with the adapter
};

/// Trains and evaluates, or with eval_only reloads and evaluates, as `options` say; prints what happens to the standard
/// output and progress to the standard error stream; saves adapter, config.json and results.json if asked to.
/// Throws ConfigError, DataError, CheckpointError, or Interrupted with a word on what was kept.
RunResult run(RunOptions options);

}  // namespace clip_lora::cli
