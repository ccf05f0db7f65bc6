#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "clip_lora/io/event_file.hpp"
#include "clip_lora/train/trainer.hpp"

namespace clip_lora::cli {

/// What people watch a training by: metrics.jsonl in its folder, and TensorBoard's files in tensorboard/
/// beside it. What cannot be written is warned of once, and the training goes on.
///
/// What an earlier training left under these names is put aside and comes back with put_back(); it goes with
/// keep().
class MetricsLog {
 public:
  /// `iteration`: that the training goes on from, behind the lines up to there; 0: it begins.
  MetricsLog(const std::filesystem::path& folder, std::int64_t iteration, bool tensorboard);

  void add(const train::Measurement& measurement);
  /// Of the validation images, percent; for TensorBoard alone.
  void add_validation(std::int64_t iteration, double accuracy);

  /// This training is done.
  void keep();
  /// This training has come to nothing.
  void put_back();

  /// The lines of the training whose results are in `folder`, also while another one is under way or was killed.
  static std::filesystem::path lines_of_results(const std::filesystem::path& folder);

  /// Removes what an earlier training left in the folder of one that has no log.
  static void remove(const std::filesystem::path& folder);

 private:
  using Scalars = std::vector<std::pair<std::string, double>>;

  void open_lines(std::int64_t iteration);
  void add_scalars(std::int64_t iteration, const Scalars& scalars);
  void give_up(const std::string& reason);

  std::filesystem::path lines_path_;
  std::filesystem::path events_folder_;
  std::ofstream lines_;
  std::optional<io::EventFile> events_;
  bool works_ = true;
};

}  // namespace clip_lora::cli
