#include <algorithm>

#include "figure_table.hpp"

namespace clip_lora::cli {
namespace {

constexpr const char* kBaseClasses = "accuracy";  // that of the classes trained on
constexpr const char* kNewClasses = "new_classes_accuracy";
constexpr const char* kHarmonicMean = "harmonic_mean";
constexpr const char* kNote =
    "H is the harmonic mean of base and new: of a data set the mean over the seeds' H, of the average that "
    "of the averaged base and new (as in CoCoOp's tables), not the mean of the H above it.";

/// The tables' part of one data set, or of the averages: a row for each untouched model and each group.
class Block {
 public:
  Block(FigureTable& table, const std::vector<const ResultGroup*>& groups, std::int64_t shots)
      : table_(table), groups_(groups), shots_(shots) {}

  void add_dataset(const std::string& dataset) {
    add(dataset, [&](const ResultGroup& group, const std::optional<double>& scale) {
      std::vector<FigureCell> cells;
      for (const char* name : {kBaseClasses, kNewClasses, kHarmonicMean})
        cells.push_back(measured_cell(group, dataset, shots_, {name, "", scale}));
      return cells;
    });
  }

  void add_averages(std::size_t datasets) {
    add("average over " + std::to_string(datasets) + " data sets",
        [&](const ResultGroup& group, const std::optional<double>& scale) {
          return std::vector<FigureCell>{average_cell(group, datasets, shots_, {kBaseClasses, "", scale}),
                                         average_cell(group, datasets, shots_, {kNewClasses, "", scale}),
                                         average_of_harmonic_means(group, datasets, shots_, scale)};
        });
  }

 private:
  template <typename Cells>
  void add(const std::string& heading, const Cells& cells) {
    table_.rows.push_back({heading, {}, false});
    for (const ResultGroup* group : with_own_zero_shot(groups_))
      table_.rows.push_back({zero_shot_label(*group, groups_), cells(*group, 0.0), false});
    for (const ResultGroup* group : groups_) {
      const std::string label = short_label(*group) + at_scale(group->main_scale(shots_));
      table_.rows.push_back({label, cells(*group, std::nullopt), false});
    }
  }

  FigureTable& table_;
  const std::vector<const ResultGroup*>& groups_;
  std::int64_t shots_;
};

FigureTable table_of(const std::vector<const ResultGroup*>& groups, const std::vector<std::string>& datasets,
                     std::int64_t shots) {
  FigureTable table;
  table.title = groups.front()->backbone + ", " + shots_text(shots);
  table.columns = {"classes", "base", "new", "H"};
  if (datasets.size() > 1) Block(table, groups, shots).add_averages(datasets.size());
  for (const auto& dataset : datasets) {
    const auto present = with_cell(groups, dataset, shots);
    Block(table, present, shots).add_dataset(dataset);
  }
  table.note = kNote;
  return table;
}

}  // namespace

FigureCell average_of_harmonic_means(const ResultGroup& group, std::size_t datasets, std::int64_t shots,
                                     const std::optional<double>& scale) {
  const Measure base{kBaseClasses, "", scale}, fresh{kNewClasses, "", scale};
  FigureCell cell = average_cell(group, datasets, shots, fresh);
  if (cell.summary.count == 0) return cell;
  cell.attributes = measured_place(group, "", shots, {kHarmonicMean, "", scale});
  cell.summary.mean = train::harmonic_mean(group.average(shots, base).summary.mean, cell.summary.mean);
  std::vector<double> of_seeds;
  const auto of_base = group.average_by_seed(shots, base);
  for (const auto& [seed, value] : group.average_by_seed(shots, fresh)) {
    if (const auto found = of_base.find(seed); found != of_base.end())
      of_seeds.push_back(train::harmonic_mean(found->second, value));
  }
  if (scale != 0.0) cell.summary.deviation = train::summarise(of_seeds).deviation;
  return cell;
}

std::vector<FigureTable> base_to_new_tables(const ResultTable& table) {
  std::vector<FigureTable> tables;
  const ResultTable part = of_protocol(table, kBaseToNew);
  for (const auto& of_backbone : by_backbone(part)) {
    for (const std::int64_t shots : all_shots(part)) {
      std::vector<const ResultGroup*> groups;
      std::set<std::string> datasets;
      for (const ResultGroup* group : of_backbone) {
        for (const auto& dataset : group->datasets) {
          if (group->cell(dataset, shots) != nullptr) datasets.insert(dataset);
        }
        if (std::find(group->shots.begin(), group->shots.end(), shots) != group->shots.end())
          groups.push_back(group);
      }
      if (!groups.empty()) tables.push_back(table_of(groups, {datasets.begin(), datasets.end()}, shots));
    }
  }
  return tables;
}

}  // namespace clip_lora::cli
