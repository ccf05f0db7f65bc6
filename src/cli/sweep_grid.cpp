#include "sweep_grid.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <set>
#include <system_error>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/captions.hpp"
#include "command_line.hpp"
#include "flag_parts.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const std::string kAll = "all";
constexpr std::size_t kMostRuns = 100'000;  // values of a few flags multiply to more than fits into memory

/// Values of one flag, or of what belongs to it: each is {flag: value}.
using Axis = std::vector<json>;

/// An integer where the word is one.
json value_of(const std::string& word) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error == std::errc() && end == word.data() + word.size()) return number;
  return word;
}

Axis axis_of(const std::string& flag, const std::string& key, const std::vector<std::string>& words) {
  Axis axis;
  for (const auto& word : words) axis.push_back({{key, value_of(word)}});
  if (axis.empty()) throw ConfigError("--" + flag + " is empty: there is nothing to do");
  return axis;
}

/// What `--datasets all` stands for.
std::vector<std::string> all_datasets(const std::string& protocol) {
  if (protocol == kRobustness) return {"imagenet"};
  if (protocol != kRetrieval) return data::published_benchmark_names();
  std::vector<std::string> names;
  for (const auto& benchmark : data::caption_benchmarks()) names.push_back(benchmark.name);
  return names;
}

Axis dataset_axis(const std::vector<std::string>& datasets, const std::string& protocol) {
  std::vector<std::string> names;
  for (const auto& dataset : datasets) {
    const auto meant = dataset == kAll ? all_datasets(protocol) : std::vector<std::string>{dataset};
    names.insert(names.end(), meant.begin(), meant.end());
  }
  Axis axis;
  for (const auto& name : names) axis.push_back({{"dataset", name}});
  if (axis.empty()) {
    throw ConfigError(
        "--datasets is missing: expected all, or names, folders or files as --dataset takes them");
  }
  return axis;
}

/// Pairs are trained on all together, unless it is said otherwise.
Axis shots_axis(const SweepOptions& options) {
  const bool are_pairs = options.run.data.protocol == kRetrieval && !options.given.contains("shots");
  return axis_of("shots", "shots", are_pairs ? std::vector{kAll} : options.shots);
}

/// A backbone is a name, or a checkpoint that is there.
Axis backbone_axis(const std::vector<std::string>& backbones) {
  Axis axis;
  std::error_code ignored;
  for (const auto& backbone : backbones) {
    axis.push_back({{fs::exists(backbone, ignored) ? "checkpoint" : "backbone", backbone}});
  }
  if (axis.empty()) axis.push_back(json::object());
  return axis;
}

Axis grid_axis(const std::string& key, const json& values) {
  if (!values.is_array()) {
    throw ConfigError("grid: '" + key + "': expected an array of values, got " + values.dump());
  }
  if (values.empty()) throw ConfigError("grid: '" + key + "' has no values: there is nothing to do");
  Axis axis;
  for (const auto& value : values) axis.push_back({{key, value}});
  return axis;
}

void refuse_repetitions(const Axis& axis) {
  std::set<json> seen;
  for (const json& value : axis) {
    if (!seen.insert(value).second) throw ConfigError("the sweep has " + value.dump() + " twice");
  }
}

/// The names that a grid may have.
std::vector<std::string> grid_keys() {
  const std::set<std::string>
      not_of_grids =
          {
              "dataset",   "shots",     "seed",         "backbone",     "checkpoint",
              "save_path", "eval_only", "quiet",        "verbose",      "variant",
              "resume",    "device",    "skip_missing", "deterministic"};  // LibTorch takes it for all products of a process or none
  RunOptions options;
  OptionTable table("", "");
  bind(table, options);
  std::vector<std::string> keys;
  const nlohmann::ordered_json all = table.to_json();
  for (const auto& [key, value] : all.items()) {
    if (!not_of_grids.contains(key)) keys.push_back(key);
  }
  return keys;
}

std::vector<Axis> axes_of(const SweepOptions& options) {
  std::vector<Axis> axes = {backbone_axis(options.backbones),
                            dataset_axis(options.datasets, options.run.data.protocol)};
  if (!options.grid.is_object()) {
    throw ConfigError("'grid': expected an object of flags and their values, got " + options.grid.dump());
  }
  const auto keys = grid_keys();
  for (const auto& [key, values] : options.grid.items()) {
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
      throw ConfigError("grid: unknown key '" + key + "'" + did_you_mean(key, keys) +
                        " (data sets, shots, seeds and backbones have keys of their own beside the grid)");
    }
    if (options.given_of_run.contains(key))
      throw ConfigError("grid: '" + key + "' is given outside of it too");
    axes.push_back(grid_axis(key, values));
  }
  axes.push_back(shots_axis(options));
  axes.push_back(axis_of("seeds", "seed", options.seeds));
  for (const auto& axis : axes) refuse_repetitions(axis);
  return axes;
}

/// FNV-1a, as eight hexadecimal digits.
std::string short_hash(const std::string& text) {
  std::uint32_t value = 2166136261U;
  for (const char character : text) value = (value ^ static_cast<unsigned char>(character)) * 16777619U;
  std::string digits(8, '0');
  for (std::size_t i = 0; i < digits.size(); ++i)
    digits[i] = "0123456789abcdef"[(value >> (28 - 4 * i)) & 15];
  return digits;
}

std::string word_of(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return value.dump();
  std::string words;
  for (const auto& element : value) words += word_of(element);
  return words;
}

/// "r4", "encoder-both", "params-qkv": a part of a path that no other value of the flag has.
std::string folder_word(const std::string& key, const json& value) {
  constexpr std::size_t kLongest = 40;
  const std::string word = word_of(value);
  std::string plain;
  for (const char character : word.substr(0, kLongest)) {
    const bool is_plain = std::isalnum(static_cast<unsigned char>(character)) != 0 || character == '.' ||
                          character == '-' || character == '+';
    plain += is_plain ? character : '-';
  }
  if (plain != word) plain += "-" + short_hash(value.dump());
  return key + (value.is_number() ? "" : "-") + plain;
}

std::string variant_of(const json& cell, const json& grid) {
  std::string variant;
  for (const auto& [key, values] : grid.items()) {
    variant += (variant.empty() ? "" : "_") + folder_word(key, cell.at(key));
  }
  return variant;
}

std::string label_of(const json& cell, const std::string& variant, bool names_backbone) {
  std::string label;
  if (names_backbone) {
    label = cell.contains("checkpoint")
                ? fs::path(cell.at("checkpoint").get<std::string>()).filename().string()
                : cell.at("backbone").get<std::string>();
    label += " ";
  }
  label += fs::path(cell.at("dataset").get<std::string>()).filename().string();
  label += " " + word_of(cell.at("shots")) + (cell.at("shots") == 1 ? " shot" : " shots");
  if (!variant.empty()) label += " " + variant;
  return label + " seed " + word_of(cell.at("seed"));
}

/// The options of one run, of which those `for_all` are left out where they have no part.
RunOptions options_of(json for_all, const json& cell) {
  RunOptions options;
  OptionTable table("clip_lora sweep", "");
  bind(table, options);
  json settings = for_all;
  settings.update(cell);
  table.read(settings, "");
  table.apply_further_defaults();
  options.given = table.given();
  const std::size_t count = for_all.size();
  for (const auto& [flag, why] : flags_without_part(options)) for_all.erase(flag);
  return for_all.size() == count ? options : options_of(for_all, cell);
}

SweepRun make_run(const SweepOptions& sweep, const json& cell) {
  SweepRun run;
  const std::string variant = variant_of(cell, sweep.grid);
  run.label = label_of(cell, variant, sweep.backbones.size() > 1);
  json own = cell;
  if (!variant.empty()) own["variant"] = variant;
  try {
    run.options = options_of(sweep.given_of_run, own);
    OutputOptions& output = run.options.output;
    output.resume = output.resume || output.checkpoint_every > 0;
    DataOptions& data = run.options.data;
    data.skip_missing = sweep.skip_missing && data.has_other_datasets();
    run.options.validate();
  } catch (const ConfigError& error) {
    throw ConfigError("run '" + run.label + "': " + error.what());
  }
  return run;
}

/// Throws ConfigError for a flag of all runs that none of them takes.
void require_part_in_one(const std::vector<SweepRun>& runs, const std::string& flag) {
  if (std::ranges::any_of(runs, [&](const SweepRun& run) { return run.options.given.contains(flag); }))
    return;
  throw ConfigError("--" + flag + " " + flags_without_part(runs.front().options).at(flag));
}

}  // namespace

std::vector<SweepRun> expand_grid(const SweepOptions& options) {
  std::vector<json> cells = {json::object()};
  for (const Axis& axis : axes_of(options)) {
    if (cells.size() * axis.size() > kMostRuns) {
      throw ConfigError("the sweep has more than " + std::to_string(kMostRuns) +
                        " runs (hint: several sweeps can share --save_path)");
    }
    std::vector<json> longer;
    for (const auto& cell : cells) {
      for (const auto& value : axis) {
        longer.push_back(cell);
        longer.back().update(value);
      }
    }
    cells = std::move(longer);
  }
  std::vector<SweepRun> runs;
  for (const auto& cell : cells) runs.push_back(make_run(options, cell));
  for (const auto& [flag, value] : options.given_of_run.items()) require_part_in_one(runs, flag);
  return runs;
}

std::vector<SweepRun> part_of(const std::vector<SweepRun>& runs, const std::string& part) {
  if (part.empty()) return runs;
  const char* const end = part.data() + part.size();
  std::size_t index = 0, count = 0;
  const auto first = std::from_chars(part.data(), end, index);
  const bool has_slash = first.ec == std::errc() && first.ptr != end && *first.ptr == '/';
  const auto second = has_slash ? std::from_chars(first.ptr + 1, end, count) : first;
  if (!has_slash || second.ec != std::errc() || second.ptr != end || index >= count) {
    throw ConfigError("--part '" + part + "': expected I/N with I from 0 to N - 1");
  }
  const auto at = [&](std::size_t i) {
    return runs.begin() + static_cast<std::ptrdiff_t>(runs.size() * i / count);
  };
  return {at(index), at(index + 1)};
}

fs::path this_program() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return error ? fs::path("clip_lora") : program;
}

std::string command_of(const RunOptions& options) {
  const std::string line = command_line(options);
  return shell_quoted(this_program().string()) + line.substr(line.find(' '));
}

}  // namespace clip_lora::cli
