#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "clip_lora/train/statistics.hpp"
#include "published.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {

/// The runs of one data set and number of shots, by seed.
struct ResultCell {
  std::vector<const SavedRun*> runs;
  std::set<std::int64_t> seeds;
  train::Summary accuracy;   ///< over the runs
  train::Summary zero_shot;  ///< the same of the untouched model
};

/// An average over data sets. `summary.mean` is the mean of the data sets' means; the deviation is that of
/// the seeds' averages, where every data set has the same seeds.
struct ResultAverage {
  std::size_t datasets = 0;  ///< of the group's that have results
  bool complete = false;     ///< all of them
  std::size_t seeds = 0;     ///< that every one of these has, at least
  train::Summary summary;
};

/// Runs that differ in data set, shots and seed alone: one table.
struct ResultGroup {
  std::string backbone;
  std::string variant;  ///< "r 4, params q v": the settings that tell it from other groups; "" if none do
  std::vector<std::string> datasets;  ///< sorted
  std::vector<std::int64_t> shots;    ///< ascending
  std::set<std::int64_t> seeds;       ///< all that occur
  std::vector<const SavedRun*> runs;  ///< by data set, shots, seed
  std::map<std::pair<std::string, std::int64_t>, ResultCell> cells;
  const PublishedFigures* published = nullptr;  ///< that fit all runs

  std::string label() const;                                                     ///< backbone and variant
  const ResultCell* cell(const std::string& dataset, std::int64_t shots) const;  ///< or null
  ResultAverage average(std::int64_t shots) const;                               ///< of the accuracies
  ResultAverage zero_shot_average() const;                                       ///< deviation left out
  train::Summary zero_shot(const std::string& dataset) const;                    ///< over all runs
  /// What is published of a data set, or of the average over `datasets` for an empty name.
  std::optional<double> published_accuracy(const std::string& dataset, std::int64_t shots) const;
  std::optional<double> published_zero_shot(const std::string& dataset) const;
  bool shows_published() const;  ///< whether anything is
  /// "2 of 3 seeds" where a cell has not all of the group's; else "".
  std::string lacking_seeds(std::size_t present) const;
};

struct ResultTable {
  std::vector<ResultGroup> groups;  ///< by backbone, then variant
  /// Settings that differ between cells of a group (never within one), as "n_iters 500, 1000": averages mix
  /// them.
  std::vector<std::string> mixed_settings;
  /// Settings that are not the same in all runs, beside data set, backbone, shots and seed.
  std::vector<std::string> varying_settings;
};

/// A setting's value for people: of a checkpoint its file with the folder it is in, and the fingerprint's
/// beginning.
std::string setting_text(const SavedRun& run, const std::string& setting);

/// Puts `runs` into groups. A setting tells groups apart if it differs between runs of the same backbone,
/// data set and shots; what cannot change an accuracy, such as --workers, never does. The result refers to
/// both arguments.
ResultTable tabulate(const std::vector<SavedRun>& runs, const std::vector<PublishedFigures>& published);

/// A setting's value as on a command line: "q v", "0.25".
std::string setting_text(const nlohmann::ordered_json& value);

}  // namespace clip_lora::cli
