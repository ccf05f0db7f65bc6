#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "chart.hpp"
#include "report_page.hpp"

// The parts of the page that report_page() puts together; each is markup.
namespace clip_lora::cli {

/// As many groups are drawn in one chart as there are colours and marks.
constexpr std::size_t kShownGroups = 6;
/// The class of a group's lines and bars in the page's style sheet.
inline std::string style_of(std::size_t group) { return "s" + std::to_string(group % kShownGroups); }

/// A cell of a table where there is no figure.
constexpr const char* kNoCell = "<td class=\"none\">–</td>";

/// Lines of a legend: what a line of a chart means.
struct LegendEntry {
  LineKind kind = LineKind::kMarked;
  std::string style;
  int mark = 0;
  std::string label;
};
std::string legend(const std::vector<LegendEntry>& entries);

/// A cell of a table with its number: <td data-key="accuracy" data-value="84.9312">84.93</td>. `place` are
/// further attributes.
std::string figure_cell(double value, int decimals, const std::string& key, const std::string& place = "");

/// Attributes that say of what a mean is: the group's index, the data set ("" for the average), the shots (""
/// for none).
std::string place(std::size_t group, const std::string& dataset, const std::string& shots);

/// A table in a box of its own that scrolls sideways.
std::string scrolling(const std::string& table);

/// How much there is, how good it is, and what is missing.
std::string summary_part(const SavedRuns& found, const ResultTable& table);

/// The averages over data sets, a row per group; "" for a single group.
std::string averages_part(const ResultTable& table);

/// The table of one group: data sets by shots, with what is published.
std::string group_part(const ResultGroup& group);

/// Accuracy against shots: the average over data sets, and each data set; "" without groups.
std::string curves_part(const ResultTable& table);

/// Accuracy and recall against the scale of the adapter, where runs were evaluated at several; else "".
std::string scales_part(const ResultTable& table);

/// A bar per data set of cross_dataset or robustness, zero-shot beside adapted; "" without such runs.
std::string bars_part(const ResultTable& table, const std::string& protocol);

/// The loss over the training of `runs`, and the looks at the validation images; "" if nothing was written
/// down.
std::string training_part(const std::vector<const SavedRun*>& runs);

/// Gains and losses class by class, and what was taken for what.
std::string classes_part(const ClassResults& results);

/// Pictures that adaptation fixed and broke, at most `count` of each, of at most `budget` bytes, which are
/// taken off it; a line that says why where there are none.
std::string pictures_part(const SavedRun& run, std::size_t count, std::size_t& budget);

/// Time, memory and accuracies of every run, and its command; those that do not fit into `budget` bytes are
/// counted.
std::string runs_part(const ResultTable& table, std::size_t budget);

}  // namespace clip_lora::cli
