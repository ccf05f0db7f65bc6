#include "report_page.hpp"

#include <algorithm>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"
#include "figure_table.hpp"
#include "markup.hpp"
#include "report_parts.hpp"

extern "C" const char clip_lora_report_css_begin[], clip_lora_report_css_end[];

namespace clip_lora::cli {
namespace {

// What the page may take, in bytes: together less than 1.5 MB.
constexpr std::size_t kGroupsBudget = 250'000;
constexpr std::size_t kProtocolBudget = 60'000;  // of the tables of any other protocol
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

struct Section {
  std::string id, title, content;
};

/// The sections; those without content are left out, also from the page's navigation.
std::string markup_of(const std::vector<Section>& sections) {
  std::string text;
  for (const auto& [id, title, content] : sections) {
    if (!content.empty())
      text += "<section id=\"" + id + "\"><h2>" + title + "</h2>" + content + "</section>";
  }
  return text;
}

std::string navigation(const std::vector<Section>& sections) {
  std::string text = "<nav>";
  for (const auto& [id, title, content] : sections) {
    if (!content.empty()) text += "<a href=\"#" + id + "\">" + title + "</a>";
  }
  return text +
         "<a href=\"#datasets\">Data sets</a><a href=\"#runs\">Runs</a><a href=\"#notes\">Notes</a></nav>";
}

/// Accuracies on all classes.
std::string tables(const ResultTable& table) {
  const ResultTable part = of_protocol(table, kAllClasses);
  if (part.groups.empty()) return "";
  Parts parts(kGroupsBudget);
  for (const auto& side_by_side : method_tables(table)) parts.add(as_html(side_by_side));
  parts.add(averages_part(part));
  for (const auto& group : part.groups)
    parts.add("<h3>" + escaped(group.label()) + "</h3>" + group_part(group));
  return "<p class=\"note\">Mean ± standard deviation over seeds.</p>" + parts.text("tables");
}

/// Tables of another protocol below what is drawn of it.
std::string figures(const std::string& drawn, const std::vector<FigureTable>& tables) {
  if (tables.empty()) return "";
  Parts parts(kProtocolBudget);
  for (const auto& table : tables) parts.add(as_html(table));
  return "<p class=\"note\">Mean ± standard deviation over seeds.</p>" + drawn + parts.text("tables");
}

/// What there is to compare, by protocol.
std::vector<Section> comparisons(const ResultTable& table) {
  return {{"curves", "Accuracy against shots", curves_part(of_protocol(table, kAllClasses))},
          {"tables", "Test accuracy", tables(table)},
          {"base-to-new", protocol_name(kBaseToNew), figures("", base_to_new_tables(table))},
          {"robustness", protocol_name(kRobustness),
           figures(bars_part(table, kRobustness), other_dataset_tables(table, kRobustness))},
          {"cross-dataset", protocol_name(kCrossDataset),
           figures(bars_part(table, kCrossDataset), other_dataset_tables(table, kCrossDataset))},
          {"retrieval", protocol_name(kRetrieval), figures("", retrieval_tables(table))},
          {"scales", "Accuracy against α", scales_part(table)}};
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

std::string warnings_of(const SavedRun& run) {
  std::string text;
  for (const auto& warning : run.warnings) text += "<p class=\"note\">" + escaped(warning) + "</p>";
  return text;
}

std::string dataset_details(const ResultGroup& group, const std::string& dataset, bool open,
                            std::size_t thumbnails, std::size_t& pictures_budget) {
  std::vector<const SavedRun*> runs;
  std::copy_if(group.runs.begin(), group.runs.end(), std::back_inserter(runs),
               [&](const SavedRun* run) { return run->dataset == dataset; });
  const SavedRun& run = shown_run(runs);
  std::string text = "<details class=\"dataset\"" + std::string(open ? " open" : "") +
                     attributes({{"data-run", run.name}}) + "><summary>" + escaped(dataset) +
                     " <span class=\"partial\">" + escaped(group.title()) + "</span></summary>" +
                     training_part(runs);
  text += "<p class=\"run\">One run: " + shots_text(run.shots) + ", seed " + std::to_string(run.seed);
  if (run.is_retrieval()) return text + "</p>" + warnings_of(run) + "</details>";
  return text + ", " + figure(run.zero_shot_accuracy, 2, "zero_shot_accuracy") + " → " +
         figure(run.accuracy, 2, "accuracy") + "&nbsp;%</p>" + classes_of(run) + warnings_of(run) +
         pictures_part(run, thumbnails, pictures_budget) + "</details>";
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
  return "<p>Accuracy: top 1 on the whole test split, of the model before (zero-shot) and after adaptation; "
         "with the "
         "protocol base_to_new that of the base classes. "
         "± is the "
         "sample's standard deviation over seeds; that of an average is over the seeds' averages. Calib. "
         "error: "
         "expected calibration error over 15 bins. Time is that of the whole run, both evaluations included, "
         "and "
         "of a resumed run that of its last part; GPU memory as tensors took it, RAM as the process had it "
         "resident.</p>" +
         sources(table) +
         "<p>Exact figures are in results.csv, and those of every scale and data set in scales.csv. Made by "
         "clip_lora " +
         std::string(kVersion) + ".</p>";
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
  const auto compared = comparisons(table);
  const std::string beginning = head(options.title) + "<header><h1>" + escaped(options.title) + "</h1>" +
                                summary_part(found, table) + navigation(compared) + "</header>" +
                                markup_of(compared);
  const std::string end = markup_of({{"notes", "Notes", notes(table)}}) + "</main></body></html>\n";
  const auto left = [&](std::size_t taken) { return kPageBudget - std::min(kPageBudget, taken); };
  std::size_t taken = beginning.size() + end.size();
  const std::string runs =
      markup_of({{"runs", "Runs", runs_part(table, std::min(kRunsBudget, left(taken)))}});
  taken += runs.size();
  return beginning + markup_of({{"datasets", "Data sets", details(table, options, left(taken))}}) + runs +
         end;
}

}  // namespace clip_lora::cli
