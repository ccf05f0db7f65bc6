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

std::vector<Difference> differences(const ordered_json& first, const ordered_json& second) {
  std::vector<Difference> found;
  for (const auto& [name, value] : first.items()) {
    const ordered_json other = second.value(name, assumed(name));
    if (value != other) found.push_back({name, value, other});
  }
  for (const auto& [name, value] : second.items()) {
    if (!first.contains(name) && value != assumed(name)) found.push_back({name, assumed(name), value});
  }
  return found;
}

struct Comparison {
  SavedRun first, second;
  std::vector<Difference> settings;
  std::optional<PairedPredictions> pairs;  // nothing if a run has no predictions
  std::string why_unpaired;                // "" if there are pairs
  train::McNemar test;
};

/// The pictures that both runs predicted, in pairs.
void pair(Comparison& comparison) {
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

void print_text(const Comparison& comparison) {
  const SavedRun &first = comparison.first, &second = comparison.second;
  std::cout << "A          " << describe(first) << "\nB          " << describe(second) << "\n";
  print_settings(comparison.settings);
  std::cout << "zero-shot  " << percent(first.zero_shot_accuracy) << "   "
            << percent(second.zero_shot_accuracy) << "\nadapted    " << percent(first.accuracy) << "   "
            << percent(second.accuracy) << "   (" << signed_text(second.accuracy - first.accuracy) << ")\n";
  print_pairs(comparison);
  std::cout << std::flush;
}

ordered_json run_json(const SavedRun& run) {
  return {{"run", run.name}, {"zero_shot_accuracy", run.zero_shot_accuracy}, {"accuracy", run.accuracy}};
}

ordered_json as_json(const Comparison& comparison) {
  ordered_json settings = ordered_json::object();
  for (const auto& [setting, first, second] : comparison.settings)
    settings[setting] = ordered_json::array({first, second});
  ordered_json json = {{"a", run_json(comparison.first)},
                       {"b", run_json(comparison.second)},
                       {"settings", settings},
                       {"paired", nullptr}};
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
  OptionTable table(
      "clip_lora compare",
      "Says in what two runs differ: their settings, their accuracies, and by McNemar's test of the "
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
  pair(comparison);
  if (options.json) {
    std::cout << io::json_text(as_json(comparison), 2) << "\n";
  } else {
    print_text(comparison);
  }
  return 0;
}

}  // namespace clip_lora::cli
