#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "clip_lora/train/trainer.hpp"

namespace clip_lora::train {

/// What a training was told, by name, as text. A training goes on from a checkpoint of equal settings only.
using TrainingSettings = std::map<std::string, std::string>;

/// A training between two iterations, as a file has it.
struct TrainingCheckpoint {
  TrainingState state;
  TrainingSettings settings;
};

/// Writes a checkpoint as safetensors, atomically: an older one under this name is there until the new one is
/// whole, also if the disk is full. Throws ConfigError if it cannot be written.
void write_checkpoint(const std::filesystem::path& path, const TrainingCheckpoint& checkpoint);

/// Reads one. Throws CheckpointError, naming the file, if it is missing, truncated, of another version, or no
/// checkpoint of a training.
TrainingCheckpoint read_checkpoint(const std::filesystem::path& path);

/// Throws CheckpointError that names `path` and every setting in which `settings`, those of this run, differ
/// from the checkpoint's.
void require_settings(const TrainingSettings& saved, const TrainingSettings& settings,
                      const std::filesystem::path& path);

}  // namespace clip_lora::train
