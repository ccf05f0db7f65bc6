#include <algorithm>
#include <iomanip>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/survey.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using data::BenchmarkSurvey;
using nlohmann::ordered_json;

constexpr int kIncomplete = 3;
constexpr std::size_t kShownImages = 3;
constexpr int kStateWidth = 28;      // of "12,345 missing, 678 broken" and less
const std::string kDemo = "shapes";  // of no interest to who did not run the demo

struct DatasetsOptions {
  std::string root_path = ".";
  std::vector<std::string> names;  // empty: all
  bool verify = false;
  std::int64_t workers = 0;  // 0: one per hardware thread
  bool json = false;

  void validate() const;
};

void DatasetsOptions::validate() const {
  const auto known = data::surveyed_names();
  for (const auto& name : names) {
    if (!data::find_surveyed_name(name).empty()) continue;
    throw ConfigError("--dataset: unknown data set '" + name + "', expected one of " +
                      join_capped(known, known.size()) + did_you_mean(name, known));
  }
  constexpr std::int64_t kMostWorkers = 4096;
  if (workers < 0 || workers > kMostWorkers) {
    throw ConfigError("--workers is " + std::to_string(workers) + ", expected 0 (all) to " +
                      std::to_string(kMostWorkers));
  }
  if (!fs::is_directory(root_path))
    throw DataError("--root_path '" + root_path + "': there is no such folder");
}

void bind(OptionTable& table, DatasetsOptions& options) {
  table.add("root_path", options.root_path, "folder that holds the data sets' folders");
  table.add(
      "dataset", [&](const std::vector<std::string>& words) { options.names = words; },
      [&] { return options.names; }, /*list=*/true, "only these; one that is not there fails then");
  table.add("verify", options.verify, "decode every image and list those that are broken");
  table.add("workers", options.workers, "threads that decode; 0: one per hardware thread");
  table.add("json", options.json, "print JSON");
}

/// What is known of one data set in the end.
struct Report {
  BenchmarkSurvey survey;
  std::vector<data::BrokenImage> broken;  // with --verify

  bool is_whole() const { return survey.is_complete() && broken.empty(); }
};

std::vector<Report> make_reports(const DatasetsOptions& options) {
  std::vector<Report> reports;
  for (const auto& asked : options.names.empty() ? data::surveyed_names() : options.names) {
    const std::string name = data::find_surveyed_name(asked);
    const auto is_there = [&](const Report& report) { return report.survey.name == name; };
    if (std::any_of(reports.begin(), reports.end(), is_there)) continue;  // named twice
    reports.push_back({data::survey(name, options.root_path), {}});
  }
  if (!options.names.empty()) return reports;
  std::erase_if(reports, [](const auto& r) { return r.survey.name == kDemo && !r.survey.is_found(); });
  return reports;
}

/// Throws Interrupted.
void verify(std::vector<Report>& reports, int workers) {
  catch_interrupts();
  std::size_t total = 0;
  for (const auto& report : reports) {
    for (const auto& split : report.survey.splits) total += split.images.size();
  }
  ProgressBar bar("decoding", "images", static_cast<std::int64_t>(total), /*enabled=*/true);
  const Stopwatch stopwatch;
  std::size_t before = 0;  // images of the splits that are done
  for (auto& report : reports) {
    for (const auto& split : report.survey.splits) {
      const auto progress = [&](std::size_t done) {
        if (const int signal = pending_interrupt(); signal != 0) throw Interrupted(signal, "interrupted");
        const auto all = static_cast<std::int64_t>(before + done);
        bar.update(all,
                   [&] { return fixed(static_cast<double>(all) / stopwatch.seconds(), 0) + " images/s"; });
      };
      const auto broken = data::find_broken_images(split.images, workers, progress);
      report.broken.insert(report.broken.end(), broken.begin(), broken.end());
      before += split.images.size();
    }
  }
}

std::string how_many(std::size_t number) { return with_commas(static_cast<std::int64_t>(number)); }

std::string quoted(const std::vector<std::string>& names, std::size_t limit, const std::string& separator) {
  std::string text;
  for (std::size_t i = 0; i < std::min(limit, names.size()); ++i) {
    text += (i == 0 ? "'" : separator + "'") + names[i] + "'";
  }
  return names.size() <= limit ? text
                               : text + separator + "… and " + how_many(names.size() - limit) + " more";
}

/// What is wrong with a data set, and what to do about it: a line each.
std::vector<std::string> what_to_do(const Report& report) {
  const BenchmarkSurvey& survey = report.survey;
  std::vector<std::string> lines;
  if (!survey.is_found()) {
    std::vector<std::string> places;
    for (const auto& place : survey.places) places.push_back(place.string());
    lines.push_back("put " + survey.contents + " into " + quoted(places, places.size(), " or ") +
                    ", see DATASETS.md");
  }
  if (!survey.problem.empty()) lines.push_back(survey.problem);
  for (const auto& split : survey.splits) {
    if (split.missing.empty()) continue;
    lines.push_back(how_many(split.missing.size()) + " of " +
                    how_many(split.missing.size() + split.images.size()) + " " + split.name +
                    " images are missing: " + quoted(split.missing, kShownImages, ", "));
  }
  if (survey.missing_images() > 0) {
    lines.push_back("unpack the images again, see DATASETS.md, or run with --allow_missing");
  }
  for (const auto& broken : report.broken) lines.push_back(broken.reason);
  if (!report.broken.empty()) {
    lines.push_back("replace the broken images (" + how_many(report.broken.size()) +
                    ") by those of the archive");
  }
  return lines;
}

std::string state(const Report& report) {
  if (!report.survey.is_found()) return "not found";
  if (!report.survey.problem.empty()) return "cannot be read";
  if (report.is_whole()) return "complete";
  std::string text;
  const std::size_t missing = report.survey.missing_images();
  if (missing > 0) text = how_many(missing) + " missing";
  if (!report.broken.empty()) text += (text.empty() ? "" : ", ") + how_many(report.broken.size()) + " broken";
  return text;
}

/// Images of a split, those that are missing included, or "-".
std::string images_cell(const BenchmarkSurvey& survey, const std::string& split_name) {
  for (const auto& split : survey.splits) {
    if (split.name == split_name) return how_many(split.images.size() + split.missing.size());
  }
  return "-";
}

void print_row(const std::vector<std::string>& cells, const std::string& state, const std::string& folder) {
  std::cout << std::left << std::setw(16) << cells.front() << std::right;
  for (std::size_t i = 1; i < cells.size(); ++i) std::cout << std::setw(11) << cells[i];
  std::cout << "   " << std::left << std::setw(folder.empty() ? 0 : kStateWidth) << state << folder << "\n";
}

void print_table(const std::vector<Report>& reports) {
  print_row({"data set", "classes", "train", "val", "test"}, "state", "folder");
  for (const auto& report : reports) {
    const BenchmarkSurvey& survey = report.survey;
    print_row({survey.name, survey.classes == 0 ? "-" : how_many(survey.classes),
               images_cell(survey, "train"), images_cell(survey, "val"), images_cell(survey, "test")},
              state(report), survey.folder.string());
  }
  for (const auto& report : reports) {
    const auto lines = what_to_do(report);
    if (lines.empty() && report.survey.warnings.empty()) continue;
    std::cout << "\n" << report.survey.name << "\n";
    for (const auto& line : lines) std::cout << "  " << line << "\n";
    for (const auto& warning : report.survey.warnings) std::cout << "  note: " << warning << "\n";
  }
}

ordered_json split_json(const data::SplitSurvey& split) {
  const auto shown =
      split.missing.begin() + static_cast<std::ptrdiff_t>(std::min(kShownImages, split.missing.size()));
  return {{"images", split.images.size() + split.missing.size()},
          {"missing", split.missing.size()},
          {"first_missing", std::vector<std::string>(split.missing.begin(), shown)}};
}

ordered_json report_json(const Report& report, bool verified) {
  const BenchmarkSurvey& survey = report.survey;
  ordered_json splits = ordered_json::object();
  for (const auto& split : survey.splits) splits[split.name] = split_json(split);
  ordered_json broken = ordered_json::array();
  for (const auto& image : report.broken)
    broken.push_back({{"image", image.image}, {"reason", image.reason}});
  ordered_json json = {{"name", survey.name},
                       {"folder", survey.is_found() ? ordered_json(survey.folder.string()) : ordered_json()},
                       {"complete", report.is_whole()},
                       {"classes", survey.classes},
                       {"splits", splits}};
  if (verified) json["broken"] = broken;
  json["to_do"] = what_to_do(report);
  json["warnings"] = survey.warnings;
  return json;
}

void print_json(const std::vector<Report>& reports, bool verified) {
  ordered_json list = ordered_json::array();
  for (const auto& report : reports) list.push_back(report_json(report, verified));
  // File names may be no UTF-8: such bytes become U+FFFD.
  std::cout << list.dump(2, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace) << "\n";
}

}  // namespace

int datasets_command(const std::vector<std::string>& arguments) {
  DatasetsOptions options;
  OptionTable table(
      "clip_lora datasets",
      "Says which of the data sets are below a folder, what is missing, and what to do about it.");
  bind(table, options);
  if (!table.parse(arguments)) return 0;
  options.validate();
  std::vector<Report> reports = make_reports(options);
  if (options.verify)
    verify(reports, options.workers == 0 ? hardware_workers() : static_cast<int>(options.workers));
  options.json ? print_json(reports, options.verify) : print_table(reports);
  const bool is_asked_for = !options.names.empty();
  const bool all_whole = std::all_of(reports.begin(), reports.end(), [&](const Report& report) {
    return report.is_whole() || (!report.survey.is_found() && !is_asked_for);
  });
  return all_whole ? 0 : kIncomplete;
}

}  // namespace clip_lora::cli
