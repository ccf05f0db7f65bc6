#include <algorithm>

#include "chart.hpp"
#include "figure_table.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::size_t kFewestScales = 3;        // two make no curve
constexpr std::size_t kScalesBudget = 150'000;  // bytes

/// A figure that is drawn against the scale.
struct Curve {
  ProtocolFigure figure;
  LineKind kind = LineKind::kMarked;
};

/// What is drawn of a protocol: one curve, or two that are weighed against each other.
struct Curves {
  std::string y_title;
  std::vector<Curve> curves;
};

Curves curves_of(const std::string& protocol) {
  const auto figures = figures_of(protocol);
  Curves shown{protocol == kRetrieval ? "recall at 1, %" : "test accuracy, %",
               {{figures[0], LineKind::kMarked}}};
  if (figures.size() > 1) shown.curves.push_back({figures[1], LineKind::kHollow});
  return shown;
}

/// "ViT-B/16, r_adapter, new classes"; what is drawn alone needs no name.
std::string label_of(const ResultGroup& group, const Curves& curves, const Curve& curve) {
  return curves.curves.size() == 1 ? group.label() : group.label() + ", " + curve.figure.label;
}

/// Groups of a protocol that were evaluated at several scales with `shots`.
std::vector<const ResultGroup*> with_scales(const ResultTable& part, const Curves& curves,
                                            std::int64_t shots) {
  std::vector<const ResultGroup*> groups;
  for (const auto& group : part.groups) {
    const ProtocolFigure& first = curves.curves.front().figure;
    if (group.scales(shots, first.name, first.tested_on).size() >= kFewestScales) groups.push_back(&group);
  }
  return groups;
}

std::string zero_shot_mark(double scale) { return scale == 0.0 ? " (zero-shot)" : ""; }

/// A group's curve on `dataset`, or of the average over its data sets for an empty name.
ChartLine line_of(const ResultGroup& group, std::size_t place_of_group, const std::string& dataset,
                  std::int64_t shots, const Curve& curve, const std::string& label) {
  ChartLine line{curve.kind, style_of(place_of_group), static_cast<int>(place_of_group), label, {}};
  for (const double scale : group.scales(shots, curve.figure.name, curve.figure.tested_on)) {
    const FigureCell cell =
        measured_cell(group, dataset, shots, {curve.figure.name, curve.figure.tested_on, scale});
    if (cell.summary.count == 0) continue;
    line.points.push_back(
        {scale, cell.summary.mean, cell.summary.deviation, false,
         label + at_scale(scale) + zero_shot_mark(scale) + ": " + spread_text(cell.summary),
         attributes({{"data-key", "measured"}, {"data-value", exact(cell.summary.mean)}}) + cell.attributes});
  }
  return line;
}

Chart chart_of(const std::vector<const ResultGroup*>& groups, const Curves& curves,
               const std::string& dataset, std::int64_t shots, std::size_t datasets) {
  Chart chart;
  chart.label = curves.y_title + " against the scale, " + (dataset.empty() ? "mean over data sets" : dataset);
  chart.x_title = "scale α";
  chart.y_title = curves.y_title;
  chart.lowest = 0.0;
  chart.highest = 100.0;
  std::set<double> scales;
  for (std::size_t i = 0; i < std::min(kShownGroups, groups.size()); ++i) {
    if (dataset.empty() && groups[i]->datasets.size() < datasets) continue;  // a mean over others
    for (const auto& curve : curves.curves) {
      chart.lines.push_back(
          line_of(*groups[i], i, dataset, shots, curve, label_of(*groups[i], curves, curve)));
      for (const auto& point : chart.lines.back().points) scales.insert(point.x);
    }
  }
  for (const double scale : scales)
    chart.x_ticks.push_back({scale, scale == 0.0 ? "0: zero-shot" : scale_text(scale)});
  return chart;
}

std::string legend_of(const std::vector<const ResultGroup*>& groups, const Curves& curves) {
  std::vector<LegendEntry> entries;
  for (std::size_t i = 0; i < std::min(kShownGroups, groups.size()); ++i) {
    for (const auto& curve : curves.curves) {
      entries.push_back({curve.kind, style_of(i), static_cast<int>(i), label_of(*groups[i], curves, curve)});
    }
  }
  std::string text = legend(entries);
  if (groups.size() > kShownGroups) {
    text += "<p class=\"note\">The first " + std::to_string(kShownGroups) + " of " +
            std::to_string(groups.size()) + " are drawn; scales.csv has all.</p>";
  }
  return text;
}

/// Charts of a protocol with one number of shots: the mean over data sets, and each data set.
std::string charts_of(const ResultTable& part, const Curves& curves, std::int64_t shots,
                      const std::string& title, std::size_t& budget, std::size_t& left_out) {
  const auto groups = with_scales(part, curves, shots);
  if (groups.empty()) return "";
  std::set<std::string> datasets;
  for (const ResultGroup* group : groups) datasets.insert(group->datasets.begin(), group->datasets.end());
  std::vector<std::string> charts(datasets.begin(), datasets.end());
  if (charts.size() > 1) charts.insert(charts.begin(), "");
  std::string figures;
  for (const auto& dataset : charts) {
    const std::string svg = draw(chart_of(groups, curves, dataset, shots, datasets.size()));
    if (svg.empty()) continue;
    if (svg.size() > budget) {
      ++left_out;
      continue;
    }
    budget -= svg.size();
    figures += "<figure><figcaption>" + escaped(dataset.empty() ? "mean over data sets" : dataset) +
               "</figcaption>" + svg + "</figure>";
  }
  if (figures.empty()) return "";
  return "<h3>" + escaped(title) + "</h3>" + legend_of(groups, curves) + "<div class=\"multiples\">" +
         figures + "</div>";
}

std::string title_of(const std::string& protocol, std::int64_t shots) {
  const std::string name = protocol_name(protocol);
  return protocol == kRetrieval && shots == kAllShots ? name : name + ", " + shots_text(shots);
}

}  // namespace

std::string scales_part(const ResultTable& table) {
  std::size_t budget = kScalesBudget, left_out = 0;
  std::string text;
  for (const auto& protocol : protocols_of(table)) {
    const ResultTable part = of_protocol(table, protocol);
    const auto shots = all_shots(part);
    for (auto number = shots.rbegin(); number != shots.rend(); ++number)
      text += charts_of(part, curves_of(protocol), *number, title_of(protocol, *number), budget, left_out);
  }
  if (text.empty()) return "";
  if (left_out > 0) {
    text += "<p class=\"note\">" + std::to_string(left_out) +
            " more charts would make this page too large; scales.csv has their figures.</p>";
  }
  return "<p class=\"note\">One training, evaluated with its adapter scaled by α: mean ± standard deviation "
         "over seeds. α = 0 is the untouched model, zero-shot.</p>" +
         text;
}

}  // namespace clip_lora::cli
