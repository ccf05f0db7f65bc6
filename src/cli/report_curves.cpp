#include <algorithm>
#include <cmath>
#include <fstream>

#include "clip_lora/cli/console.hpp"
#include "figure_table.hpp"
#include "markup.hpp"
#include "metrics_log.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::json;

constexpr std::size_t kChartsBudget = 250'000;  // bytes
constexpr std::size_t kFewestPoints = 12, kMostPoints = 60, kPointsPerChart = 1500;

/// Shots on a logarithmic axis, "all" one step behind the largest number.
class ShotsAxis {
 public:
  explicit ShotsAxis(const ResultTable& table) {
    for (const auto& group : table.groups) shots_.insert(group.shots.begin(), group.shots.end());
    for (const std::int64_t shots : shots_) {
      if (shots != kAllShots) largest_ = std::max(largest_, std::log2(static_cast<double>(shots)));
    }
  }

  double operator()(std::int64_t shots) const {
    return shots == kAllShots ? largest_ + 1.0 : std::log2(static_cast<double>(shots));
  }
  std::vector<ChartTick> ticks() const {
    std::vector<ChartTick> ticks;
    for (const std::int64_t shots : shots_) ticks.push_back({(*this)(shots), shots_name(shots)});
    return ticks;
  }
  double begin() const { return (*this)(*shots_.begin()); }
  double end() const { return (*this)(*shots_.rbegin()); }

 private:
  std::set<std::int64_t> shots_;
  double largest_ = 0.0;
};

ChartPoint mean_point(double x, const train::Summary& summary, const std::string& what,
                      const std::string& key, const std::string& where) {
  return {x,
          summary.mean,
          summary.deviation,
          false,
          what + ": " + spread_text(summary),
          attributes({{"data-key", key}, {"data-value", exact(summary.mean)}}) + where};
}

/// The curve of a group on `dataset`, or of its averages for an empty name, interrupted where runs are
/// missing.
ChartLine accuracy_line(const ResultGroup& group, std::size_t drawn, const std::string& dataset,
                        const ShotsAxis& axis) {
  ChartLine line{LineKind::kMarked, style_of(drawn), static_cast<int>(drawn), group.label(), {}};
  bool gap = false;
  for (const std::int64_t shots : group.shots) {
    const ResultAverage average = group.average(shots);
    const ResultCell* cell = group.cell(dataset, shots);
    const bool is_there = dataset.empty() ? average.complete : cell != nullptr;
    if (is_there) {
      const std::string lacking = group.lacking_seeds(dataset.empty() ? average.seeds : cell->seeds.size());
      line.points.push_back(
          mean_point(axis(shots), dataset.empty() ? average.summary : cell->accuracy,
                     group.label() + ", " + shots_text(shots) + (lacking.empty() ? "" : ", " + lacking),
                     dataset.empty() ? "average_accuracy" : "mean_accuracy",
                     place(group.index, dataset, shots_name(shots))));
      line.points.back().after_gap = gap;
    }
    gap = !is_there;
  }
  return line;
}

ChartLine zero_shot_line(const ResultGroup& group, std::size_t drawn, const std::string& dataset,
                         const ShotsAxis& axis) {
  ChartLine line{LineKind::kDashed, style_of(drawn), 0, group.backbone + ", zero-shot", {}};
  const bool is_there = dataset.empty() || group.zero_shot(dataset).count > 0;
  if (!is_there) return line;
  const double value =
      dataset.empty() ? group.zero_shot_average().summary.mean : group.zero_shot(dataset).mean;
  for (const double x : {axis.begin(), axis.end()})
    line.points.push_back({x, value, std::nullopt, false, "", ""});
  return line;
}

ChartLine published_curve(const ResultGroup& group, std::size_t drawn, const std::string& dataset,
                          const ShotsAxis& axis) {
  ChartLine line{LineKind::kPublished, style_of(drawn), 3, group.backbone + ", published", {}};
  for (const std::int64_t shots : group.shots) {
    const auto value = group.published_accuracy(dataset, shots);
    if (!value) continue;
    line.points.push_back(
        {axis(shots), *value, std::nullopt, false,
         group.published->name + ", " + group.backbone + ", " + shots_text(shots) + ": " + fixed(*value, 1),
         attributes({{"data-key", "published"}, {"data-value", exact(*value)}}) +
             place(group.index, dataset, shots_name(shots))});
  }
  return line;
}

/// Whether no group before has what this one has: what variants have in common is drawn once.
template <typename IsShared>
bool is_first(const ResultTable& table, std::size_t index, const IsShared& is_shared) {
  const auto end = table.groups.begin() + static_cast<std::ptrdiff_t>(index);
  return std::none_of(table.groups.begin(), end, is_shared);
}

/// The first group of an untouched model, whose zero-shot accuracy the others share.
bool has_own_zero_shot(const ResultTable& table, std::size_t index) {
  return is_first(table, index,
                  [&](const ResultGroup& other) { return share_zero_shot(other, table.groups[index]); });
}

bool is_first_of_published(const ResultTable& table, std::size_t index) {
  const ResultGroup& group = table.groups[index];
  if (!group.shows_published()) return false;
  return is_first(table, index, [&](const ResultGroup& other) {
    return other.published == group.published && other.shows_published();
  });
}

/// The backbone, and the variant where that alone tells untouched models apart.
std::string untouched_label(const ResultTable& table, std::size_t index) {
  const ResultGroup& group = table.groups[index];
  const bool is_alone =
      is_first(table, index, [&](const ResultGroup& other) { return other.backbone == group.backbone; });
  return is_alone ? group.backbone : group.label();
}

/// `datasets`: how many there are; groups that lack one are not in the chart of the mean.
Chart accuracy_chart(const ResultTable& table, const std::string& dataset, std::size_t datasets,
                     const ShotsAxis& axis) {
  Chart chart;
  chart.label = "Test accuracy against shots, " + (dataset.empty() ? "mean over data sets" : dataset);
  chart.x_title = "training images per class";
  chart.y_title = "test accuracy, %";
  chart.x_ticks = axis.ticks();
  chart.lowest = 0.0;
  chart.highest = 100.0;
  for (std::size_t i = 0; i < std::min(kShownGroups, table.groups.size()); ++i) {
    const ResultGroup& group = table.groups[i];
    if (dataset.empty() && group.datasets.size() < datasets) continue;  // a mean over others
    if (has_own_zero_shot(table, i)) chart.lines.push_back(zero_shot_line(group, i, dataset, axis));
    if (is_first_of_published(table, i)) chart.lines.push_back(published_curve(group, i, dataset, axis));
    chart.lines.push_back(accuracy_line(group, i, dataset, axis));
  }
  return chart;
}

std::string accuracy_legend(const ResultTable& table) {
  std::vector<LegendEntry> entries;
  for (std::size_t i = 0; i < std::min(kShownGroups, table.groups.size()); ++i) {
    const ResultGroup& group = table.groups[i];
    entries.push_back({LineKind::kMarked, style_of(i), static_cast<int>(i), group.label()});
    const bool several = table.groups.size() > 1;
    if (has_own_zero_shot(table, i)) {
      entries.push_back({LineKind::kDashed, style_of(i), 0,
                         "zero-shot" + (several ? ", " + untouched_label(table, i) : "")});
    }
    if (is_first_of_published(table, i)) {
      entries.push_back({LineKind::kPublished, style_of(i), 3,
                         group.published->name + (several ? ", " + group.backbone : "")});
    }
  }
  return legend(entries);
}

std::string chart_figure(const std::string& caption, const std::string& svg) {
  return svg.empty() ? "" : "<figure><figcaption>" + escaped(caption) + "</figcaption>" + svg + "</figure>";
}

/// One of five colours from dark to light, by the place of `shots` among `all`.
std::string shots_style(std::int64_t shots, const std::set<std::int64_t>& all) {
  const auto at = static_cast<double>(std::distance(all.begin(), all.find(shots)));
  const double last = std::max(1.0, static_cast<double>(all.size()) - 1.0);
  return "q" + std::to_string(std::lround(all.size() == 1 ? 1.0 : 4.0 * at / last));
}

/// Loss by iteration, as far as metrics.jsonl goes; the line that a killed run may have left half written is
/// passed over.
std::vector<train::CurvePoint> read_losses(const SavedRun& run) {
  std::vector<train::CurvePoint> losses;
  std::ifstream file(MetricsLog::lines_of_results(run.folder));
  for (std::string text; std::getline(file, text);) {
    const json line = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!line.is_object()) continue;
    const json iteration = line.value("iteration", json()), loss = line.value("loss", json());
    if (iteration.is_number() && loss.is_number())
      losses.push_back({iteration.get<double>(), loss.get<double>()});
  }
  std::stable_sort(losses.begin(), losses.end(), [](const auto& a, const auto& b) { return a.x < b.x; });
  return losses;
}

/// Passes over the training images after `iteration`: what trainings of different lengths have in common.
double epochs_at(const SavedRun& run, double iteration) {
  if (run.iterations <= 0 || run.images <= 0) return iteration;
  return iteration * static_cast<double>(run.images_seen) / static_cast<double>(run.iterations) /
         static_cast<double>(run.images);
}

Chart training_chart(const std::string& what, const std::string& y_title) {
  Chart chart;
  chart.label = what + " over training";
  chart.x_title = "epochs";
  chart.y_title = y_title;
  chart.lowest = 0.0;
  return chart;
}

}  // namespace

std::string legend(const std::vector<LegendEntry>& entries) {
  std::string text = "<ul class=\"legend\">";
  for (const auto& entry : entries)
    text += "<li>" + draw_key(entry.kind, entry.style, entry.mark) + escaped(entry.label) + "</li>";
  return text + "</ul>";
}

std::string curves_part(const ResultTable& table) {
  if (table.groups.empty()) return "";
  const ShotsAxis axis(table);
  const auto datasets = all_datasets(table);
  const auto chart = [&](const std::string& dataset) {
    return draw(accuracy_chart(table, dataset, datasets.size(), axis));
  };
  std::string explanation = accuracy_legend(table);
  if (table.groups.size() > kShownGroups) {
    explanation += "<p class=\"note\">The first " + std::to_string(kShownGroups) + " of " +
                   std::to_string(table.groups.size()) + " are drawn; the tables have all.</p>";
  }
  const bool all_have_all = std::all_of(table.groups.begin(), table.groups.end(), [&](const auto& group) {
    return group.datasets.size() == datasets.size();
  });
  if (!all_have_all)
    explanation += "<p class=\"note\">Models without results on every data set are not in the mean.</p>";
  const bool one = datasets.size() == 1;
  std::string text =
      "<div class=\"hero\">" +
      chart_figure(one ? datasets.front() : "mean over data sets", chart(one ? datasets.front() : "")) +
      "<div>" + explanation + "</div></div>";
  if (one) return text;
  text += "<div class=\"multiples\">";
  std::size_t shown = 0;
  for (const auto& dataset : datasets) {
    if (text.size() > kChartsBudget) break;
    text += chart_figure(dataset, chart(dataset));
    ++shown;
  }
  text += "</div>";
  if (shown == datasets.size()) return text;
  return text + "<p class=\"note\">" + std::to_string(datasets.size() - shown) +
         " more data sets are in the tables.</p>";
}

std::string training_part(const std::vector<const SavedRun*>& runs) {
  Chart losses = training_chart("Loss", "loss");
  Chart looks = training_chart("Validation accuracy", "validation accuracy, %");
  looks.highest = 100.0;
  std::set<std::int64_t> shots;
  for (const SavedRun* run : runs) shots.insert(run->shots);
  const std::size_t points =
      std::clamp(kPointsPerChart / std::max<std::size_t>(1, runs.size()), kFewestPoints, kMostPoints);
  for (const SavedRun* run : runs) {
    const std::string label = shots_text(run->shots) + ", seed " + std::to_string(run->seed);
    ChartLine loss{LineKind::kPlain, shots_style(run->shots, shots), 0, label, {}};
    for (const auto& mean : train::binned_means(read_losses(*run), points))
      loss.points.push_back({epochs_at(*run, mean.x), mean.y, std::nullopt, false, "", ""});
    losses.lines.push_back(std::move(loss));
    ChartLine look{LineKind::kPlain, shots_style(run->shots, shots), 0, label, {}};
    for (const auto& point : train::binned_means(run->validation, points))
      look.points.push_back({epochs_at(*run, point.x), point.y, std::nullopt, false, "", ""});
    looks.lines.push_back(std::move(look));
  }
  const std::string figures = chart_figure("training loss", draw(losses)) +
                              chart_figure("accuracy on the validation images", draw(looks));
  if (figures.empty()) return "";
  std::vector<LegendEntry> entries;
  for (const std::int64_t number : shots)
    entries.push_back({LineKind::kPlain, shots_style(number, shots), 0, shots_text(number)});
  return legend(entries) + "<div class=\"pair\">" + figures +
         "</div><p class=\"note\">One line per seed; each point is the mean of a part of the training.</p>";
}

}  // namespace clip_lora::cli
