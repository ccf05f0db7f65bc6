#include <array>

#include "figure_table.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::array<const char*, 6> kRecalls = {"image_to_text.at_1",  "image_to_text.at_5",
                                                 "image_to_text.at_10", "text_to_image.at_1",
                                                 "text_to_image.at_5",  "text_to_image.at_10"};

FigureRow row_of(const std::string& label, const ResultGroup& group, const std::string& dataset,
                 std::int64_t shots, double scale) {
  FigureRow row{label, {}, false};
  for (const char* recall : kRecalls)
    row.cells.push_back(measured_cell(group, dataset, shots, {recall, "", scale}));
  return row;
}

FigureTable table_of(const std::vector<const ResultGroup*>& groups, const std::string& dataset,
                     std::int64_t shots) {
  FigureTable table;
  table.title = groups.front()->backbone + ", " + dataset;
  if (shots != kAllShots) table.title += ", " + shots_text(shots);
  table.columns = {"recall", "image → text at 1", "at 5", "at 10", "text → image at 1", "at 5", "at 10"};
  for (const ResultGroup* group : with_own_zero_shot(groups))
    table.rows.push_back(row_of(zero_shot_label(*group, groups), *group, dataset, shots, 0.0));
  for (const ResultGroup* group : groups) {
    for (const double scale : group->scales(shots, kRecalls.front(), "")) {
      if (scale != 0.0)
        table.rows.push_back(row_of(short_label(*group) + at_scale(scale), *group, dataset, shots, scale));
    }
  }
  return table;
}

}  // namespace

std::vector<FigureTable> retrieval_tables(const ResultTable& table) {
  std::vector<FigureTable> tables;
  const ResultTable part = of_protocol(table, kRetrieval);
  for (const auto& of_backbone : by_backbone(part)) {
    for (const auto& dataset : all_datasets(part)) {
      for (const std::int64_t shots : all_shots(part)) {
        const auto groups = with_cell(of_backbone, dataset, shots);
        if (!groups.empty()) tables.push_back(table_of(groups, dataset, shots));
      }
    }
  }
  return tables;
}

}  // namespace clip_lora::cli
