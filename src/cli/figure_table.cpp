#include "figure_table.hpp"

#include <algorithm>

#include "clip_lora/cli/console.hpp"
#include "markup.hpp"
#include "report_parts.hpp"
#include "report_text.hpp"

namespace clip_lora::cli {
namespace {

std::string html_cell(const FigureCell& cell) {
  const std::string note =
      cell.note.empty() ? "" : "<span class=\"partial\">" + escaped(cell.note) + "</span>";
  if (cell.summary.count == 0) return "<td class=\"none\">– " + note + "</td>";
  std::string text = std::string(cell.is_best ? "<td class=\"best\"" : "<td") + cell.attributes + ">" +
                     figure(cell.summary.mean, 2, "measured");
  if (cell.summary.deviation) {
    text += "<span class=\"deviation\"> ± " + figure(*cell.summary.deviation, 2, "measured_deviation") +
            "</span>";
  }
  return text + note + "</td>";
}

std::string html_row(const FigureRow& row, std::size_t columns) {
  if (row.cells.empty()) {
    return "<tr class=\"heading\"><th scope=\"rowgroup\" colspan=\"" + std::to_string(columns) + "\">" +
           escaped(row.label) + "</th></tr>";
  }
  std::string text = std::string(row.is_average ? "<tr class=\"average\">" : "<tr>") + "<th scope=\"row\">" +
                     escaped(row.label) + "</th>";
  for (const auto& cell : row.cells) text += html_cell(cell);
  return text + "</tr>";
}

std::string markdown_cell(const FigureCell& cell) {
  const std::string note = cell.note.empty() ? "" : " (" + cell.note + ")";
  if (cell.summary.count == 0) return "–" + note;
  const std::string text = spread_text(cell.summary);
  return (cell.is_best ? "**" + text + "**" : text) + note;
}

std::string text_of_scale(const Measure& measure) { return measure.scale ? exact(*measure.scale) : ""; }

}  // namespace

std::string as_html(const FigureTable& table) {
  std::string text = table.title.empty() ? "" : "<h3>" + escaped(table.title) + "</h3>";
  std::string markup = "<table class=\"figures\"><thead><tr>";
  for (const auto& column : table.columns) markup += "<th scope=\"col\">" + escaped(column) + "</th>";
  markup += "</tr></thead><tbody>";
  for (const auto& row : table.rows) markup += html_row(row, table.columns.size());
  text += scrolling(markup + "</tbody></table>");
  return table.note.empty() ? text : text + "<p class=\"note\">" + escaped(table.note) + "</p>";
}

std::string as_markdown(const FigureTable& table) {
  std::string text = "\n### " + printable(table.title) + "\n\n";
  std::vector<std::string> cells;
  for (const auto& column : table.columns) cells.push_back(printable(column));
  add_markdown_row(text, cells);
  text += "|---|";
  for (std::size_t i = 1; i < table.columns.size(); ++i) text += "---:|";
  text += "\n";
  for (const auto& row : table.rows) {
    const bool stands_out = row.is_average || row.cells.empty();
    cells = {stands_out ? "**" + printable(row.label) + "**" : printable(row.label)};
    for (const auto& cell : row.cells) cells.push_back(markdown_cell(cell));
    cells.resize(table.columns.size());
    add_markdown_row(text, cells);
  }
  return table.note.empty() ? text : text + "\n" + printable(table.note) + "\n";
}

std::string spread_text(const train::Summary& summary) {
  const std::string mean = fixed(summary.mean, 2);
  return summary.deviation ? mean + " ± " + fixed(*summary.deviation, 2) : mean;
}

std::string measured_place(const ResultGroup& group, const std::string& dataset, std::int64_t shots,
                           const Measure& measure) {
  return place(group.index, dataset, shots_name(shots)) +
         attributes({{"data-measure", measure.name},
                     {"data-tested", measure.tested_on},
                     {"data-scale", text_of_scale(measure)}});
}

FigureCell measured_cell(const ResultGroup& group, const std::string& dataset, std::int64_t shots,
                         const Measure& measure) {
  FigureCell cell;
  cell.attributes = measured_place(group, dataset, shots, measure);
  std::size_t seeds = 0;
  if (dataset.empty()) {
    const ResultAverage average = group.average(shots, measure);
    if (!average.complete) {
      cell.note =
          std::to_string(average.datasets) + " of " + std::to_string(group.datasets.size()) + " data sets";
      return cell;
    }
    cell.summary = average.summary;
    seeds = average.seeds;
  } else {
    const ResultCell* found = group.cell(dataset, shots);
    if (found == nullptr) return cell;
    cell.summary = found->of(measure);
    seeds = found->by_seed(measure).size();
  }
  if (measure.scale == 0.0) {
    cell.summary.deviation.reset();
  } else if (cell.summary.count > 0) {
    cell.note = group.lacking_seeds(seeds);
  }
  return cell;
}

FigureCell average_cell(const ResultGroup& group, std::size_t datasets, std::int64_t shots,
                        const Measure& measure) {
  FigureCell cell = measured_cell(group, "", shots, measure);
  if (cell.summary.count == 0 || group.datasets.size() == datasets) return cell;
  FigureCell none;
  none.note = std::to_string(group.datasets.size()) + " of " + std::to_string(datasets) + " data sets";
  return none;
}

std::string protocol_name(const std::string& protocol) {
  if (protocol == kBaseToNew) return "Base to new classes";
  if (protocol == kCrossDataset) return "Other data sets";
  if (protocol == kRobustness) return "Shifts of ImageNet";
  if (protocol == kRetrieval) return "Retrieval";
  return "All classes";
}

std::vector<ProtocolFigure> figures_of(const std::string& protocol) {
  if (protocol == kBaseToNew) {
    return {{"accuracy", "", "base classes"},
            {"new_classes_accuracy", "", "new classes"},
            {"harmonic_mean", "", "harmonic mean"}};
  }
  if (protocol == kCrossDataset)
    return {{"accuracy", "", "data set trained on"}, {"accuracy", kMeanOfOthers, "mean of the others"}};
  if (protocol == kRobustness)
    return {{"accuracy", "", "data set trained on"}, {"accuracy", kMeanOfOthers, "mean of the shifts"}};
  if (protocol == kRetrieval)
    return {{"image_to_text.at_1", "", "image → text"}, {"text_to_image.at_1", "", "text → image"}};
  return {{"accuracy", "", "accuracy"}};
}

FigureCell average_of_figure(const ResultGroup& group, std::int64_t shots, const ProtocolFigure& figure,
                             const std::optional<double>& scale) {
  return figure.name == "harmonic_mean" && group.datasets.size() > 1
             ? average_of_harmonic_means(group, group.datasets.size(), shots, scale)
             : measured_cell(group, "", shots, {figure.name, figure.tested_on, scale});
}

std::vector<std::vector<const ResultGroup*>> by_backbone(const ResultTable& table) {
  std::vector<std::vector<const ResultGroup*>> backbones;
  for (const auto& group : table.groups) {  // sorted by backbone
    if (backbones.empty() || backbones.back().front()->backbone != group.backbone) backbones.emplace_back();
    backbones.back().push_back(&group);
  }
  return backbones;
}

std::vector<const ResultGroup*> with_cell(const std::vector<const ResultGroup*>& groups,
                                          const std::string& dataset, std::int64_t shots) {
  std::vector<const ResultGroup*> found;
  std::copy_if(groups.begin(), groups.end(), std::back_inserter(found),
               [&](const ResultGroup* group) { return group->cell(dataset, shots) != nullptr; });
  return found;
}

std::vector<const ResultGroup*> with_own_zero_shot(const std::vector<const ResultGroup*>& groups) {
  std::vector<const ResultGroup*> own;
  for (const ResultGroup* group : groups) {
    const bool is_known = std::any_of(
        own.begin(), own.end(), [&](const ResultGroup* other) { return share_zero_shot(*other, *group); });
    if (!is_known) own.push_back(group);
  }
  return own;
}

std::string zero_shot_label(const ResultGroup& group, const std::vector<const ResultGroup*>& groups) {
  return with_own_zero_shot(groups).size() == 1 ? "zero-shot" : "zero-shot (" + short_label(group) + ")";
}

std::string short_label(const ResultGroup& group) {
  return group.variant.empty() ? group.method : group.variant;
}

std::string scale_text(double scale) {
  std::string text = exact(scale);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string at_scale(const std::optional<double>& scale) { return scale ? ", α " + scale_text(*scale) : ""; }

std::string shots_text(std::int64_t shots) { return shots_name(shots) + (shots == 1 ? " shot" : " shots"); }

}  // namespace clip_lora::cli
