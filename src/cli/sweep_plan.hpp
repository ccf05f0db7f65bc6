#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/cli/run.hpp"
#include "sweep_grid.hpp"

namespace clip_lora::cli {

/// A run of a sweep and its place.
struct PlannedRun {
  SweepRun run;
  std::string backbone;     ///< what its checkpoint holds, see Model::backbone
  std::string fingerprint;  ///< of the backbone's weights
  std::filesystem::path folder;
  std::int64_t iterations = 0;  ///< unless it is done
  bool is_done = false;         ///< when the sweep began
  std::string failure;          ///< that was recorded before the sweep began, see recorded_failure()

  /// The lease on it.
  std::filesystem::path lease() const { return folder / "lease"; }
};

/// What the folder of a run holds.
enum class RunState { kToDo, kDone, kDamaged, kOtherSettings };

/// Looks at a run's results.json. With kDamaged and kOtherSettings, `reason` says what is wrong with it.
RunState state_of(const PlannedRun& run, std::string& reason);

/// Removes from the folder of a run that is done what processes left there that were killed: leases,
/// checkpoints, temporary files.
void remove_leftovers(const PlannedRun& run);

/// All runs of a sweep, those that are done included.
struct SweepPlan {
  std::vector<PlannedRun> runs;
  std::vector<std::string> notes;  ///< what is remarkable about the data and what is there
  std::optional<double> seconds;  ///< that what is to be done will take one process; nothing: it is not known
  std::size_t finished_runs = 0;  ///< that the time is estimated from; 0: it is a guess by the model's size
  std::uint64_t bytes = 0;        ///< that what is to be done will take in the folder, roughly
  std::uint64_t free_bytes = 0;   ///< there

  std::size_t count_to_do() const;
  std::int64_t iterations_to_do() const;
};

/// Finds out what is to be done, and checks that it can be: checkpoints, data sets, images, adapters' shapes,
/// the folder, the space on its disk. What killed processes left behind goes. `session` keeps what it loads
/// for that as far as the first run needs it; without one, nothing touches a GPU. Throws ConfigError,
/// DataError, CheckpointError.
SweepPlan make_plan(const SweepOptions& options, RunSession* session);

/// Throws ConfigError if the disk of the folder has no room for `bytes`; otherwise returns what is free.
std::uint64_t require_space(const std::filesystem::path& folder, std::uint64_t bytes);

/// 12345678 → "12.3 MB".
std::string megabytes(std::uint64_t bytes);

}  // namespace clip_lora::cli
