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

  /// Over the runs that have it; of nothing for a mean over other data sets that are not the same in all
  /// runs.
  train::Summary of(const Measure& measure) const;
  /// Mean of each seed's runs; of those that have it.
  std::map<std::int64_t, double> by_seed(const Measure& measure) const;
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
  std::size_t index = 0;  ///< in the table
  std::string backbone;
  std::string protocol;
  std::string method;
  /// "lora, r 4, params q v": the method, unless all runs are of LoRA, and the settings that tell it from
  /// other groups of its method; "" if nothing does.
  std::string variant;
  bool names_protocol = false;        ///< there are groups of other protocols
  std::vector<std::string> datasets;  ///< sorted
  std::vector<std::int64_t> shots;    ///< ascending
  std::set<std::int64_t> seeds;       ///< all that occur
  std::vector<const SavedRun*> runs;  ///< by data set, shots, seed
  std::map<std::pair<std::string, std::int64_t>, ResultCell> cells;
  const PublishedFigures* published = nullptr;  ///< that fit all runs

  std::string label() const;  ///< backbone and variant
  std::string title() const;  ///< with the protocol where there are several
  const ResultCell* cell(const std::string& dataset, std::int64_t shots) const;  ///< or null
  ResultAverage average(std::int64_t shots, const Measure& measure = {}) const;  ///< over data sets
  /// The average over data sets of each seed; nothing unless every data set has it of the same seeds.
  std::map<std::int64_t, double> average_by_seed(std::int64_t shots, const Measure& measure) const;
  /// All at which runs of `shots` have a figure, ascending.
  std::set<double> scales(std::int64_t shots, const std::string& measure_name,
                          const std::string& tested_on) const;
  /// The first of --eval_scale; nothing if the runs of `shots` differ in it.
  std::optional<double> main_scale(std::int64_t shots) const;
  ResultAverage zero_shot_average() const;                     ///< deviation left out
  train::Summary zero_shot(const std::string& dataset) const;  ///< over all runs
  /// What is published of a data set, or of the average over `datasets` for an empty name.
  std::optional<double> published_accuracy(const std::string& dataset, std::int64_t shots) const;
  std::optional<double> published_zero_shot(const std::string& dataset) const;
  bool shows_published() const;  ///< whether anything is
  /// "2 of 3 seeds" where a cell has not all of the group's; else "".
  std::string lacking_seeds(std::size_t present) const;
};

struct ResultTable {
  std::vector<ResultGroup> groups;  ///< by backbone, then protocol, method and variant
  /// Settings that differ between cells of a group (never within one), as "n_iters 500, 1000": averages mix
  /// them.
  std::vector<std::string> mixed_settings;
  /// Settings that are not the same in all runs, beside data set, backbone, shots and seed.
  std::vector<std::string> varying_settings;
};

/// A setting's value for people: of a checkpoint its file with the folder it is in, and the fingerprint's
/// beginning.
std::string setting_text(const SavedRun& run, const std::string& setting);

/// Whether two groups' untouched models are the same one: weights and prompts.
bool share_zero_shot(const ResultGroup& a, const ResultGroup& b);

/// The part of `table` that is of one protocol.
ResultTable of_protocol(const ResultTable& table, const std::string& protocol);

/// The protocols of a table in the order in which they are shown: all classes first.
std::vector<std::string> protocols_of(const ResultTable& table);

/// Every number of shots that any group has, ascending.
std::vector<std::int64_t> all_shots(const ResultTable& table);

/// Every data set that any group has, sorted.
std::vector<std::string> all_datasets(const ResultTable& table);

/// Puts `runs` into groups. Methods and protocols are never in one group. A setting tells groups apart if it
/// differs between runs of the same backbone, protocol, method, data set and shots; what cannot change an
/// accuracy, such as --workers, never does. The result refers to both arguments.
ResultTable tabulate(const std::vector<SavedRun>& runs, const std::vector<PublishedFigures>& published);

/// A setting's value as on a command line: "q v", "0.25".
std::string setting_text(const nlohmann::ordered_json& value);

}  // namespace clip_lora::cli
