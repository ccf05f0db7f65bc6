#pragma once

#include <optional>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/train/metrics.hpp"

namespace clip_lora::cli {

/// How well the test split was recognised.
struct RunResult {
  std::optional<train::Metrics> zero_shot;  ///< by the untouched model; not computed with eval_only
  train::Metrics adapted;                   ///< with the adapter
};

/// Trains and evaluates, or with eval_only reloads and evaluates, as `options` say; prints what happens to
/// the standard output and progress to the standard error stream; saves adapter, config.json and results.json
/// if asked to. Throws ConfigError, DataError, CheckpointError, or Interrupted with a word on what was kept.
RunResult run(RunOptions options);

}  // namespace clip_lora::cli
