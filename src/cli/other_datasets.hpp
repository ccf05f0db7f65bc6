#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/text/prompts.hpp"

namespace clip_lora::cli {

/// A data set that a run tests on beside its own: a benchmark with its own classes, or a shift of ImageNet,
/// whose classes the run's own are.
struct OtherDataset {
  std::string name = {};
  std::int64_t classes = 0;  ///< that its images are of
  std::vector<data::Item> test = {};
  text::ClassPrompts prompts = {};  ///< of a benchmark's classes, by its customary templates; else none
  std::vector<std::int64_t> counted_labels = {};  ///< of a shift: among which is predicted; empty: all
  std::vector<int> meanings = {};                 ///< of the predicted classes, see train::accuracy
  int border_px = 0;                              ///< see data::ShiftedImages
  std::int64_t left_out = 0;                      ///< missing images; with --allow_missing
  std::vector<std::string> warnings = {};

  bool is_shift() const { return prompts.empty(); }
};

struct OtherDatasets {
  std::vector<std::shared_ptr<const OtherDataset>> datasets;
  std::vector<std::string> warnings;  ///< the data sets' own, and which are left out
};

/// The other data sets of the runs before, of which the next one mostly has some too: their lists are read
/// and their images looked for once.
class KeptOtherDatasets {
 public:
  /// Finds those that the protocol tests on, none for most, and checks that their images are there. The run's
  /// own data set has `own_classes`. Throws DataError that lists all that cannot be used, and where they were
  /// looked for; with --skip_missing, those that are not there are left out instead.
  OtherDatasets load(const RunOptions& options, std::size_t own_classes);

 private:
  /// Everything that decides what a name stands for.
  using Key = std::tuple<std::string, std::string, bool>;

  std::shared_ptr<const OtherDataset> find(const std::string& name, const DataOptions& asked);

  std::optional<Key> key_;
  std::map<std::string, std::shared_ptr<const OtherDataset>> found_;
};

}  // namespace clip_lora::cli
