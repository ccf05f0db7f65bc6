#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/dataset.hpp"

namespace clip_lora::cli {

/// The pictures of one run.
struct RunData {
  data::Dataset dataset;                       ///< names and warnings; its lists are those below
  const data::Benchmark* benchmark = nullptr;  ///< of classes; nullptr: there is none
  bool is_own = true;                          ///< no published data set: its photos are turned by their EXIF
  std::vector<data::Item> train;               ///< the few-shot sample, or all
  std::vector<data::Item>
      val;  ///< its min(shots, 4) validation images per class, or all; empty if nobody looks
  std::vector<std::string> captions;  ///< of train[i], for image-caption pairs; else none
  std::vector<data::Item> test;
  /// With the protocol base_to_new, where all of the above are of the base classes: names and test images of
  /// the new ones.
  std::optional<data::Dataset> new_classes;
  std::map<std::string, std::int64_t>
      left_out;  ///< missing images by split that is used; with --allow_missing
  std::vector<std::string> warnings;
};

/// Whether a run of these options trains anything, by its method and --eval_only.
bool trains_anything(const RunOptions& options);

/// Leaves those of `items` that are there, and says how many are not. Throws DataError if any is missing and
/// that is not allowed, or if all are; `what` ("test split") heads the message.
std::int64_t leave_out_missing(std::vector<data::Item>& items, const std::string& what, bool allowed);

/// The data set of the run before, which the next one mostly has too: its lists are read and its test images
/// looked for once.
class KeptDataset {
 public:
  /// Finds the data set, samples it, and checks that the images are there that the run needs. Throws
  /// ConfigError, DataError.
  RunData load(const RunOptions& options);

 private:
  /// Everything that decides which data set it is and which of its test images are asked for.
  using Key =
      std::tuple<std::string, std::string, double, double, std::int64_t, std::string, std::string, bool>;

  /// The base and the new classes with their test images.
  struct Halves {
    data::Dataset base;
    data::Dataset new_classes;
  };

  void find(const RunOptions& options);
  const Halves& halves();

  std::optional<Key> key_;
  data::Dataset dataset_;
  const data::Benchmark* benchmark_ = nullptr;
  std::int64_t test_left_out_ = 0;
  bool has_test_images_ = false;  ///< they have been looked for
  std::optional<Halves> halves_;  ///< once a run has asked for them
};

}  // namespace clip_lora::cli
