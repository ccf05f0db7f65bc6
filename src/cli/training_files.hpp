#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/train/checkpoint.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {

/// A training's checkpoint that nothing can go on from: cut off, of another version, or none at all.
class UnreadableCheckpoint : public CheckpointError {
 public:
  using CheckpointError::CheckpointError;
};

/// A training's checkpoint that only a training of other settings can go on from.
class OtherTrainingsCheckpoint : public CheckpointError {
 public:
  using CheckpointError::CheckpointError;
};

/// Where a training leaves its checkpoint and its metrics, and what it goes on from.
struct TrainingFiles {
  std::filesystem::path folder;                 ///< empty: it leaves nothing
  train::TrainingSettings settings;             ///< what a checkpoint has to agree with
  std::optional<train::TrainingState> resumed;  ///< with --resume, if there is a checkpoint

  std::filesystem::path checkpoint() const { return folder / "checkpoint.safetensors"; }
};

/// Everything that decides which adapter a training ends with: flags, in the words of --print_config, and
/// what was found on the disk. `context`: see lora::AdapterContext.
train::TrainingSettings training_settings(const RunOptions& options, const lora::AdapterContext& context,
                                          at::ScalarType precision, const RunData& data);

/// The files of a training in `folder`, and with --resume the checkpoint there. Warns of one that is not gone
/// on from. Throws UnreadableCheckpoint, OtherTrainingsCheckpoint.
TrainingFiles open_training_files(const RunOptions& options, const std::filesystem::path& folder,
                                  train::TrainingSettings settings);

/// The iteration of the checkpoint in `folder`; nothing if there is none that can be read.
std::optional<std::int64_t> checkpointed_iteration(const std::filesystem::path& folder);

/// Takes away the checkpoint of a run that is done.
void remove_checkpoint(const std::filesystem::path& folder);

}  // namespace clip_lora::cli
