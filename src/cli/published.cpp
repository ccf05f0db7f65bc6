#include "published.hpp"

#include <algorithm>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"

extern "C" const char clip_lora_published_begin[], clip_lora_published_end[];

namespace clip_lora::cli {
namespace {

using nlohmann::json;

constexpr int kFormat = 1;

/// Accuracies by shots; `values` may be empty, as a table without this row.
std::map<std::int64_t, double> by_shots(const std::vector<std::int64_t>& shots, const json& values) {
  std::map<std::int64_t, double> accuracies;
  for (std::size_t i = 0; i < values.size(); ++i) accuracies[shots.at(i)] = values.at(i).get<double>();
  return accuracies;
}

PublishedFigures read_figures(const json& entry, const std::set<std::string>& averaged_over) {
  PublishedFigures figures;
  entry.at("name").get_to(figures.name);
  entry.at("backbone").get_to(figures.backbone);
  if (const auto settings = entry.find("settings"); settings != entry.end())
    settings->get_to(figures.settings);
  entry.at("source").get_to(figures.source);
  entry.at("url").get_to(figures.url);
  entry.at("note").get_to(figures.note);
  const auto shots = entry.at("shots").get<std::vector<std::int64_t>>();
  for (const auto& [dataset, values] : entry.at("accuracy").items())
    figures.accuracy[dataset] = by_shots(shots, values);
  entry.at("zero_shot").get_to(figures.zero_shot);
  figures.averaged_over = averaged_over;
  figures.average = by_shots(shots, entry.at("average"));
  if (const json& average = entry.at("zero_shot_average"); !average.is_null())
    figures.zero_shot_average = average.get<double>();
  return figures;
}

json read(const std::filesystem::path& file, const std::string& source) {
  if (!file.empty()) return io::read_json_object(file, source);
  const std::string_view text(clip_lora_published_begin,
                              static_cast<std::size_t>(clip_lora_published_end - clip_lora_published_begin));
  return io::parse_json_object(text, source);
}

template <typename Key>
std::optional<double> find(const std::map<Key, double>& values, const Key& key) {
  const auto entry = values.find(key);
  return entry == values.end() ? std::nullopt : std::optional(entry->second);
}

}  // namespace

bool PublishedFigures::fit(const std::string& of_backbone, const nlohmann::ordered_json& of_settings) const {
  if (backbone != of_backbone) return false;
  return std::all_of(settings.begin(), settings.end(), [&](const auto& setting) {
    const auto found = of_settings.find(setting.first);
    if (found != of_settings.end()) return json(*found) == setting.second;
    return json(default_settings().value(setting.first, nlohmann::ordered_json())) == setting.second;
  });
}

std::optional<double> PublishedFigures::of(const std::string& dataset, std::int64_t shots) const {
  const auto entry = accuracy.find(dataset);
  return entry == accuracy.end() ? std::nullopt : find(entry->second, shots);
}

std::optional<double> PublishedFigures::zero_shot_of(const std::string& dataset) const {
  return find(zero_shot, dataset);
}

std::optional<double> PublishedFigures::average_over(const std::set<std::string>& datasets,
                                                     std::int64_t shots) const {
  return datasets == averaged_over ? find(average, shots) : std::nullopt;
}

std::optional<double> PublishedFigures::zero_shot_average_over(const std::set<std::string>& datasets) const {
  return datasets == averaged_over ? zero_shot_average : std::nullopt;
}

std::vector<PublishedFigures> read_published(const std::filesystem::path& file) {
  const std::string source = "published figures '" + file.string() + "': ";
  try {
    const json document = read(file, source);
    if (document.value("format", json()) != kFormat) {
      throw ConfigError(source + "format " + io::brief(document.value("format", json())) + ", expected " +
                        std::to_string(kFormat));
    }
    const auto averaged_over = document.at("averaged_over").get<std::set<std::string>>();
    std::vector<PublishedFigures> published;
    for (const auto& entry : document.at("figures")) published.push_back(read_figures(entry, averaged_over));
    return published;
  } catch (const CheckpointError& error) {  // what the reader takes every bad JSON for
    throw ConfigError(error.what());
  } catch (const std::exception& error) {
    if (dynamic_cast<const ConfigError*>(&error) != nullptr) throw;
    throw ConfigError(source + error.what());
  }
}

}  // namespace clip_lora::cli
