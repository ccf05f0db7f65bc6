#include <algorithm>

#include "chart.hpp"
#include "clip_lora/cli/console.hpp"
#include "figure_table.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kShiftsBudget = 150'000;  // bytes

/// Runs of one data set and number of shots, by method, and what they were tested on.
struct Unit {
  std::vector<const ResultGroup*> groups;
  std::string dataset;
  std::int64_t shots = 0;
  std::vector<std::string> others;  ///< that any of the runs was tested on

  std::string title() const { return groups.front()->backbone + ", " + dataset + ", " + shots_text(shots); }
};

std::vector<std::string> others_of(const std::vector<const ResultGroup*>& groups, const std::string& dataset,
                                   std::int64_t shots) {
  std::vector<std::string> others;
  for (const ResultGroup* group : groups) {
    for (const SavedRun* run : group->cell(dataset, shots)->runs) {
      for (const auto& other : run->others) {
        if (std::find(others.begin(), others.end(), other) == others.end()) others.push_back(other);
      }
    }
  }
  return others;
}

std::vector<Unit> units_of(const ResultTable& part) {
  std::vector<Unit> units;
  for (const auto& of_backbone : by_backbone(part)) {
    for (const auto& dataset : all_datasets(part)) {
      for (const std::int64_t shots : all_shots(part)) {
        const auto groups = with_cell(of_backbone, dataset, shots);
        if (!groups.empty()) units.push_back({groups, dataset, shots, others_of(groups, dataset, shots)});
      }
    }
  }
  return units;
}

/// On how many of the others the run is tested that has the fewest.
std::size_t fewest_others(const ResultGroup& group, const Unit& unit) {
  std::size_t fewest = unit.others.size();
  for (const SavedRun* run : group.cell(unit.dataset, unit.shots)->runs)
    fewest = std::min(fewest, run->others.size());
  return fewest;
}

/// A figure of one data set or of the mean, which is left out where it is one over fewer data sets.
FigureCell cell_of(const ResultGroup& group, const Unit& unit, const std::string& tested_on,
                   const std::optional<double>& scale) {
  const std::size_t fewest = fewest_others(group, unit);
  if (tested_on != kMeanOfOthers || fewest == unit.others.size())
    return measured_cell(group, unit.dataset, unit.shots, {"accuracy", tested_on, scale});
  FigureCell cell;
  cell.note = std::to_string(fewest) + " of " + std::to_string(unit.others.size()) + " data sets";
  return cell;
}

/// The scales of a group's adapted columns.
std::vector<double> adapted_scales(const ResultGroup& group, const Unit& unit) {
  std::set<double> scales = group.scales(unit.shots, "accuracy", "");
  scales.erase(0.0);
  return {scales.begin(), scales.end()};
}

FigureTable table_of(const Unit& unit) {
  const auto own = with_own_zero_shot(unit.groups);
  FigureTable table;
  table.title = unit.title();
  table.columns = {"tested on"};
  std::vector<std::pair<const ResultGroup*, double>> columns;
  for (const ResultGroup* group : unit.groups) {
    if (std::find(own.begin(), own.end(), group) != own.end()) {
      columns.emplace_back(group, 0.0);
      table.columns.push_back(zero_shot_label(*group, unit.groups));
    }
    for (const double scale : adapted_scales(*group, unit)) {
      columns.emplace_back(group, scale);
      table.columns.push_back(short_label(*group) + at_scale(scale));
    }
  }
  const auto add_row = [&](const std::string& label, const std::string& tested_on, bool is_average) {
    FigureRow row{label, {}, is_average};
    for (const auto& [group, scale] : columns) row.cells.push_back(cell_of(*group, unit, tested_on, scale));
    table.rows.push_back(std::move(row));
  };
  add_row(unit.dataset + " (trained on)", "", false);
  for (const auto& other : unit.others) add_row(other, other, false);
  if (!unit.others.empty()) add_row("mean of the others", kMeanOfOthers, true);
  return table;
}

void add_bar(BarChart::Group& bars, const FigureCell& cell, const std::string& label, std::size_t colour,
             bool filled) {
  if (cell.summary.count == 0) return;
  bars.bars.push_back(
      {style_of(colour), filled, cell.summary.mean, cell.summary.deviation,
       bars.name + ", " + label + ": " + spread_text(cell.summary),
       attributes({{"data-key", "measured"}, {"data-value", exact(cell.summary.mean)}}) + cell.attributes});
}

BarChart chart_of(const Unit& unit) {
  BarChart chart;
  chart.label = "Test accuracy by data set, " + unit.title();
  chart.x_title = "test accuracy, %";
  chart.highest = 100.0;
  const auto own = with_own_zero_shot(unit.groups);
  const auto add_group = [&](const std::string& name, const std::string& tested_on) {
    BarChart::Group bars{name, {}};
    for (std::size_t i = 0; i < std::min(kShownGroups, unit.groups.size()); ++i) {
      const ResultGroup& group = *unit.groups[i];
      if (std::find(own.begin(), own.end(), &group) != own.end())
        add_bar(bars, cell_of(group, unit, tested_on, 0.0), zero_shot_label(group, unit.groups), i, false);
      add_bar(bars, cell_of(group, unit, tested_on, std::nullopt),
              short_label(group) + at_scale(group.main_scale(unit.shots)), i, true);
    }
    chart.groups.push_back(std::move(bars));
  };
  add_group(unit.dataset + " (trained on)", "");
  for (const auto& other : unit.others) add_group(other, other);
  if (!unit.others.empty()) add_group("mean of the others", kMeanOfOthers);
  return chart;
}

std::string key_of(const Unit& unit) {
  const auto own = with_own_zero_shot(unit.groups);
  std::string text = "<ul class=\"legend\">";
  const auto add = [&](const std::string& label, std::size_t colour, const char* css) {
    text += "<li><span class=\"swatch " + std::string(css) + style_of(colour) + "\"></span>" +
            escaped(label) + "</li>";
  };
  for (std::size_t i = 0; i < std::min(kShownGroups, unit.groups.size()); ++i) {
    const ResultGroup& group = *unit.groups[i];
    if (std::find(own.begin(), own.end(), &group) != own.end())
      add(zero_shot_label(group, unit.groups), i, "empty ");
    add(short_label(group) + at_scale(group.main_scale(unit.shots)), i, "");
  }
  return text + "</ul>";
}

}  // namespace

std::vector<FigureTable> other_dataset_tables(const ResultTable& table, const std::string& protocol) {
  std::vector<FigureTable> tables;
  const ResultTable part = of_protocol(table, protocol);
  for (const auto& unit : units_of(part)) tables.push_back(table_of(unit));
  return tables;
}

std::string bars_part(const ResultTable& table, const std::string& protocol) {
  const ResultTable part = of_protocol(table, protocol);
  std::string text;
  std::size_t left_out = 0;
  for (const auto& unit : units_of(part)) {
    const std::string figure = "<div class=\"bar-chart\"><figure><figcaption>" + escaped(unit.title()) +
                               "</figcaption>" + draw_bars(chart_of(unit)) + "</figure>" + key_of(unit) +
                               "</div>";
    if (text.size() + figure.size() > kShiftsBudget) {
      ++left_out;
    } else {
      text += figure;
    }
  }
  if (left_out == 0) return text;
  return text + "<p class=\"note\">" + std::to_string(left_out) +
         " more charts are left out; scales.csv has all "
         "figures.</p>";
}

}  // namespace clip_lora::cli
