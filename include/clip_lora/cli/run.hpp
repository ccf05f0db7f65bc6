#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
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

/// How well a data set beside the run's own was recognised, percent.
struct OtherResult {
  std::string dataset;
  std::int64_t classes = 0;
  std::int64_t images = 0;
  std::optional<double> zero_shot_accuracy = {};  ///< of the untouched model; not computed with eval_only
  std::vector<double> accuracies = {};            ///< with the adapter, by --eval_scale
};

/// How well the test split was recognised; with the protocol retrieval, how well it was found.
struct RunResult {
  std::optional<train::Metrics> zero_shot;  ///< by the untouched model; not computed with eval_only
  train::Metrics adapted;                   ///< with the adapter
  std::vector<OtherResult> others;          ///< with the protocols cross_dataset and robustness
  std::optional<train::RetrievalMetrics> untouched_retrieval;  ///< likewise, with the protocol retrieval
  std::vector<ScaledRecall> retrieval;                         ///< with the adapter, by --eval_scale
};

/// Trains and evaluates, or with eval_only reloads and evaluates, as `options` say; prints what happens to
/// the standard output and progress to the standard error stream; saves adapter, config.json and results.json
/// if asked to. Where the environment says so (see engine::read_process_environment), this process is one of
/// several that train together: only the first of them evaluates, prints and saves, and the others return an
/// empty result. Throws ConfigError, DataError, CheckpointError, Error for a process that is lost, or
/// Interrupted with a word on what was kept.
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
