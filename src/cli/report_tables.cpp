#include <algorithm>

#include "clip_lora/cli/console.hpp"
#include "figure_table.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kHeadlines = 3;      // groups whose averages stand in the summary
constexpr std::size_t kHeadlinesEach = 2;  // of each protocol where there are several

std::string count_of(std::size_t count, const std::string& one, const std::string& many) {
  return with_commas(static_cast<std::int64_t>(count)) + " " + (count == 1 ? one : many);
}

std::string tile(const std::string& title, const std::string& value, const std::string& detail) {
  return "<div class=\"tile\"><dt>" + title + "</dt><dd>" + value + "<small>" + detail +
         "</small></dd></div>";
}

/// " (with gaps: 1 of 3 seeds)", or "".
std::string seeds_of_average(const ResultGroup& group, const ResultAverage& average) {
  const std::string lacking = group.lacking_seeds(average.seeds);
  return lacking.empty() ? "" : " (with gaps: " + lacking + ")";
}

/// Of which data sets an average is.
std::string averaged_over(const ResultGroup& group) {
  return group.datasets.size() == 1 ? escaped(group.datasets.front())
                                    : "mean of " + std::to_string(group.datasets.size()) + " data sets";
}

/// Zero-shot and adapted average of a group at the most shots where the average is complete.
std::string accuracy_headline(const ResultGroup& group) {
  for (auto shots = group.shots.rbegin(); shots != group.shots.rend(); ++shots) {
    const ResultAverage average = group.average(*shots);
    if (!average.complete) continue;
    const double before = group.zero_shot_average().summary.mean;
    return tile(escaped(group.title()) + ", " + shots_text(*shots),
                "<span" + place(group.index, "", shots_name(*shots)) + ">" +
                    figure(average.summary.mean, 2, "average_accuracy") + " %</span>",
                "<span class=\"gain\">" + signed_number(average.summary.mean - before, 2) +
                    "</span> over zero-shot <span" + place(group.index, "", "") + ">" +
                    figure(before, 2, "average_zero_shot") + "</span>; " + averaged_over(group) +
                    seeds_of_average(group, average));
  }
  return "";
}

/// The last figure of another protocol at the most shots that have it.
std::string protocol_headline(const ResultGroup& group) {
  const ProtocolFigure figure_shown = figures_of(group.protocol).back();
  for (auto shots = group.shots.rbegin(); shots != group.shots.rend(); ++shots) {
    const FigureCell after = average_of_figure(group, *shots, figure_shown, std::nullopt);
    const FigureCell before = average_of_figure(group, *shots, figure_shown, 0.0);
    if (after.summary.count == 0 || before.summary.count == 0) continue;
    const std::string with_shots = *shots == kAllShots ? "" : ", " + shots_text(*shots);
    return tile(escaped(group.title()) + with_shots,
                "<span" + after.attributes + ">" + figure(after.summary.mean, 2, "measured") + " %</span>",
                figure_shown.label + (group.protocol == kRetrieval ? ", recall at 1" : "") +
                    "; <span class=\"gain\">" + signed_number(after.summary.mean - before.summary.mean, 2) +
                    "</span> over zero-shot <span" + before.attributes + ">" +
                    figure(before.summary.mean, 2, "measured") + "</span>; " + averaged_over(group) +
                    (after.note.empty() ? "" : " (with gaps: " + escaped(after.note) + ")"));
  }
  return "";
}

std::string headline(const ResultGroup& group) {
  return group.protocol == kAllClasses ? accuracy_headline(group) : protocol_headline(group);
}

/// Those of the first groups of each protocol.
std::string headlines(const ResultTable& table) {
  const auto protocols = protocols_of(table);
  std::string text;
  for (const auto& protocol : protocols) {
    const ResultTable part = of_protocol(table, protocol);
    const std::size_t shown =
        std::min(protocols.size() == 1 ? kHeadlines : kHeadlinesEach, part.groups.size());
    for (std::size_t i = 0; i < shown; ++i) text += headline(part.groups[i]);
  }
  return text;
}

/// "eurosat, 4 shots: seed 2" for each cell that lacks seeds.
std::vector<std::string> missing_runs(const ResultTable& table) {
  std::vector<std::string> lines;
  for (const auto& group : table.groups) {
    for (const auto& dataset : group.datasets) {
      for (const std::int64_t shots : group.shots) {
        std::set<std::int64_t> absent = group.seeds;
        if (const ResultCell* cell = group.cell(dataset, shots)) {
          for (const SavedRun* run : cell->runs) absent.erase(run->seed);
        }
        if (absent.empty()) continue;
        std::string line = (table.groups.size() > 1 ? group.title() + ": " : "") + dataset + ", " +
                           shots_name(shots) + (shots == 1 ? " shot" : " shots") + ": seed";
        for (const std::int64_t seed : absent) line += " " + std::to_string(seed);
        lines.push_back(line);
      }
    }
  }
  return lines;
}

/// "eurosat, 4 shots, seed 2: 2 runs" for each seed of a cell that was done again.
std::vector<std::string> repeated_runs(const ResultTable& table) {
  std::vector<std::string> lines;
  for (const auto& group : table.groups) {
    for (const auto& [place, cell] : group.cells) {
      std::map<std::int64_t, std::size_t> runs;
      for (const SavedRun* run : cell.runs) ++runs[run->seed];
      for (const auto& [seed, count] : runs) {
        if (count < 2) continue;
        lines.push_back((table.groups.size() > 1 ? group.title() + ": " : "") + place.first + ", " +
                        shots_name(place.second) + (place.second == 1 ? " shot" : " shots") + ", seed " +
                        std::to_string(seed) + ": " + std::to_string(count) + " runs");
      }
    }
  }
  return lines;
}

std::string notice(const std::string& summary, const std::vector<std::string>& lines) {
  constexpr std::size_t kShown = 60;
  if (lines.empty()) return "";
  std::string text = "<details class=\"notice\"><summary>" + escaped(summary) + "</summary><ul>";
  for (std::size_t i = 0; i < std::min(kShown, lines.size()); ++i)
    text += "<li>" + escaped(lines[i]) + "</li>";
  if (lines.size() > kShown) text += "<li>… and " + std::to_string(lines.size() - kShown) + " more</li>";
  return text + "</ul></details>";
}

std::string joined(const std::set<std::string>& words) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : ", ") + word;
  return text;
}

struct Totals {
  double seconds = 0.0;
  std::size_t resumed = 0;  // runs
  std::int64_t peak_gpu_bytes = 0;
  std::set<std::string> datasets, backbones, devices, methods;
  std::set<std::int64_t> shots, seeds;  // shots: of classification
};

Totals totals_of(const std::vector<SavedRun>& runs) {
  Totals totals;
  for (const auto& run : runs) {
    totals.seconds += run.seconds_of("total").value_or(0.0);
    if (run.resumed_from) ++totals.resumed;
    totals.peak_gpu_bytes = std::max(totals.peak_gpu_bytes, run.peak_gpu_bytes.value_or(0));
    totals.datasets.insert(run.dataset);
    totals.backbones.insert(run.backbone);
    totals.devices.insert(run.device);
    totals.methods.insert(run.method);
    if (!run.is_retrieval()) totals.shots.insert(run.shots);
    totals.seeds.insert(run.seed);
  }
  return totals;
}

std::string shots_list(const std::set<std::int64_t>& shots) {
  std::string text;
  for (const std::int64_t number : shots) text += (text.empty() ? "" : ", ") + shots_name(number);
  return text;
}

std::string header_row(const ResultGroup& group, const std::string& first) {
  std::string row = "<thead><tr><th scope=\"col\">" + first + "</th><th scope=\"col\">zero-shot</th>";
  for (const std::int64_t shots : group.shots)
    row += "<th scope=\"col\">" + shots_name(shots) + (shots == 1 ? " shot" : " shots") + "</th>";
  return row + "</tr></thead>";
}

std::string deviation_text(const train::Summary& summary, const std::string& key) {
  if (!summary.deviation) return "";
  return "<span class=\"deviation\"> ± " + figure(*summary.deviation, 2, key) + "</span>";
}

std::string published_line(const ResultGroup& group, const std::optional<double>& value) {
  if (!value) return "";
  return "<span class=\"published\">" + escaped(group.published->name) + " " +
         figure(*value, 1, "published") + "</span>";
}

std::string partial(const std::string& what) {
  return what.empty() ? "" : "<span class=\"partial\">" + what + "</span>";
}

std::string mean_cell(const ResultGroup& group, const std::string& dataset, std::int64_t shots) {
  const ResultCell* cell = group.cell(dataset, shots);
  const std::string published = published_line(group, group.published_accuracy(dataset, shots));
  if (cell == nullptr) return "<td class=\"none\">–" + published + "</td>";
  const std::string seeds = partial(group.lacking_seeds(cell->seeds.size()));
  return "<td" + place(group.index, dataset, shots_name(shots)) + ">" +
         figure(cell->accuracy.mean, 2, "mean_accuracy") + deviation_text(cell->accuracy, "deviation") +
         seeds + published + "</td>";
}

std::string accuracy_average_cell(const ResultGroup& group, std::int64_t shots) {
  const ResultAverage average = group.average(shots);
  const std::string published = published_line(group, group.published_accuracy("", shots));
  if (!average.complete) {
    return "<td class=\"none\">– <span class=\"partial\">" + std::to_string(average.datasets) + " of " +
           std::to_string(group.datasets.size()) + " data sets</span>" + published + "</td>";
  }
  return "<td" + place(group.index, "", shots_name(shots)) + ">" +
         figure(average.summary.mean, 2, "average_accuracy") +
         deviation_text(average.summary, "average_deviation") + partial(group.lacking_seeds(average.seeds)) +
         published + "</td>";
}

std::string average_row(const ResultGroup& group, const std::string& name,
                        const std::vector<std::int64_t>& columns) {
  std::string row = "<tr class=\"average\"><th scope=\"row\">" + name + "</th><td" +
                    place(group.index, "", "") + ">" +
                    figure(group.zero_shot_average().summary.mean, 2, "average_zero_shot") +
                    published_line(group, group.published_zero_shot("")) + "</td>";
  for (const std::int64_t shots : columns) {
    const bool is_there = std::find(group.shots.begin(), group.shots.end(), shots) != group.shots.end();
    row += is_there ? accuracy_average_cell(group, shots) : kNoCell;
  }
  return row + "</tr>";
}

}  // namespace

std::string figure_cell(double value, int decimals, const std::string& key, const std::string& place) {
  return "<td" + attributes({{"data-key", key}, {"data-value", exact(value)}}) + place + ">" +
         fixed(value, decimals) + "</td>";
}

std::string place(std::size_t group, const std::string& dataset, const std::string& shots) {
  return attributes(
      {{"data-group", std::to_string(group)}, {"data-dataset", dataset}, {"data-shots", shots}});
}

std::string scrolling(const std::string& table) {
  return "<div class=\"scroll\" tabindex=\"0\">" + table + "</div>";
}

std::string summary_part(const SavedRuns& found, const ResultTable& table) {
  const Totals totals = totals_of(found.runs);
  const bool names_methods = totals.methods.size() > 1 || !totals.methods.contains(kLora);
  std::string text = "<p class=\"lead\">" + count_of(found.runs.size(), "run", "runs") + " on " +
                     count_of(totals.datasets.size(), "data set", "data sets") + " with " +
                     escaped(joined(totals.backbones)) + "; " +
                     (names_methods ? escaped(joined(totals.methods)) + "; " : "") +
                     (totals.shots.empty() ? "" : shots_list(totals.shots) + " shots per class, ") +
                     count_of(totals.seeds.size(), "seed", "seeds") +
                     ". Accuracies are those on the whole test split, in percent.</p><dl class=\"tiles\">";
  text += headlines(table);
  const std::string last_parts =
      totals.resumed > 0
          ? "; of " + count_of(totals.resumed, "resumed run", "resumed runs") + " the last part"
          : "";
  text += tile("time in all", duration(totals.seconds), escaped(joined(totals.devices)) + last_parts);
  if (totals.peak_gpu_bytes > 0) {
    text += tile("most GPU memory",
                 fixed(static_cast<double>(totals.peak_gpu_bytes) / kBytesPerGib, 2) + " GiB", "of any run");
  }
  text += "</dl>";
  const auto missing = missing_runs(table);
  text += notice(count_of(missing.size(), "cell lacks", "cells lack") + " runs", missing);
  const auto repeated = repeated_runs(table);
  text += notice(count_of(repeated.size(), "run was", "runs were") + " done again; all are in the means",
                 repeated);
  text += notice(count_of(found.skipped.size(), "file was", "files were") + " skipped", found.skipped);
  text += notice(count_of(found.failed.size(), "run", "runs") + " failed", found.failed);
  return text + notice("settings that are not the same in all cells of a table", table.mixed_settings);
}

std::string averages_part(const ResultTable& table) {
  if (table.groups.size() < 2) return "";
  ResultGroup columns;  // for the header
  columns.shots = all_shots(table);
  std::string text = "<table>" + header_row(columns, "mean over data sets") + "<tbody>";
  for (const auto& group : table.groups) {
    text += average_row(group,
                        escaped(group.label()) + " <span class=\"partial\">" +
                            count_of(group.datasets.size(), "data set", "data sets") + "</span>",
                        columns.shots);
  }
  return scrolling(text + "</tbody></table>");
}

std::string group_part(const ResultGroup& group) {
  std::string text = "<table>" + header_row(group, "data set") + "<tbody>";
  for (const auto& dataset : group.datasets) {
    text += "<tr><th scope=\"row\">" + escaped(dataset) + "</th><td" + place(group.index, dataset, "") + ">" +
            figure(group.zero_shot(dataset).mean, 2, "zero_shot") +
            published_line(group, group.published_zero_shot(dataset)) + "</td>";
    for (const std::int64_t shots : group.shots) text += mean_cell(group, dataset, shots);
    text += "</tr>";
  }
  if (group.datasets.size() > 1) text += average_row(group, "average", group.shots);
  return scrolling(text + "</tbody></table>");
}

}  // namespace clip_lora::cli
