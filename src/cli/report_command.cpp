#include <array>
#include <filesystem>
#include <iostream>
#include <utility>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "figure_table.hpp"
#include "published.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kMostThumbnails = 100;

struct ReportOptions {
  std::string folder;
  std::string out;  // empty: `folder`
  std::string title = "CLIP-LoRA results";
  std::string published;  // file; empty: the figures that are part of the program
  std::int64_t thumbnails = 6;

  void validate() const;
  fs::path out_folder() const { return out.empty() ? folder : out; }
};

void ReportOptions::validate() const {
  if (thumbnails < 0 || thumbnails > kMostThumbnails) {
    throw ConfigError("--thumbnails " + std::to_string(thumbnails) + ": expected 0 to " +
                      std::to_string(kMostThumbnails));
  }
}

void bind(OptionTable& table, ReportOptions& options) {
  table.add_argument("DIR", options.folder, "folder with results at any depth, e.g. a --save_path");
  table.add("out", options.out, "folder for results.csv, scales.csv, results.md and report.html; unset: DIR");
  table.add("title", options.title, "heading of the page");
  table.add("published", options.published,
            "JSON file of published figures, as configs/published.json; unset: that file's");
  table.add("thumbnails", options.thumbnails,
            "pictures that adaptation fixed, and as many that it broke, shown per data set; 0: none");
}

SavedRuns find_runs(const ReportOptions& options) {
  SavedRuns found = find_saved_runs(options.folder);
  for (const auto& reason : found.skipped) log_warning("skipped: " + reason);
  if (found.runs.empty()) {
    throw DataError(
        "'" + options.folder + "': there are no results to report, expected results.json at any depth" +
        (found.skipped.empty() ? "" : "; " + std::to_string(found.skipped.size()) + " were skipped"));
  }
  return found;
}

/// Accuracies on all classes.
void print_accuracies(const ResultTable& table) {
  for (const auto& group : of_protocol(table, kAllClasses).groups) {
    std::cout << printable(group.label()) << "   zero-shot "
              << fixed(group.zero_shot_average().summary.mean, 2);
    for (const std::int64_t shots : group.shots) {
      const ResultAverage average = group.average(shots);
      std::cout << "   " << shots_name(shots) << (shots == 1 ? " shot " : " shots ")
                << (average.complete ? fixed(average.summary.mean, 2) : std::string("–"));
      const std::string lacking = group.lacking_seeds(average.seeds);
      if (average.complete && !lacking.empty()) std::cout << " (" << lacking << ")";
    }
    std::cout << "\n";
  }
}

/// Averages over data sets of another protocol: "ViT-B/16, lora, base_to_new, 16 shots   base classes 60.56 →
/// 86.26   …".
void print_figures(const ResultGroup& group) {
  for (const std::int64_t shots : group.shots) {
    std::cout << printable(group.label()) << ", " << group.protocol << ", " << shots_text(shots);
    for (const auto& figure : figures_of(group.protocol)) {
      const FigureCell before = average_of_figure(group, shots, figure, 0.0);
      const FigureCell after = average_of_figure(group, shots, figure, std::nullopt);
      const auto text = [](const FigureCell& cell) {
        return cell.summary.count > 0 ? fixed(cell.summary.mean, 2) : std::string("–");
      };
      std::cout << "   " << figure.label << " " << text(before) << " → " << text(after)
                << (after.note.empty() ? "" : " (" + after.note + ")");
    }
    std::cout << "\n";
  }
}

void print_results(const ResultTable& table) {
  print_accuracies(table);
  for (const auto& group : table.groups) {
    if (group.protocol != kAllClasses) print_figures(group);
  }
}

}  // namespace

int report_command(const std::vector<std::string>& arguments) {
  ReportOptions options;
  OptionTable table(
      "clip_lora report",
      "Gathers the results below a folder into tables (results.csv, scales.csv, results.md) and a page "
      "(report.html).");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.validate();
  const auto published = read_published(options.published);
  const SavedRuns found = find_runs(options);
  const ResultTable results = tabulate(found.runs, published);
  const std::string page =
      report_page(found, results, {options.title, static_cast<std::size_t>(options.thumbnails)});

  const fs::path out = options.out_folder();
  const std::array files = {
      std::pair("results.csv", results_csv(results)), std::pair("scales.csv", scales_csv(results)),
      std::pair("results.md", results_markdown(results)), std::pair("report.html", page)};
  for (const auto& [name, text] : files) {
    io::remove_temporaries_of(out / name);
    io::write_atomically(out / name, text);
  }
  std::cout << "read       " << with_commas(static_cast<std::int64_t>(found.runs.size()))
            << (found.runs.size() == 1 ? " run" : " runs");
  if (!found.skipped.empty()) std::cout << ", " << found.skipped.size() << " skipped";
  if (!found.failed.empty()) std::cout << ", " << found.failed.size() << " failed";
  std::cout << "\n";
  print_results(results);
  std::cout << "saved      " << (out / "").string()
            << "   results.csv   scales.csv   results.md   report.html "
            << fixed(static_cast<double>(page.size()) / 1e6, 2) << " MB" << std::endl;
  return 0;
}

}  // namespace clip_lora::cli
