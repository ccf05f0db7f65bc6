#include "report_page.hpp"

#include <algorithm>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

extern "C" const char clip_lora_report_css_begin[], clip_lora_report_css_end[];

namespace clip_lora::cli {
namespace {

// What the page may take, in bytes: together less than 1.5 MB.
constexpr std::size_t kGroupsBudget = 250'000;
constexpr std::size_t kRunsBudget = 850'000;
constexpr std::size_t kPicturesBudget = 380'000;
constexpr std::size_t kPageBudget = 1'440'000;

/// Parts that are added as long as they fit.
class Parts {
 public:
  explicit Parts(std::size_t budget) : budget_(budget) {}

  void add(const std::string& part) {
    if (text_.size() + part.size() > budget_) {
      ++left_out_;
    } else {
      text_ += part;
    }
  }
  /// The parts, and a line that counts what was left out as `what`.
  std::string text(const std::string& what) const {
    if (left_out_ == 0) return text_;
    return text_ + "<p class=\"note\">" + std::to_string(left_out_) + " more " + what +
           " would make this page too large (hint: clip_lora report on a part of the folder).</p>";
  }
  bool is_full() const { return left_out_ > 0; }
  void leave_out() { ++left_out_; }

 private:
  std::string text_;
  std::size_t budget_;
  std::size_t left_out_ = 0;
};

std::string section(const std::string& id, const std::string& title, const std::string& content) {
  return content.empty() ? "" : "<section id=\"" + id + "\"><h2>" + title + "</h2>" + content + "</section>";
}

std::string tables(const ResultTable& table) {
  Parts parts(kGroupsBudget);
  parts.add(averages_part(table));
  for (std::size_t i = 0; i < table.groups.size(); ++i) {
    const ResultGroup& group = table.groups[i];
    parts.add("<h3>" + escaped(group.label()) + "</h3>" + group_part(group, i));
  }
  return "<p class=\"note\">Mean ± standard deviation over seeds.</p>" + parts.text("tables");
}

/// The run whose classes and pictures are shown of a data set: that of the most shots, of these of the first
/// seed.
const SavedRun& shown_run(const std::vector<const SavedRun*>& runs) {
  return **std::max_element(runs.begin(), runs.end(), [](const SavedRun* a, const SavedRun* b) {
    return a->shots != b->shots ? a->shots < b->shots : a->seed > b->seed;
  });
}

std::string classes_of(const SavedRun& run) {
  try {
    return classes_part(read_class_results(run));
  } catch (const DataError& error) {
    return "<p class=\"note\">" + escaped(error.what()) + "</p>";
  }
}

std::string dataset_details(const ResultGroup& group, const std::string& dataset, bool open,
                            std::size_t thumbnails, std::size_t& pictures_budget) {
  std::vector<const SavedRun*> runs;
  std::copy_if(group.runs.begin(), group.runs.end(), std::back_inserter(runs),
               [&](const SavedRun* run) { return run->dataset == dataset; });
  const SavedRun& run = shown_run(runs);
  std::string text = "<details class=\"dataset\"" + std::string(open ? " open" : "") +
                     attributes({{"data-run", run.name}}) + "><summary>" + escaped(dataset) +
                     " <span class=\"partial\">" + escaped(group.label()) + "</span></summary>" +
                     training_part(runs);
  text += "<p class=\"run\">One run: " + shots_name(run.shots) + (run.shots == 1 ? " shot" : " shots") +
          ", seed " + std::to_string(run.seed) + ", " +
          figure(run.zero_shot_accuracy, 2, "zero_shot_accuracy") + " → " +
          figure(run.accuracy, 2, "accuracy") + "&nbsp;%</p>" + classes_of(run);
  for (const auto& warning : run.warnings) text += "<p class=\"note\">" + escaped(warning) + "</p>";
  return text + pictures_part(run, thumbnails, pictures_budget) + "</details>";
}

std::string details(const ResultTable& table, const PageOptions& options, std::size_t budget) {
  Parts parts(budget);
  std::size_t pictures_budget = std::min(kPicturesBudget, budget / 2);
  bool first = true;
  for (const auto& group : table.groups) {
    for (const auto& dataset : group.datasets) {
      if (parts.is_full()) {  // reading the others would be for nothing
        parts.leave_out();
        continue;
      }
      parts.add(dataset_details(group, dataset, first, options.thumbnails, pictures_budget));
      first = false;
    }
  }
  return parts.text("data sets");
}

std::string sources(const ResultTable& table) {
  std::string text;
  for (const auto& group : table.groups) {
    if (!group.shows_published()) continue;
    const PublishedFigures& published = *group.published;
    const std::string line = "<p><b>" + escaped(published.name) + ", " + escaped(published.backbone) +
                             "</b>: " + escaped(published.source) +
                             (published.url.empty() ? "" : ", " + escaped(published.url)) + " (" +
                             escaped(published.note) + ").</p>";
    if (text.find(line) == std::string::npos) text += line;
  }
  return text;
}

std::string notes(const ResultTable& table) {
  return "<p>Accuracy: top 1 on the whole test split, of the model before (zero-shot) and after adaptation. "
         "± is the "
         "sample's standard deviation over seeds; that of an average is over the seeds' averages. Calib. "
         "error: "
         "expected calibration error over 15 bins. Time is that of the whole run, both evaluations included, "
         "and "
         "of a resumed run that of its last part; GPU memory as tensors took it, RAM as the process had it "
         "resident.</p>" +
         sources(table) + "<p>Exact figures are in results.csv. Made by clip_lora " + std::string(kVersion) +
         ".</p>";
}

std::string head(const std::string& title) {
  const std::string_view css(clip_lora_report_css_begin,
                             static_cast<std::size_t>(clip_lora_report_css_end - clip_lora_report_css_begin));
  // The policy shows that nothing is fetched, and keeps names in the data from doing it.
  return "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
         "content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">"
         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
         "'unsafe-inline'; "
         "img-src data:\"><link rel=\"icon\" href=\"data:,\"><title>" +
         escaped(title) + "</title><style>" + std::string(css) + "</style></head><body><main>";
}

}  // namespace

std::string report_page(const SavedRuns& found, const ResultTable& table, const PageOptions& options) {
  const std::string beginning =
      head(options.title) + "<header><h1>" + escaped(options.title) + "</h1>" + summary_part(found, table) +
      "<nav><a href=\"#curves\">Curves</a><a href=\"#tables\">Tables</a><a href=\"#datasets\">Data sets</a>"
      "<a href=\"#runs\">Runs</a><a href=\"#notes\">Notes</a></nav></header>" +
      section("curves", "Accuracy against shots", curves_part(table)) +
      section("tables", "Test accuracy", tables(table));
  const std::string end = section("runs", "Runs", runs_part(table, kRunsBudget)) +
                          section("notes", "Notes", notes(table)) + "</main></body></html>\n";
  const std::size_t taken = std::min(kPageBudget, beginning.size() + end.size());
  return beginning + section("datasets", "Data sets", details(table, options, kPageBudget - taken)) + end;
}

}  // namespace clip_lora::cli
