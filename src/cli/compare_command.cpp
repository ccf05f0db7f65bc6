#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"
#include "figure_table.hpp"
#include "result_table.hpp"
#include "saved_predictions.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

struct CompareOptions {
  std::vector<std::string> runs;
  bool json = false;

  void validate() const;
};

void CompareOptions::validate() const {
  if (runs.size() != 2)
    throw ConfigError("clip_lora compare: expected two runs, got " + std::to_string(runs.size()));
}

void bind(OptionTable& table, CompareOptions& options) {
  table.add_arguments("RUN", options.runs, "two folders of runs, or their results.json");
  table.add("json", options.json, "print JSON");
}

SavedRun read_run(const std::string& path) {
  const fs::path file =
      fs::path(path).filename() == kResultsFile ? fs::path(path) : fs::path(path) / kResultsFile;
  return read_saved_run(file, path);
}

/// A setting that is not the same in both runs.
struct Difference {
  std::string setting;
  ordered_json first, second;
};

/// What a run has whose version did not know the setting yet; null for one that is unknown here too.
ordered_json assumed(const std::string& setting) { return default_settings().value(setting, ordered_json()); }

/// What is shown of a setting that a run has not saved: nothing if it has no part in the run's method.
ordered_json shown_absence(const ordered_json& settings, const std::string& setting) {
  return settings.contains("method") ? ordered_json() : assumed(setting);
}

std::vector<Difference> differences(const ordered_json& first, const ordered_json& second) {
  std::vector<Difference> found;
  for (const auto& [name, value] : first.items()) {
    if (value == second.value(name, assumed(name))) continue;
    found.push_back({name, value, second.contains(name) ? second.at(name) : shown_absence(second, name)});
  }
  for (const auto& [name, value] : second.items()) {
    if (!first.contains(name) && value != assumed(name))
      found.push_back({name, shown_absence(first, name), value});
  }
  return found;
}

/// A figure that both runs have, each at its own first scale or both at one.
struct ComparedFigure {
  Measure measure;
  double first = 0.0, second = 0.0;

  double difference() const { return second - first; }
};

struct Comparison {
  SavedRun first, second;
  std::vector<Difference> settings;
  std::string why_incomparable;  // of the figures of their own data; "" if they are of the same
  std::vector<ComparedFigure> figures;
  std::optional<PairedPredictions> pairs;  // nothing if a run has no predictions
  std::string why_unpaired;                // "" if there are pairs
  train::McNemar test;
};

/// Why figures of the runs' own data are not of the same thing; "" if they are.
std::string why_incomparable(const SavedRun& first, const SavedRun& second) {
  if (first.is_retrieval() != second.is_retrieval())
    return "one run has recall, of --protocol retrieval, the other accuracies";
  if (first.dataset != second.dataset)
    return "they are of different data sets, '" + printable(first.dataset) + "' and '" +
           printable(second.dataset) + "'";
  if ((first.protocol == kBaseToNew) != (second.protocol == kBaseToNew))
    return "one run, of --protocol base_to_new, chose among half of the classes";
  return "";
}

/// What both runs have measured, of other data sets too: at the first scale of each, then at the other scales
/// that they have in common.
std::vector<ComparedFigure> compared_figures(const SavedRun& first, const SavedRun& second,
                                             bool of_own_data) {
  std::vector<ComparedFigure> figures;
  const auto add = [&](const Measure& measure) {
    const auto of_first = first.measure(measure), of_second = second.measure(measure);
    if (of_first && of_second) figures.push_back({measure, *of_first, *of_second});
  };
  std::set<std::pair<std::string, std::string>> names;
  std::set<double> scales;
  for (const auto& [of, value] : first.measured) {
    const auto& [tested_on, name, scale] = of;
    if (tested_on.empty() && !of_own_data) continue;
    if (tested_on == kMeanOfOthers && first.others != second.others) continue;
    names.insert({tested_on, name});
    scales.insert(scale);
  }
  for (const auto& [tested_on, name] : names) {
    add({name, tested_on, 0.0});
    add({name, tested_on, std::nullopt});
  }
  scales.erase(0.0);
  if (first.eval_scale == second.eval_scale) scales.erase(first.eval_scale);
  for (const auto& [tested_on, name] : names) {
    for (const double scale : scales) add({name, tested_on, scale});
  }
  return figures;
}

/// The pictures that both runs predicted, in pairs.
void pair(Comparison& comparison) {
  if (!comparison.why_incomparable.empty()) {
    comparison.why_unpaired = comparison.why_incomparable;
    return;
  }
  if (comparison.first.is_retrieval()) {
    comparison.why_unpaired = "retrieval predicts no classes";
    return;
  }
  for (const SavedRun* run : {&comparison.first, &comparison.second}) {
    if (fs::exists(run->folder / kPredictionsFile)) continue;
    comparison.why_unpaired = "'" + (run->folder / kPredictionsFile).string() +
                              "' is missing (hint: --eval_only --save_predictions makes it)";
    return;
  }
  const auto pairs = pair_predictions(read_predictions(comparison.first.folder / kPredictionsFile),
                                      read_predictions(comparison.second.folder / kPredictionsFile));
  if (pairs.counts.total() == 0) {
    comparison.why_unpaired = "the runs' predictions have no picture in common";
    return;
  }
  comparison.pairs = pairs;
  comparison.test = train::mcnemar(pairs.counts);
}

std::string signed_text(double value) { return (value < 0.0 ? "" : "+") + fixed(value, 2); }

/// "p = 0.0123", or "p < 0.0001".
std::string p_text(double p_value) { return p_value < 1e-4 ? "p < 0.0001" : "p = " + fixed(p_value, 4); }

std::string describe(const SavedRun& run) {
  return run.name + "   " + printable(run.dataset) + "   " + printable(run.backbone) + "   " +
         shots_name(run.shots) + (run.shots == 1 ? " shot" : " shots") + "   seed " +
         std::to_string(run.seed);
}

void print_settings(const std::vector<Difference>& settings) {
  std::size_t name_width = 0, value_width = 0;
  for (const auto& [setting, first, second] : settings) {
    name_width = std::max(name_width, setting.size());
    value_width = std::max(value_width, setting_text(first).size());
  }
  const char* heading = "settings   ";
  if (settings.empty()) std::cout << heading << "all the same\n";
  for (const auto& [setting, first, second] : settings) {
    const std::string value = printable(setting_text(first));
    std::cout << heading << setting << std::string(name_width - setting.size() + 2, ' ') << value
              << std::string(value_width - std::min(value_width, value.size()) + 2, ' ')
              << printable(setting_text(second)) << "\n";
    heading = "           ";
  }
}

void print_pairs(const Comparison& comparison) {
  if (!comparison.pairs) {
    std::cout << "unpaired   " << comparison.why_unpaired << "\n";
    return;
  }
  const train::PairedCounts& counts = comparison.pairs->counts;
  std::cout << "pictures   " << with_commas(counts.total()) << " in both: " << with_commas(counts.both_right)
            << " right in both, " << with_commas(counts.only_first) << " in A alone, "
            << with_commas(counts.only_second) << " in B alone, " << with_commas(counts.both_wrong)
            << " in neither\n";
  const auto others = comparison.pairs->only_in_first + comparison.pairs->only_in_second;
  if (others > 0)
    std::cout << "left out   " << with_commas(static_cast<std::int64_t>(others))
              << " pictures that one run has alone\n";
  const train::McNemar& test = comparison.test;
  std::cout << "difference " << signed_text(test.difference) << " points, 95 % interval "
            << signed_text(test.difference - test.margin) << " to "
            << signed_text(test.difference + test.margin) << "\nMcNemar    " << p_text(test.p_value)
            << (test.exact ? "   exact"
                           : "   χ² = " + fixed(test.statistic, 2) + " with continuity correction")
            << "\n";
}

/// "objectnet zero-shot", "new_classes_accuracy α 0.5".
std::string name_of(const ComparedFigure& figure) {
  const auto& [name, tested_on, scale] = figure.measure;
  std::string text = tested_on.empty() ? name : name == "accuracy" ? tested_on : tested_on + " " + name;
  if (scale) text += *scale == 0.0 ? " zero-shot" : at_scale(scale);
  return printable(text);
}

/// What print_accuracies() has not said.
void print_figures(const std::vector<ComparedFigure>& figures) {
  const char* heading = "figures    ";
  for (const auto& figure : figures) {
    const Measure& of = figure.measure;
    if (of.tested_on.empty() && of.name == "accuracy" && of.scale.value_or(0.0) == 0.0) continue;
    std::cout << heading << name_of(figure) << "   " << percent(figure.first) << "   "
              << percent(figure.second) << "   (" << signed_text(figure.difference()) << ")\n";
    heading = "           ";
  }
}

void print_accuracies(const Comparison& comparison) {
  const SavedRun &first = comparison.first, &second = comparison.second;
  if (!first.is_retrieval() && !second.is_retrieval()) {
    std::cout << "zero-shot  " << percent(first.zero_shot_accuracy) << "   "
              << percent(second.zero_shot_accuracy) << "\nadapted    " << percent(first.accuracy) << "   "
              << percent(second.accuracy);
    if (comparison.why_incomparable.empty())
      std::cout << "   (" << signed_text(second.accuracy - first.accuracy) << ")";
    std::cout << "\n";
  }
  if (!comparison.why_incomparable.empty())
    std::cout << "not alike  " << comparison.why_incomparable << ": their figures are not compared\n";
}

void print_text(const Comparison& comparison) {
  const SavedRun &first = comparison.first, &second = comparison.second;
  std::cout << "A          " << describe(first) << "\nB          " << describe(second) << "\n";
  print_settings(comparison.settings);
  print_accuracies(comparison);
  print_figures(comparison.figures);
  print_pairs(comparison);
  std::cout << std::flush;
}

ordered_json run_json(const SavedRun& run) {
  ordered_json json = {{"run", run.name}, {"method", run.method}, {"protocol", run.protocol}};
  if (run.is_retrieval()) return json;
  json["zero_shot_accuracy"] = run.zero_shot_accuracy;
  json["accuracy"] = run.accuracy;
  return json;
}

/// [{figure, tested_on, eval_scale, a, b, difference}]; eval_scale null: the first of each run.
ordered_json figures_json(const std::vector<ComparedFigure>& figures) {
  auto json = ordered_json::array();
  for (const auto& figure : figures) {
    const auto& [name, tested_on, scale] = figure.measure;
    json.push_back({{"figure", name},
                    {"tested_on", tested_on},
                    {"eval_scale", scale ? ordered_json(*scale) : ordered_json()},
                    {"a", figure.first},
                    {"b", figure.second},
                    {"difference", figure.difference()}});
  }
  return json;
}

ordered_json as_json(const Comparison& comparison) {
  ordered_json settings = ordered_json::object();
  for (const auto& [setting, first, second] : comparison.settings)
    settings[setting] = ordered_json::array({first, second});
  ordered_json json = {{"a", run_json(comparison.first)},
                       {"b", run_json(comparison.second)},
                       {"settings", settings},
                       {"figures", figures_json(comparison.figures)},
                       {"paired", nullptr}};
  if (!comparison.why_incomparable.empty()) json["why_incomparable"] = comparison.why_incomparable;
  if (!comparison.pairs) {
    json["why_unpaired"] = comparison.why_unpaired;
    return json;
  }
  const train::PairedCounts& counts = comparison.pairs->counts;
  const train::McNemar& test = comparison.test;
  json["paired"] = {{"pictures", counts.total()},
                    {"both_right", counts.both_right},
                    {"only_a", counts.only_first},
                    {"only_b", counts.only_second},
                    {"both_wrong", counts.both_wrong},
                    {"left_out", comparison.pairs->only_in_first + comparison.pairs->only_in_second},
                    {"difference", test.difference},
                    {"interval_95", {test.difference - test.margin, test.difference + test.margin}},
                    {"test", test.exact ? "McNemar, exact" : "McNemar, continuity correction"},
                    {"statistic", test.exact ? ordered_json() : ordered_json(test.statistic)},
                    {"p_value", test.p_value}};
  return json;
}

}  // namespace

int compare_command(const std::vector<std::string>& arguments) {
  CompareOptions options;
  OptionTable table("clip_lora compare",
                    "Says in what two runs differ: their settings, their accuracies and recalls, and by "
                    "McNemar's test of the "
                    "saved predictions whether that may be chance.");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.validate();
  Comparison comparison;
  comparison.first = read_run(options.runs[0]);
  comparison.second = read_run(options.runs[1]);
  comparison.settings = differences(comparison.first.settings, comparison.second.settings);
  if (comparison.first.fingerprint != comparison.second.fingerprint) {
    comparison.settings.push_back(
        {"fingerprint", comparison.first.fingerprint, comparison.second.fingerprint});
  }
  comparison.why_incomparable = why_incomparable(comparison.first, comparison.second);
  comparison.figures =
      compared_figures(comparison.first, comparison.second, comparison.why_incomparable.empty());
  pair(comparison);
  if (options.json) {
    std::cout << io::json_text(as_json(comparison), 2) << "\n";
  } else {
    print_text(comparison);
  }
  return 0;
}

}  // namespace clip_lora::cli
