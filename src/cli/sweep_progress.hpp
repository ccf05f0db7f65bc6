#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "clip_lora/cli/console.hpp"
#include "sweep_plan.hpp"

namespace clip_lora::cli {

/// What a sweep says while it runs: one bar for the whole, which counts iterations, and one line for each run
/// that has come to an end.
class SweepProgress {
 public:
  /// `bar`: whether there is to be one.
  SweepProgress(const SweepPlan& plan, bool bar);

  /// A run is at `iteration`.
  void show(const PlannedRun& run, std::int64_t iteration);
  /// Nothing new; keeps the bar moving.
  void show_waiting(const std::string& what);
  /// A run is no longer to be done, by whomever.
  void finish(const PlannedRun& run);
  /// A line on the standard output.
  void say(const std::string& line);

  std::size_t finished() const { return finished_; }  ///< of all(), those included that were done before
  std::size_t all() const { return all_; }

 private:
  std::string count() const;

  std::size_t all_;
  std::size_t finished_;
  std::int64_t iterations_ = 0;  // of the runs that have been finished
  ProgressBar bar_;
};

}  // namespace clip_lora::cli
