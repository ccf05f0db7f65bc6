#include <cmath>

#include "clip_lora/cli/console.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

namespace clip_lora::cli {
namespace {

std::string optional_cell(const std::optional<double>& value, int decimals, const std::string& key) {
  return value ? figure_cell(*value, decimals, key) : kNoCell;
}

/// GiB for people; the exact value is in bytes.
std::string memory_cell(const std::optional<std::int64_t>& bytes, const std::string& key) {
  if (!bytes) return kNoCell;
  return "<td" + attributes({{"data-key", key}, {"data-value", std::to_string(*bytes)}}) + ">" +
         fixed(static_cast<double>(*bytes) / kBytesPerGib, 2) + "</td>";
}

std::string speed_cell(const SavedRun& run) {
  const auto speed = run.images_per_second();
  return speed ? "<td>" + with_commas(std::llround(*speed)) + "</td>" : kNoCell;
}

/// Seconds; of a resumed run those of its last part, and the cell says so.
std::string time_cell(const SavedRun& run, const std::string& phase) {
  const auto seconds = run.seconds_of(phase);
  if (!seconds || !run.resumed_from) return optional_cell(seconds, 1, "seconds_" + phase);
  return "<td>" + figure(*seconds, 1, "seconds_" + phase) + "<span class=\"partial\">last part</span></td>";
}

std::string run_row(const SavedRun& run, const std::string& group, std::size_t number) {
  return "<tr" + attributes({{"data-run", run.name}}) + "><td>" + std::to_string(number) +
         "</td><th scope=\"row\">" + escaped(run.dataset) + "</th>" +
         (group.empty() ? "" : "<td class=\"words\">" + escaped(group) + "</td>") + "<td>" +
         shots_name(run.shots) + "</td><td>" + std::to_string(run.seed) + "</td>" +
         (run.is_retrieval() ? std::string(kNoCell) + kNoCell
                             : figure_cell(run.zero_shot_accuracy, 2, "zero_shot_accuracy") +
                                   figure_cell(run.accuracy, 2, "accuracy")) +
         optional_cell(run.top5_accuracy, 2, "top5_accuracy") + optional_cell(run.macro_f1, 3, "macro_f1") +
         optional_cell(run.expected_calibration_error, 3, "expected_calibration_error") +
         (run.iterations > 0 ? optional_cell(run.loss, 3, "loss") : kNoCell) + time_cell(run, "total") +
         time_cell(run, "training") + speed_cell(run) + memory_cell(run.peak_gpu_bytes, "peak_gpu_bytes") +
         memory_cell(run.peak_resident_bytes, "peak_resident_bytes") + "</tr>";
}

std::string header(bool with_group) {
  std::string row = "<thead><tr>";
  for (const char* title :
       {"#", "data set", "model", "shots", "seed", "zero-shot", "adapted", "top 5", "macro-F1",
        "calib. error", "loss", "time, s", "training, s", "images/s", "GPU, GiB", "RAM, GiB"}) {
    const bool is_model = std::string(title) == "model";
    if (is_model && !with_group) continue;
    row += std::string("<th scope=\"col\"") + (is_model ? " class=\"words\"" : "") + ">" + title + "</th>";
  }
  return row + "</tr></thead>";
}

}  // namespace

std::string runs_part(const ResultTable& table, std::size_t budget) {
  const bool several = table.groups.size() > 1;
  std::string rows, commands;
  std::size_t number = 0, left_out = 0;
  for (const auto& group : table.groups) {
    for (const SavedRun* run : group.runs) {
      const std::string row = run_row(*run, several ? group.title() : "", number + 1);
      const std::string command = "<li><code>" + escaped(run->command) + "</code></li>";
      if (rows.size() + commands.size() + row.size() + command.size() > budget) {
        ++left_out;
        continue;
      }
      rows += row;
      commands += command;
      ++number;
    }
  }
  std::string text =
      scrolling("<table class=\"runs\">" + header(several) + "<tbody>" + rows + "</tbody></table>");
  if (left_out > 0) {
    text += "<p class=\"note\">" + with_commas(static_cast<std::int64_t>(left_out)) +
            " more runs are in results.csv.</p>";
  }
  return text + "<details><summary>The command of each run</summary><ol class=\"commands\">" + commands +
         "</ol></details>";
}

}  // namespace clip_lora::cli
