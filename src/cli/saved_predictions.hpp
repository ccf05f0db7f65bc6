#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/train/statistics.hpp"

namespace clip_lora::cli {

/// A line of predictions.csv.
struct SavedPrediction {
  std::string path;
  std::string label;
  std::string predicted;
  double probability = 0.0;                        ///< of `predicted`
  std::optional<std::string> zero_shot_predicted;  ///< what the untouched model said, where that was saved

  bool is_right() const { return predicted == label; }
};

/// Reads a predictions.csv. Throws DataError, which names the file and the line.
std::vector<SavedPrediction> read_predictions(const std::filesystem::path& file);

/// What two runs say of the same pictures.
struct PairedPredictions {
  train::PairedCounts counts;
  std::size_t only_in_first = 0;  ///< pictures that the other run did not see
  std::size_t only_in_second = 0;
};

/// Pairs predictions by their pictures' paths. Throws DataError for a picture whose label differs, or that is
/// there twice.
PairedPredictions pair_predictions(const std::vector<SavedPrediction>& first,
                                   const std::vector<SavedPrediction>& second);

}  // namespace clip_lora::cli
