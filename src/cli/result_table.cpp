#include "result_table.hpp"

#include <algorithm>
#include <filesystem>
#include <tuple>

#include "clip_lora/io/json_text.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kShownDigits = 8;  // of a fingerprint

std::set<std::string> setting_names(const std::vector<SavedRun>& runs) {
  std::set<std::string> names;
  for (const auto& run : runs) {
    for (const auto& [name, value] : run.settings.items()) {
      if (may_change_accuracy(name)) names.insert(name);
    }
  }
  return names;
}

/// The first run of each value of a setting, in the order of the runs.
std::vector<const SavedRun*> first_of_each_value(const std::vector<const SavedRun*>& runs,
                                                 const std::string& setting) {
  std::set<ordered_json> values;
  std::vector<const SavedRun*> first;
  for (const SavedRun* run : runs) {
    if (values.insert(comparable_setting(*run, setting)).second) first.push_back(run);
  }
  return first;
}

std::vector<const SavedRun*> pointers(const std::vector<SavedRun>& runs) {
  std::vector<const SavedRun*> result;
  for (const auto& run : runs) result.push_back(&run);
  return result;
}

/// Whether runs that would stand in one cell differ in `setting`.
bool tells_apart(const std::vector<SavedRun>& runs, const std::string& setting) {
  std::map<std::tuple<std::string, std::string, std::int64_t>, ordered_json> first;
  for (const auto& run : runs) {
    const ordered_json value = comparable_setting(run, setting);
    const auto [entry, is_new] = first.try_emplace({run.backbone, run.dataset, run.shots}, value);
    if (!is_new && entry->second != value) return true;
  }
  return false;
}

/// Whether runs of one backbone belong to the same variant.
bool agree(const SavedRun& a, const SavedRun& b, const std::vector<std::string>& settings) {
  return std::all_of(settings.begin(), settings.end(), [&](const std::string& setting) {
    return comparable_setting(a, setting) == comparable_setting(b, setting);
  });
}

/// "r 4, params q v"; a flag that is off is left out.
std::string variant_of(const SavedRun& run, const std::vector<std::string>& settings) {
  std::string variant;
  for (const auto& setting : settings) {
    const ordered_json value = comparable_setting(run, setting);
    if (value.is_boolean() && !value.get<bool>()) continue;
    variant += (variant.empty() ? "" : ", ") + setting;
    if (!value.is_boolean()) variant += " " + setting_text(run, setting);
  }
  return variant;
}

/// Variants in the order of their settings' values: rank 2 before rank 16.
bool precedes(const SavedRun& a, const SavedRun& b, const std::vector<std::string>& settings) {
  if (a.backbone != b.backbone) return a.backbone < b.backbone;
  for (const auto& setting : settings) {
    const ordered_json of_a = comparable_setting(a, setting), of_b = comparable_setting(b, setting);
    if (of_a != of_b) return of_a < of_b;
  }
  return std::tie(a.dataset, a.shots, a.seed, a.name) < std::tie(b.dataset, b.shots, b.seed, b.name);
}

/// Figures that fit all runs of the group: beside a mean of others they would mislead.
const PublishedFigures* find_published(const std::vector<PublishedFigures>& published,
                                       const ResultGroup& group) {
  const auto found = std::find_if(published.begin(), published.end(), [&](const auto& figures) {
    return std::all_of(group.runs.begin(), group.runs.end(),
                       [&](const SavedRun* run) { return figures.fit(run->backbone, run->settings); });
  });
  return found == published.end() ? nullptr : &*found;
}

void fill(ResultGroup& group) {
  std::set<std::string> datasets;
  std::set<std::int64_t> shots;
  for (const SavedRun* run : group.runs) {
    datasets.insert(run->dataset);
    shots.insert(run->shots);
    group.seeds.insert(run->seed);
    group.cells[{run->dataset, run->shots}].runs.push_back(run);
  }
  group.datasets.assign(datasets.begin(), datasets.end());
  group.shots.assign(shots.begin(), shots.end());
  for (auto& [place, cell] : group.cells) {
    std::vector<double> accuracies, zero_shot;
    for (const SavedRun* run : cell.runs) {
      cell.seeds.insert(run->seed);
      accuracies.push_back(run->accuracy);
      zero_shot.push_back(run->zero_shot_accuracy);
    }
    cell.accuracy = train::summarise(accuracies);
    cell.zero_shot = train::summarise(zero_shot);
  }
}

/// The average over data sets of each seed; nothing unless every cell has the same seeds.
std::vector<double> averages_by_seed(const std::vector<const ResultCell*>& cells) {
  std::map<std::int64_t, std::vector<double>> by_seed;
  for (const ResultCell* cell : cells) {
    std::map<std::int64_t, std::vector<double>> of_cell;  // a run that was done again has company
    for (const SavedRun* run : cell->runs) of_cell[run->seed].push_back(run->accuracy);
    for (const auto& [seed, accuracies] : of_cell) by_seed[seed].push_back(train::summarise(accuracies).mean);
  }
  std::vector<double> averages;
  for (const auto& [seed, accuracies] : by_seed) {
    if (accuracies.size() != cells.size()) return {};
    averages.push_back(train::summarise(accuracies).mean);
  }
  return averages;
}

}  // namespace

std::string ResultGroup::label() const { return variant.empty() ? backbone : backbone + ", " + variant; }

const ResultCell* ResultGroup::cell(const std::string& dataset, std::int64_t at_shots) const {
  const auto found = cells.find({dataset, at_shots});
  return found == cells.end() ? nullptr : &found->second;
}

ResultAverage ResultGroup::average(std::int64_t at_shots) const {
  std::vector<const ResultCell*> present;
  std::vector<double> means;
  for (const auto& dataset : datasets) {
    if (const ResultCell* found = cell(dataset, at_shots)) {
      present.push_back(found);
      means.push_back(found->accuracy.mean);
    }
  }
  ResultAverage average{present.size(), present.size() == datasets.size(), seeds.size(),
                        train::summarise(means)};
  for (const ResultCell* found : present) average.seeds = std::min(average.seeds, found->seeds.size());
  average.summary.deviation = train::summarise(averages_by_seed(present)).deviation;
  return average;
}

ResultAverage ResultGroup::zero_shot_average() const {
  std::vector<double> means;
  for (const auto& dataset : datasets) means.push_back(zero_shot(dataset).mean);
  ResultAverage average{datasets.size(), true, seeds.size(), train::summarise(means)};
  average.summary.deviation.reset();
  return average;
}

train::Summary ResultGroup::zero_shot(const std::string& dataset) const {
  std::vector<double> accuracies;
  for (const SavedRun* run : runs) {
    if (run->dataset == dataset) accuracies.push_back(run->zero_shot_accuracy);
  }
  return train::summarise(accuracies);
}

std::optional<double> ResultGroup::published_accuracy(const std::string& dataset,
                                                      std::int64_t at_shots) const {
  if (published == nullptr) return std::nullopt;
  if (!dataset.empty()) return published->of(dataset, at_shots);
  return published->average_over({datasets.begin(), datasets.end()}, at_shots);
}

std::optional<double> ResultGroup::published_zero_shot(const std::string& dataset) const {
  if (published == nullptr) return std::nullopt;
  if (!dataset.empty()) return published->zero_shot_of(dataset);
  return published->zero_shot_average_over({datasets.begin(), datasets.end()});
}

bool ResultGroup::shows_published() const {
  std::vector<std::string> rows = datasets;
  rows.emplace_back();  // the average
  return std::any_of(rows.begin(), rows.end(), [&](const std::string& row) {
    return published_zero_shot(row) || std::any_of(shots.begin(), shots.end(), [&](std::int64_t number) {
             return published_accuracy(row, number).has_value();
           });
  });
}

std::string ResultGroup::lacking_seeds(std::size_t present) const {
  if (present >= seeds.size()) return "";
  return std::to_string(present) + " of " + std::to_string(seeds.size()) + " seeds";
}

ResultTable tabulate(const std::vector<SavedRun>& runs, const std::vector<PublishedFigures>& published) {
  std::vector<const SavedRun*> sorted = pointers(runs);
  std::vector<std::string> telling;
  ResultTable table;
  for (const auto& setting : setting_names(runs)) {
    if (tells_apart(runs, setting)) telling.push_back(setting);
    if (first_of_each_value(sorted, setting).size() > 1) table.varying_settings.push_back(setting);
  }
  std::sort(sorted.begin(), sorted.end(),
            [&](const SavedRun* a, const SavedRun* b) { return precedes(*a, *b, telling); });
  for (const SavedRun* run : sorted) {
    auto group = std::find_if(table.groups.begin(), table.groups.end(), [&](const ResultGroup& other) {
      return other.backbone == run->backbone && agree(*other.runs.front(), *run, telling);
    });
    if (group == table.groups.end()) {
      ResultGroup fresh;
      fresh.backbone = run->backbone;
      fresh.variant = variant_of(*run, telling);
      group = table.groups.insert(group, std::move(fresh));
    }
    group->runs.push_back(run);
  }
  std::set<std::string> mixed;
  for (auto& group : table.groups) {
    fill(group);
    group.published = find_published(published, group);
    for (const auto& setting : table.varying_settings) {
      const auto first = first_of_each_value(group.runs, setting);
      if (first.size() < 2) continue;
      std::string text = setting;
      for (const SavedRun* run : first)
        text += (run == first.front() ? " " : ", ") + setting_text(*run, setting);
      mixed.insert(text);
    }
  }
  table.mixed_settings.assign(mixed.begin(), mixed.end());
  return table;
}

std::string setting_text(const SavedRun& run, const std::string& setting) {
  const std::string value = setting_text(run.settings.value(setting, ordered_json()));
  if (setting != "checkpoint" || run.fingerprint.empty()) return value;
  const std::filesystem::path file(value);
  return (file.parent_path().filename() / file.filename()).string() + " (" +
         run.fingerprint.substr(0, kShownDigits) + ")";
}

std::string setting_text(const ordered_json& value) {
  if (value.is_null()) return "unset";
  if (value.is_string()) return value.get<std::string>().empty() ? "unset" : value.get<std::string>();
  if (!value.is_array()) return io::json_text(value);
  std::string text;
  for (const auto& element : value) text += (text.empty() ? "" : " ") + setting_text(element);
  return text.empty() ? "unset" : text;
}

}  // namespace clip_lora::cli
