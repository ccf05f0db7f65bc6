#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// What others published of one backbone. Accuracies in percent.
struct PublishedFigures {
  std::string name;  ///< one word for tables, e.g. "paper"
  std::string backbone;
  std::map<std::string, nlohmann::json> settings;  ///< that a run has to have to be compared with them
  std::string source;                              ///< authors, title, year
  std::string url;                                 ///< "" for none
  std::string note;                                ///< under which settings, how exact
  std::map<std::string, std::map<std::int64_t, double>> accuracy;  ///< by data set, by shots
  std::map<std::string, double> zero_shot;                         ///< by data set
  std::set<std::string> averaged_over;                             ///< the data sets of the averages
  std::map<std::int64_t, double> average;                          ///< by shots
  std::optional<double> zero_shot_average;

  /// Whether they are of this backbone and these settings.
  bool fit(const std::string& of_backbone, const nlohmann::ordered_json& of_settings) const;
  std::optional<double> of(const std::string& dataset, std::int64_t shots) const;
  std::optional<double> zero_shot_of(const std::string& dataset) const;
  /// Of the average over `datasets`; nothing if it was published over others.
  std::optional<double> average_over(const std::set<std::string>& datasets, std::int64_t shots) const;
  std::optional<double> zero_shot_average_over(const std::set<std::string>& datasets) const;
};

/// The figures of a file as configs/published.json is; an empty path: of that file itself, which is part of
/// the program. Throws ConfigError.
std::vector<PublishedFigures> read_published(const std::filesystem::path& file);

}  // namespace clip_lora::cli
