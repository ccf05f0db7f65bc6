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

/// Of which runs the settings can be compared: others have other defaults.
using Kind = std::pair<std::string, std::string>;  // protocol, method

Kind kind_of(const SavedRun& run) { return {run.protocol, run.method}; }

/// Whether runs of `kind` that would stand in one cell differ in `setting`.
bool tells_apart(const std::vector<SavedRun>& runs, const Kind& kind, const std::string& setting) {
  std::map<std::tuple<std::string, std::string, std::int64_t>, ordered_json> first;
  for (const auto& run : runs) {
    if (kind_of(run) != kind) continue;
    const ordered_json value = comparable_setting(run, setting);
    const auto [entry, is_new] = first.try_emplace({run.backbone, run.dataset, run.shots}, value);
    if (!is_new && entry->second != value) return true;
  }
  return false;
}

/// The settings that tell groups of each kind apart.
std::map<Kind, std::vector<std::string>> telling_settings(const std::vector<SavedRun>& runs) {
  std::map<Kind, std::vector<std::string>> telling;
  for (const auto& run : runs) telling[kind_of(run)];
  for (const auto& setting : setting_names(runs)) {
    for (auto& [kind, settings] : telling) {
      if (tells_apart(runs, kind, setting)) settings.push_back(setting);
    }
  }
  return telling;
}

std::ptrdiff_t rank_of_protocol(const std::string& protocol) {
  const std::vector<std::string> order = {kAllClasses, kBaseToNew, kCrossDataset, kRobustness, kRetrieval};
  return std::find(order.begin(), order.end(), protocol) - order.begin();
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
  const auto kind = [](const SavedRun& run) {
    return std::make_tuple(run.backbone, rank_of_protocol(run.protocol), run.protocol, run.method);
  };
  if (kind(a) != kind(b)) return kind(a) < kind(b);
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

/// "r_adapter, lr 0.001": `name` unless it is empty, and the settings.
std::string variant_of(const SavedRun& run, const std::string& name,
                       const std::vector<std::string>& settings) {
  const std::string variant = variant_of(run, settings);
  return name.empty() || variant.empty() ? name + variant : name + ", " + variant;
}

/// "n_iters 500, 1000" for each setting that differs between cells of a group.
std::set<std::string> mixed_settings(const ResultGroup& group, const std::vector<std::string>& varying) {
  std::set<std::string> mixed;
  for (const auto& setting : varying) {
    const auto first = first_of_each_value(group.runs, setting);
    if (first.size() < 2) continue;
    std::string text = setting;
    for (const SavedRun* run : first)
      text += (run == first.front() ? " " : ", ") + setting_text(*run, setting);
    mixed.insert(text);
  }
  return mixed;
}

/// Runs that have been tested on other data sets than their neighbours have means over others.
bool is_mean_over_different(const std::vector<const SavedRun*>& runs, const Measure& measure) {
  if (measure.tested_on != kMeanOfOthers) return false;
  const auto others = [](const SavedRun* run) {
    return std::set<std::string>(run->others.begin(), run->others.end());
  };
  return std::any_of(runs.begin(), runs.end(),
                     [&](const SavedRun* run) { return others(run) != others(runs.front()); });
}

}  // namespace

std::map<std::int64_t, double> ResultCell::by_seed(const Measure& measure) const {
  if (is_mean_over_different(runs, measure)) return {};
  std::map<std::int64_t, std::vector<double>> values;  // a run that was done again has company
  for (const SavedRun* run : runs) {
    if (const auto value = run->measure(measure)) values[run->seed].push_back(*value);
  }
  std::map<std::int64_t, double> means;
  for (const auto& [seed, of_seed] : values) means[seed] = train::summarise(of_seed).mean;
  return means;
}

train::Summary ResultCell::of(const Measure& measure) const {
  if (is_mean_over_different(runs, measure)) return {};
  std::vector<double> values;
  for (const SavedRun* run : runs) {
    if (const auto value = run->measure(measure)) values.push_back(*value);
  }
  return train::summarise(values);
}

std::string ResultGroup::label() const { return variant.empty() ? backbone : backbone + ", " + variant; }

std::string ResultGroup::title() const { return names_protocol ? label() + ", " + protocol : label(); }

const ResultCell* ResultGroup::cell(const std::string& dataset, std::int64_t at_shots) const {
  const auto found = cells.find({dataset, at_shots});
  return found == cells.end() ? nullptr : &found->second;
}

ResultAverage ResultGroup::average(std::int64_t at_shots, const Measure& measure) const {
  std::vector<double> means, of_seeds;
  ResultAverage average;
  average.seeds = seeds.size();
  for (const auto& dataset : datasets) {
    const ResultCell* found = cell(dataset, at_shots);
    const train::Summary summary = found == nullptr ? train::Summary() : found->of(measure);
    if (summary.count == 0) continue;
    means.push_back(summary.mean);
    average.seeds = std::min(average.seeds, found->by_seed(measure).size());
  }
  for (const auto& [seed, value] : average_by_seed(at_shots, measure)) of_seeds.push_back(value);
  average.datasets = means.size();
  average.complete = means.size() == datasets.size();
  average.summary = train::summarise(means);
  average.summary.deviation = train::summarise(of_seeds).deviation;
  return average;
}

std::map<std::int64_t, double> ResultGroup::average_by_seed(std::int64_t at_shots,
                                                            const Measure& measure) const {
  std::map<std::int64_t, std::vector<double>> by_seed;
  std::size_t present = 0;
  for (const auto& dataset : datasets) {
    const ResultCell* found = cell(dataset, at_shots);
    if (found == nullptr) continue;
    const auto of_cell = found->by_seed(measure);
    for (const auto& [seed, mean] : of_cell) by_seed[seed].push_back(mean);
    if (!of_cell.empty()) ++present;
  }
  std::map<std::int64_t, double> averages;
  for (const auto& [seed, means] : by_seed) {
    if (means.size() != present) return {};
    averages[seed] = train::summarise(means).mean;
  }
  return averages;
}

std::set<double> ResultGroup::scales(std::int64_t at_shots, const std::string& measure_name,
                                     const std::string& tested_on) const {
  std::set<double> all;
  for (const SavedRun* run : runs) {
    if (run->shots == at_shots) all.merge(run->scales(measure_name, tested_on));
  }
  return all;
}

std::optional<double> ResultGroup::main_scale(std::int64_t at_shots) const {
  std::set<double> scales;
  for (const SavedRun* run : runs) {
    if (run->shots == at_shots) scales.insert(run->eval_scale);
  }
  return scales.size() == 1 ? std::optional(*scales.begin()) : std::nullopt;
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

bool share_zero_shot(const ResultGroup& a, const ResultGroup& b) {
  if (a.backbone != b.backbone) return false;
  std::vector<std::string> telling = {"checkpoint"};
  if (a.protocol != kRetrieval)  // where captions stand as they are
    telling.insert(telling.end(), {"template", "templates", "zero_shot_templates"});
  return agree(*a.runs.front(), *b.runs.front(), telling);
}

ResultTable of_protocol(const ResultTable& table, const std::string& protocol) {
  ResultTable part = table;
  std::erase_if(part.groups, [&](const ResultGroup& group) { return group.protocol != protocol; });
  return part;
}

std::vector<std::string> protocols_of(const ResultTable& table) {
  std::set<std::pair<std::ptrdiff_t, std::string>> protocols;
  for (const auto& group : table.groups) protocols.insert({rank_of_protocol(group.protocol), group.protocol});
  std::vector<std::string> names;
  for (const auto& [rank, name] : protocols) names.push_back(name);
  return names;
}

std::vector<std::int64_t> all_shots(const ResultTable& table) {
  std::set<std::int64_t> shots;
  for (const auto& group : table.groups) shots.insert(group.shots.begin(), group.shots.end());
  return {shots.begin(), shots.end()};
}

std::vector<std::string> all_datasets(const ResultTable& table) {
  std::set<std::string> datasets;
  for (const auto& group : table.groups) datasets.insert(group.datasets.begin(), group.datasets.end());
  return {datasets.begin(), datasets.end()};
}

ResultTable tabulate(const std::vector<SavedRun>& runs, const std::vector<PublishedFigures>& published) {
  std::vector<const SavedRun*> sorted = pointers(runs);
  const auto telling = telling_settings(runs);
  ResultTable table;
  for (const auto& setting : setting_names(runs)) {
    if (first_of_each_value(sorted, setting).size() > 1) table.varying_settings.push_back(setting);
  }
  std::set<std::string> protocols, methods;
  for (const auto& run : runs) {
    protocols.insert(run.protocol);
    methods.insert(run.method);
  }
  const bool names_methods = methods != std::set<std::string>{kLora};
  std::sort(sorted.begin(), sorted.end(),
            [&](const SavedRun* a, const SavedRun* b) { return precedes(*a, *b, telling.at(kind_of(*a))); });
  for (const SavedRun* run : sorted) {
    const auto& settings = telling.at(kind_of(*run));
    auto group = std::find_if(table.groups.begin(), table.groups.end(), [&](const ResultGroup& other) {
      const SavedRun& first = *other.runs.front();
      return first.backbone == run->backbone && kind_of(first) == kind_of(*run) &&
             agree(first, *run, settings);
    });
    if (group == table.groups.end()) {
      ResultGroup fresh;
      fresh.index = table.groups.size();
      fresh.backbone = run->backbone;
      fresh.protocol = run->protocol;
      fresh.method = run->method;
      fresh.variant = variant_of(*run, names_methods ? run->method : "", settings);
      fresh.names_protocol = protocols.size() > 1;
      group = table.groups.insert(group, std::move(fresh));
    }
    group->runs.push_back(run);
  }
  std::set<std::string> mixed;
  for (auto& group : table.groups) {
    fill(group);
    group.published = find_published(published, group);
    mixed.merge(mixed_settings(group, table.varying_settings));
  }
  table.mixed_settings.assign(mixed.begin(), mixed.end());
  return table;
}

std::string setting_text(const SavedRun& run, const std::string& setting) {
  if (setting == "eval_scale") return setting_text(comparable_setting(run, setting));
  std::string value = setting_text(run.settings.value(setting, ordered_json()));
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
