#include "report_text.hpp"

#include <algorithm>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/io/json_text.hpp"
#include "figure_table.hpp"
#include "prediction_text.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::ordered_json;

constexpr const char* kNoFigure = "–";

std::string number(const ordered_json& value) { return value.is_null() ? "" : io::json_text(value); }

template <typename T>
std::string number(const std::optional<T>& value) {
  return value ? number(ordered_json(*value)) : "";
}

void add_row(std::string& text, const std::vector<std::string>& fields) {
  for (const auto& field : fields) text += (&field == &fields.front() ? "" : ",") + csv_field(field);
  text += "\n";
}

/// " (2 of 3)", or "".
std::string seeds_text(std::size_t present, std::size_t seeds) {
  return present < seeds ? " (" + std::to_string(present) + " of " + std::to_string(seeds) + ")" : "";
}

std::string average_text(const ResultAverage& average, const ResultGroup& group) {
  if (average.complete) return spread_text(average.summary) + seeds_text(average.seeds, group.seeds.size());
  return std::to_string(average.datasets) + " of " + std::to_string(group.datasets.size()) + " data sets";
}

std::string published_text(const std::optional<double>& value) {
  return value ? fixed(*value, *value == static_cast<double>(static_cast<int>(*value * 10.0)) / 10.0 ? 1 : 2)
               : kNoFigure;
}

/// The line of `dataset`, or of the averages for an empty name, of what is published; none if nothing is.
void add_published(std::string& text, const ResultGroup& group, const std::string& dataset) {
  std::vector<std::string> cells = {"&nbsp;&nbsp;" + (group.published ? group.published->name : ""),
                                    published_text(group.published_zero_shot(dataset))};
  for (const std::int64_t shots : group.shots) {
    cells.push_back(published_text(group.published_accuracy(dataset, shots)));
  }
  if (std::any_of(cells.begin() + 1, cells.end(), [](const auto& cell) { return cell != kNoFigure; }))
    add_markdown_row(text, cells);
}

void add_group(std::string& text, const ResultGroup& group) {
  text += "\n## " + printable(group.label()) + "\n\n";
  std::vector<std::string> header = {"", "zero-shot"};
  for (const std::int64_t shots : group.shots)
    header.push_back(shots_name(shots) + (shots == 1 ? " shot" : " shots"));
  add_markdown_row(text, header);
  text += "|---|" + std::string(4, '-') + ":|";
  for (std::size_t i = 0; i < group.shots.size(); ++i) text += "---:|";
  text += "\n";
  for (const auto& dataset : group.datasets) {
    std::vector<std::string> cells = {printable(dataset), fixed(group.zero_shot(dataset).mean, 2)};
    for (const std::int64_t shots : group.shots) {
      const ResultCell* cell = group.cell(dataset, shots);
      cells.push_back(cell == nullptr ? kNoFigure : cell_text(*cell, group.seeds.size()));
    }
    add_markdown_row(text, cells);
    add_published(text, group, dataset);
  }
  if (group.datasets.size() < 2) return;
  std::vector<std::string> cells = {"**average**", fixed(group.zero_shot_average().summary.mean, 2)};
  for (const std::int64_t shots : group.shots) cells.push_back(average_text(group.average(shots), group));
  add_markdown_row(text, cells);
  add_published(text, group, "");
}

void add_tables(std::string& text, const std::string& title, const std::vector<FigureTable>& tables) {
  if (tables.empty()) return;
  text += "\n## " + title + "\n";
  for (const auto& table : tables) text += as_markdown(table);
}

void add_sources(std::string& text, const ResultTable& table) {
  for (const auto& group : table.groups) {
    if (!group.shows_published()) continue;
    const PublishedFigures& published = *group.published;
    const std::string line = "- " + published.name + ", " + published.backbone + ": " + published.source +
                             (published.url.empty() ? "" : ", <" + published.url + ">") + " (" +
                             published.note + ")\n";
    if (text.find(line) == std::string::npos) text += line;
  }
}

}  // namespace

std::string results_csv(const ResultTable& table) {
  std::vector<std::string> header = {"run",
                                     "dataset",
                                     "backbone",
                                     "shots",
                                     "seed",
                                     "method",
                                     "protocol",
                                     "zero_shot_accuracy",
                                     "accuracy",
                                     "top5_accuracy",
                                     "macro_f1",
                                     "expected_calibration_error",
                                     "iterations",
                                     "images",
                                     "images_seen",
                                     "resumed_from_iteration",
                                     "resumed_from_images",
                                     "loss",
                                     "seconds_total",
                                     "seconds_training",
                                     "peak_gpu_bytes",
                                     "peak_resident_bytes",
                                     "device",
                                     "clip_lora",
                                     "fingerprint"};
  for (const auto& setting : table.varying_settings) header.push_back("setting." + setting);
  header.emplace_back("command");
  std::string text;
  add_row(text, header);
  for (const auto& group : table.groups) {
    for (const SavedRun* run : group.runs) {
      const auto& resumed = run->resumed_from;
      std::vector<std::string> fields = {run->name,
                                         run->dataset,
                                         run->backbone,
                                         shots_name(run->shots),
                                         std::to_string(run->seed),
                                         run->method,
                                         run->protocol,
                                         run->is_retrieval() ? "" : number(run->zero_shot_accuracy),
                                         run->is_retrieval() ? "" : number(run->accuracy),
                                         number(run->top5_accuracy),
                                         number(run->macro_f1),
                                         number(run->expected_calibration_error),
                                         std::to_string(run->iterations),
                                         std::to_string(run->images),
                                         std::to_string(run->images_seen),
                                         resumed ? std::to_string(resumed->iteration) : "",
                                         resumed ? std::to_string(resumed->images) : "",
                                         number(run->loss),
                                         number(run->seconds_of("total")),
                                         number(run->seconds_of("training")),
                                         number(run->peak_gpu_bytes),
                                         number(run->peak_resident_bytes),
                                         run->device,
                                         run->version,
                                         run->fingerprint};
      for (const auto& setting : table.varying_settings)
        fields.push_back(setting_text(run->settings.value(setting, ordered_json())));
      fields.push_back(run->command);
      add_row(text, fields);
    }
  }
  return text;
}

std::string cell_text(const ResultCell& cell, std::size_t seeds) {
  return spread_text(cell.accuracy) + seeds_text(cell.seeds.size(), seeds);
}

std::string scales_csv(const ResultTable& table) {
  std::string text;
  add_row(text, {"run", "dataset", "backbone", "method", "protocol", "shots", "seed", "tested_on",
                 "eval_scale", "figure", "percent"});
  for (const auto& group : table.groups) {
    for (const SavedRun* run : group.runs) {
      for (const auto& [of, value] : run->measured) {
        const auto& [tested_on, name, scale] = of;
        add_row(text, {run->name, run->dataset, run->backbone, run->method, run->protocol,
                       shots_name(run->shots), std::to_string(run->seed),
                       tested_on.empty() ? run->dataset : tested_on, number(scale), name, number(value)});
      }
    }
  }
  return text;
}

void add_markdown_row(std::string& text, const std::vector<std::string>& cells) {
  text += "|";
  for (const auto& cell : cells) {
    text += " ";
    for (const char character : cell)
      text += character == '|' ? std::string("\\|") : std::string(1, character);
    text += " |";
  }
  text += "\n";
}

std::string results_markdown(const ResultTable& table) {
  std::string text =
      "# Results\n\nTest accuracy in percent: mean ± standard deviation over seeds; (2 of 3): so many seeds "
      "are there, of an average in one of its data sets; –: none is.\n";
  for (const auto& group : of_protocol(table, kAllClasses).groups) add_group(text, group);
  add_tables(text, "Methods", method_tables(table));
  add_tables(text, protocol_name(kBaseToNew), base_to_new_tables(table));
  add_tables(text, protocol_name(kRobustness), other_dataset_tables(table, kRobustness));
  add_tables(text, protocol_name(kCrossDataset), other_dataset_tables(table, kCrossDataset));
  add_tables(text, protocol_name(kRetrieval), retrieval_tables(table));
  std::string sources;
  add_sources(sources, table);
  if (!sources.empty()) text += "\nPublished:\n\n" + sources;
  for (const auto& setting : table.mixed_settings)
    text += "\nNot the same in all cells: " + printable(setting) + "\n";
  return text;
}

}  // namespace clip_lora::cli
