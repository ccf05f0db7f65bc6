#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/train/metrics.hpp"
#include "clip_lora/train/retrieval.hpp"

namespace clip_lora::cli {

/// What one --eval_scale has given.
struct ScaledRecall {
  double scale = 1.0;
  train::RetrievalMetrics recall;
};

/// How well the test split was recognised; with the protocol retrieval, how well it was found.
struct RunResult {
  std::optional<train::Metrics> zero_shot;  ///< by the untouched model; not computed with eval_only
  train::Metrics adapted;                   ///< with the adapter
  std::optional<train::RetrievalMetrics> untouched_retrieval;  ///< likewise, with the protocol retrieval
  std::vector<ScaledRecall> retrieval;                         ///< with the adapter, by --eval_scale
};

/// Trains and evaluates, or with eval_only reloads and evaluates, as `options` say; prints what happens to
/// the standard output and progress to the standard error stream; saves adapter, config.json and results.json
/// if asked to. Throws ConfigError, DataError, CheckpointError, or Interrupted with a word on what was kept.
RunResult run(RunOptions options);

/// Who wants to know how a run gets on.
struct RunObserver {
  std::function<void(std::int64_t iteration)>
      on_iteration;                     ///< after each of training; may throw to end the run
  std::function<void()> before_saving;  ///< before files of the run appear; may throw to prevent that
};

/// Runs one after the other, which print nothing. What the next one has in common with the last is kept: the
/// model, the data set, decoded test images, the zero-shot result. The results are those of single runs, bit
/// for bit.
class RunSession {
 public:
  RunSession();
  ~RunSession();
  RunSession(const RunSession&) = delete;
  RunSession& operator=(const RunSession&) = delete;

  /// As cli::run.
  RunResult run(RunOptions options, const RunObserver& observer);

  class Kept;
  Kept& kept() { return *kept_; }

 private:
  std::unique_ptr<Kept> kept_;
};

}  // namespace clip_lora::cli
