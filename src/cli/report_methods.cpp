#include <algorithm>

#include "figure_table.hpp"

namespace clip_lora::cli {
namespace {

const Measure kZeroShot = {"accuracy", "", 0.0};

/// A column of the table: a group adapted, or its untouched model.
struct Column {
  const ResultGroup* group = nullptr;
  bool zero_shot = false;
};

std::vector<Column> columns_of(const std::vector<const ResultGroup*>& groups) {
  const auto own = with_own_zero_shot(groups);
  std::vector<Column> columns;
  for (const ResultGroup* group : groups) {
    if (std::find(own.begin(), own.end(), group) != own.end()) columns.push_back({group, true});
    columns.push_back({group, false});
  }
  return columns;
}

/// The highest mean is marked where there is one alone among several.
void mark_best(FigureRow& row) {
  FigureCell* best = nullptr;
  std::size_t present = 0, equal = 0;
  for (auto& cell : row.cells) {
    if (cell.summary.count == 0) continue;
    ++present;
    if (best != nullptr && cell.summary.mean < best->summary.mean) continue;
    equal = best != nullptr && cell.summary.mean == best->summary.mean ? equal + 1 : 1;
    best = &cell;
  }
  if (present > 1 && equal == 1) best->is_best = true;
}

/// Of the untouched model as any group has it that shares it with the column's.
FigureCell zero_shot_cell(const Column& column, const std::vector<const ResultGroup*>& groups,
                          const std::string& dataset, std::int64_t shots) {
  for (const ResultGroup* group : groups) {
    if (!share_zero_shot(*group, *column.group)) continue;
    FigureCell cell = measured_cell(*group, dataset, shots, kZeroShot);
    if (cell.summary.count > 0) return cell;
  }
  return {};
}

FigureRow row_of(const std::string& label, const std::vector<Column>& columns,
                 const std::vector<const ResultGroup*>& groups, const std::string& dataset,
                 std::int64_t shots) {
  FigureRow row{label, {}, false};
  for (const auto& column : columns) {
    row.cells.push_back(column.zero_shot ? zero_shot_cell(column, groups, dataset, shots)
                                         : measured_cell(*column.group, dataset, shots, {}));
  }
  mark_best(row);
  return row;
}

/// Averages over all data sets that any method has; those that lack one have none.
FigureRow average_row(const std::vector<Column>& columns, std::int64_t shots, std::size_t datasets) {
  FigureRow row{"average, " + shots_text(shots), {}, true};
  for (const auto& column : columns) {
    row.cells.push_back(
        average_cell(*column.group, datasets, shots, column.zero_shot ? kZeroShot : Measure()));
  }
  mark_best(row);
  return row;
}

FigureTable side_by_side(const std::vector<const ResultGroup*>& groups) {
  const auto columns = columns_of(groups);
  ResultTable of_backbone;
  for (const ResultGroup* group : groups) of_backbone.groups.push_back(*group);
  const auto datasets = all_datasets(of_backbone);
  const auto shots = all_shots(of_backbone);
  FigureTable table;
  table.title = "Methods side by side, " + groups.front()->backbone;
  table.columns = {"data set"};
  for (const auto& column : columns)
    table.columns.push_back(column.zero_shot ? zero_shot_label(*column.group, groups)
                                             : short_label(*column.group));
  for (const auto& dataset : datasets) {
    for (const std::int64_t number : shots) {
      if (!with_cell(groups, dataset, number).empty())
        table.rows.push_back(row_of(dataset + ", " + shots_text(number), columns, groups, dataset, number));
    }
  }
  for (const std::int64_t number : shots) {
    if (datasets.size() > 1) table.rows.push_back(average_row(columns, number, datasets.size()));
  }
  return table;
}

}  // namespace

std::vector<FigureTable> method_tables(const ResultTable& table) {
  std::vector<FigureTable> tables;
  const ResultTable of_all = of_protocol(table, kAllClasses);
  for (const auto& groups : by_backbone(of_all)) {
    const bool several = std::any_of(groups.begin(), groups.end(), [&](const ResultGroup* group) {
      return group->method != groups.front()->method;
    });
    if (several) tables.push_back(side_by_side(groups));
  }
  return tables;
}

}  // namespace clip_lora::cli
